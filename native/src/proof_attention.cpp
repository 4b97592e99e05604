// The KV cache: keys and values written into it, and attention over it, as GraphBuilder::attention has them.
#include <algorithm>
#include <cmath>
#include <limits>

#include "proof_case.h"

namespace floatllm {

namespace {

constexpr ggml_type kCaches[] = {GGML_TYPE_F16, GGML_TYPE_Q8_0};
constexpr int64_t kCells = 512;
// The second of two sequences is looked at, so that its place in the cache counts.
constexpr int64_t kSequences = 2;

struct Heads {
    const char *operation;
    int64_t size;
    int64_t heads;
    int64_t kv_heads;
    bool needed;  // with a cache in F16
};

constexpr Heads kHeads[] = {
    {"attention 64", 64, 6, 2, true},
    {"attention 96", 96, 2, 2, false},
    {"attention 128", 128, 8, 2, true},
    {"attention 256", 256, 4, 1, false},
};
constexpr int64_t kPositions[] = {1, 4, 64};
// Larger heads, or quantised ones, take a software device ten seconds to two minutes each to compile for.
constexpr int64_t kSoftwareHead = 64;

// ggml's tests: of all numbers of a Q8_0 result, each up to 1, one may be rounded to the neighbour. That one
// is 1/127 off, which distance() does not take for less than this.
double one_rounded_otherwise(size_t count) {
    constexpr double kAlone = 5e-7;
    return std::max(kAlone, (1.0 / 64) * (1.0 / 64) / (0.25 * static_cast<double>(count)));
}

Case written(ggml_type type, int64_t positions) {
    constexpr int64_t kRow = 192;
    constexpr int64_t kRows = 128;
    Generator generator(20 + static_cast<uint64_t>(positions));
    std::vector<int64_t> cells(static_cast<size_t>(positions));
    for (size_t i = 0; i < cells.size(); ++i) {
        cells[i] = (static_cast<int64_t>(i) * 37 + 11) % kRows;
    }
    Case made{};
    made.operation = "set_rows";
    made.type = type;
    made.positions = positions;
    made.allowed = type == GGML_TYPE_Q8_0 ? one_rounded_otherwise(kRow * cells.size()) : kAllowed;
    made.needed = type == GGML_TYPE_F16;
    made.inputs = {random_input(generator, type, {kRow, kRows, 1, 1}),
                   random_input(generator, GGML_TYPE_F32, {kRow, positions, 1, 1}), i64_input(cells)};
    made.build = [](ggml_context *context, const std::vector<ggml_tensor *> &in) {
        return Built{ggml_set_rows(context, in[0], in[1], in[2]), in[0]};
    };
    made.plain = [type](const std::vector<Numbers> &in) {
        Numbers cache = in[0];
        const Numbers rows = rounded(type, in[1], kRow);
        for (size_t i = 0; i < in[2].size(); ++i) {
            std::copy_n(rows.begin() + static_cast<int64_t>(i) * kRow, kRow,
                        cache.begin() + static_cast<int64_t>(in[2][i]) * kRow);
        }
        return cache;
    };
    return made;
}

// Attention of one query head: softmax(q · k + mask) · v.
void attend(const float *query, const float *keys, const float *values, const float *mask, size_t size,
            size_t stride, float *out) {
    std::vector<double> weights(kCells);
    double total = 0;
    for (size_t cell = 0; cell < kCells; ++cell) {
        double score = 0;
        for (size_t i = 0; i < size; ++i) {
            score += static_cast<double>(query[i]) * static_cast<double>(keys[cell * stride + i]);
        }
        // Scores are small: exp() of none is too large.
        weights[cell] =
            std::exp(score / std::sqrt(static_cast<double>(size)) + static_cast<double>(mask[cell]));
        total += weights[cell];
    }
    for (size_t i = 0; i < size; ++i) {
        double sum = 0;
        for (size_t cell = 0; cell < kCells; ++cell) {
            sum += weights[cell] * static_cast<double>(values[cell * stride + i]);
        }
        out[i] = static_cast<float>(sum / total);
    }
}

Numbers plain_attention(const Heads &shape, const std::vector<Numbers> &in) {
    const size_t size = static_cast<size_t>(shape.size);
    const size_t heads = static_cast<size_t>(shape.heads);
    const size_t stride = size * static_cast<size_t>(shape.kv_heads);
    const size_t first = stride * kCells * (kSequences - 1);
    Numbers out(in[0].size());
    for (size_t i = 0; i < out.size() / size; ++i) {
        const size_t kv_head = i % heads / (heads / static_cast<size_t>(shape.kv_heads));
        const size_t begin = first + kv_head * size;
        attend(in[0].data() + i * size, in[1].data() + begin, in[2].data() + begin,
               in[3].data() + i / heads * kCells, size, stride, out.data() + i * size);
    }
    return out;
}

// Each position sees the cells up to its own.
Input causal_mask(int64_t positions) {
    Numbers mask(static_cast<size_t>(kCells * positions));
    for (size_t i = 0; i < mask.size(); ++i) {
        const int64_t position = static_cast<int64_t>(i) / kCells;
        const int64_t cell = static_cast<int64_t>(i) % kCells;
        mask[i] = cell <= kCells / 2 + position ? 0.0f : -std::numeric_limits<float>::infinity();
    }
    return f16_input(mask, {kCells, positions, 1, 1});
}

Case attention(const Heads &shape, ggml_type type, int64_t positions) {
    Generator generator(30 + static_cast<uint64_t>(shape.size));
    const int64_t row = shape.size * shape.kv_heads;
    Numbers queries(static_cast<size_t>(shape.size * shape.heads * positions));
    for (float &query : queries) {
        // So large that some cells count for more than others.
        query = 6 * generator.number();
    }
    Case made{};
    made.operation = shape.operation;
    made.type = type;
    made.positions = positions;
    made.allowed = kAllowedRounded;
    made.needed = shape.needed && type == GGML_TYPE_F16;
    made.inputs = {number_input(queries, {shape.size, shape.heads, positions, 1}),
                   random_input(generator, type, {row, kCells * kSequences, 1, 1}),
                   random_input(generator, type, {row, kCells * kSequences, 1, 1}), causal_mask(positions)};
    made.build = [shape](ggml_context *context, const std::vector<ggml_tensor *> &in) {
        const auto heads = [&](ggml_tensor *cache) {
            ggml_tensor *view = ggml_view_3d(context, cache, shape.size, shape.kv_heads, kCells,
                                             ggml_row_size(cache->type, shape.size), cache->nb[1],
                                             cache->nb[1] * kCells * (kSequences - 1));
            return ggml_permute(context, view, 0, 2, 1, 3);
        };
        ggml_tensor *out =
            ggml_flash_attn_ext(context, ggml_permute(context, in[0], 0, 2, 1, 3), heads(in[1]), heads(in[2]),
                                in[3], 1.0f / std::sqrt(static_cast<float>(shape.size)), 0.0f, 0.0f);
        ggml_prec_set_acc(out, GGML_PREC_F32);
        return Built{out, out};
    };
    made.plain = [shape](const std::vector<Numbers> &in) { return plain_attention(shape, in); };
    return made;
}

}  // namespace

bool each_attention(bool software, const CaseVisitor &visit) {
    for (const ggml_type type : kCaches) {
        if (!visit(written(type, 1)) || !visit(written(type, 40))) {
            return false;
        }
        for (const Heads &shape : kHeads) {
            for (const int64_t positions : kPositions) {
                const bool slow = software && (shape.size > kSoftwareHead || type != GGML_TYPE_F16);
                if (!slow && !visit(attention(shape, type, positions))) {
                    return false;
                }
            }
        }
    }
    return true;
}

}  // namespace floatllm

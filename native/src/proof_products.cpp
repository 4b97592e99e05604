// Products of weights and activations, whole and in rows of a larger result.
#include <algorithm>
#include <iterator>

#include "program.h"
#include "proof_case.h"

namespace floatllm {

namespace {

// Backends have kernels for one position, for a few, and for many; and others where all is a multiple of
// their tiles.
constexpr int64_t kRaggedRows = 99;
constexpr int64_t kRaggedPositions[] = {1, 2, 8, 40};
constexpr int64_t kEvenRows = 128;
constexpr int64_t kEvenWidth = 512;
constexpr int64_t kEvenPositions = 128;
constexpr int64_t kRepackedPositions[] = {1, 2, 8, 40, 128};
// A software device compiles its kernels for a second to half a minute each, longest those for 2 to 8
// positions and those of types with tables: there the others are multiplied for one position, and the first
// for some.
constexpr ggml_type kSoftwareTypes[] = {GGML_TYPE_F32,  GGML_TYPE_F16,  GGML_TYPE_Q8_0, GGML_TYPE_BF16,
                                        GGML_TYPE_Q4_0, GGML_TYPE_Q4_1, GGML_TYPE_Q5_0, GGML_TYPE_Q5_1,
                                        GGML_TYPE_Q2_K, GGML_TYPE_Q3_K, GGML_TYPE_Q4_K, GGML_TYPE_Q5_K,
                                        GGML_TYPE_Q6_K};
constexpr size_t kSoftwareFirst = 3;
constexpr int64_t kSoftwarePositions = 12;
constexpr int64_t kSlicePositions = 40;
constexpr int64_t kSliceRows = 64;
constexpr int64_t kWholeRows = 192;
// Sums of F32 differ by the order of summation alone, and by TF32 where a device multiplies so.
constexpr double kAllowedF32 = 1e-5;

// About 700, and no multiple of 512, to which CUDA pads rows.
int64_t ragged_width(ggml_type type) {
    const int64_t block = std::max<int64_t>(4, ggml_blck_size(type));
    return block * (700 / block | 1);
}

Numbers plain_product(const Numbers &weights, const Numbers &in, int64_t width) {
    const size_t n = static_cast<size_t>(width);
    const size_t rows = weights.size() / n;
    Numbers out(rows * (in.size() / n));
    for (size_t i = 0; i < out.size(); ++i) {
        const float *row = weights.data() + i % rows * n;
        const float *column = in.data() + i / rows * n;
        double sum = 0;
        for (size_t k = 0; k < n; ++k) {
            sum += static_cast<double>(row[k]) * static_cast<double>(column[k]);
        }
        out[i] = static_cast<float>(sum);
    }
    return out;
}

Case product(ggml_type type, int64_t width, int64_t rows, int64_t positions) {
    Generator generator(static_cast<uint64_t>(type) * 1000 + static_cast<uint64_t>(positions));
    Case made{};
    made.operation = "matmul";
    made.type = type;
    made.positions = positions;
    made.allowed = type == GGML_TYPE_F32 ? kAllowedF32 : kAllowedRounded;
    made.needed = type == GGML_TYPE_F32 || type == GGML_TYPE_F16;
    made.inputs = {random_input(generator, type, {width, rows, 1, 1}),
                   random_input(generator, GGML_TYPE_F32, {width, positions, 1, 1})};
    made.build = [](ggml_context *context, const std::vector<ggml_tensor *> &in) {
        ggml_tensor *out = ggml_mul_mat(context, in[0], in[1]);
        return Built{out, out};
    };
    made.plain = [width](const std::vector<Numbers> &in) { return plain_product(in[0], in[1], width); };
    return made;
}

// Some rows of a matrix at several positions: computed aside, then copied in (GraphBuilder::matmul).
Case slice(int64_t positions) {
    Case made = product(GGML_TYPE_F32, kEvenWidth, kSliceRows, positions);
    Generator generator(kWholeRows);
    made.operation = "matmul of a row slice";
    made.inputs.push_back(random_input(generator, GGML_TYPE_F32, {kWholeRows, positions, 1, 1}));
    made.build = [positions](ggml_context *context, const std::vector<ggml_tensor *> &in) {
        ggml_tensor *place =
            ggml_view_2d(context, in[2], kSliceRows, positions, in[2]->nb[1], kSliceRows * sizeof(float));
        return Built{ggml_cpy(context, ggml_mul_mat(context, in[0], in[1]), place), in[2]};
    };
    made.plain = [positions](const std::vector<Numbers> &in) {
        const Numbers rows = plain_product(in[0], in[1], kEvenWidth);
        Numbers whole = in[2];
        for (int64_t position = 0; position < positions; ++position) {
            std::copy_n(rows.begin() + position * kSliceRows, kSliceRows,
                        whole.begin() + position * kWholeRows + kSliceRows);
        }
        return whole;
    };
    return made;
}

bool products_of(ggml_type type, bool repacks, const CaseVisitor &visit) {
    for (const int64_t positions : kRaggedPositions) {
        if (!visit(product(type, ragged_width(type), kRaggedRows, positions))) {
            return false;
        }
    }
    if (!visit(product(type, kEvenWidth, kEvenRows, kEvenPositions))) {
        return false;
    }
    for (const int64_t positions : kRepackedPositions) {
        Case made = product(type, kEvenWidth, kEvenRows, positions);
        made.operation = "matmul, rearranged,";
        made.repacked = true;
        if (repacks && !visit(made)) {
            return false;
        }
    }
    return true;
}

// Without the row slice: after it the next session on llvmpipe (Mesa 22.3.6) often crashed in the driver's
// own thread, and why is not known.
bool software_products(const CaseVisitor &visit) {
    for (size_t i = 0; i < std::size(kSoftwareTypes); ++i) {
        const ggml_type type = kSoftwareTypes[i];
        const int64_t width = ragged_width(type);
        if (!visit(product(type, width, kRaggedRows, 1)) ||
            (i < kSoftwareFirst && !visit(product(type, width, kRaggedRows, kSoftwarePositions)))) {
            return false;
        }
    }
    return true;
}

}  // namespace

bool each_product(const std::vector<bool> &repacks, bool software, const CaseVisitor &visit) {
    if (software) {
        return software_products(visit);
    }
    for (int i = 0; i < GGML_TYPE_COUNT; ++i) {
        const ggml_type type = static_cast<ggml_type>(i);
        if (ggml_blck_size(type) > 0 && multiplies(type) &&
            !products_of(type, repacks[static_cast<size_t>(i)], visit)) {
            return false;
        }
    }
    return visit(slice(kSlicePositions));
}

}  // namespace floatllm

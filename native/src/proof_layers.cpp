// Norms, activations, additions, rows picked out, and RoPE, as GraphBuilder puts them together.
#include <cmath>

#include "proof_case.h"

namespace floatllm {

namespace {

constexpr int64_t kFew[] = {1, 40};
// Backends norm short rows and long ones in different kernels.
constexpr int64_t kWidths[] = {576, 2304};
constexpr int64_t kHead = 128;
constexpr int64_t kHeads = 6;
constexpr float kEps = 1e-5f;
// The CPU looks GELU up in a table in F16 (ggml-cpu, GGML_GELU_FP16), which alone is off by 1e-7.
constexpr double kAllowedGelu = 1e-6;

Case over(const char *operation, int64_t positions, bool needed, std::vector<Input> inputs) {
    Case made{};
    made.operation = operation;
    made.type = GGML_TYPE_F32;
    made.positions = positions;
    made.allowed = kAllowed;
    made.needed = needed;
    made.inputs = std::move(inputs);
    return made;
}

Input random_floats(uint64_t seed, std::array<int64_t, 4> ne) {
    Generator generator(seed);
    return random_input(generator, GGML_TYPE_F32, ne);
}

// RMS norm of each `weights.size()` numbers, times the weights.
Numbers plain_norm(const Numbers &in, const Numbers &weights) {
    const size_t width = weights.size();
    Numbers out(in.size());
    for (size_t begin = 0; begin < in.size(); begin += width) {
        double squares = 0;
        for (size_t i = 0; i < width; ++i) {
            squares += static_cast<double>(in[begin + i]) * static_cast<double>(in[begin + i]);
        }
        const double scale =
            1.0 / std::sqrt(squares / static_cast<double>(width) + static_cast<double>(kEps));
        for (size_t i = 0; i < width; ++i) {
            out[begin + i] = static_cast<float>(scale * static_cast<double>(in[begin + i] * weights[i]));
        }
    }
    return out;
}

Case norm(int64_t width, int64_t positions) {
    Case made = over("RMS norm", positions, true,
                     {random_floats(1, {width, positions, 1, 1}), random_floats(2, {width, 1, 1, 1})});
    made.build = [](ggml_context *context, const std::vector<ggml_tensor *> &in) {
        ggml_tensor *out = ggml_mul(context, ggml_rms_norm(context, in[0], kEps), in[1]);
        return Built{out, out};
    };
    made.plain = [](const std::vector<Numbers> &in) { return plain_norm(in[0], in[1]); };
    return made;
}

Case head_norm(int64_t positions) {
    Case made =
        over("RMS norm of heads", positions, false,
             {random_floats(3, {kHead * kHeads, positions, 1, 1}), random_floats(4, {kHead, 1, 1, 1})});
    made.build = [](ggml_context *context, const std::vector<ggml_tensor *> &in) {
        ggml_tensor *heads = ggml_reshape_3d(context, in[0], kHead, kHeads, in[0]->ne[1]);
        ggml_tensor *normed = ggml_rms_norm_inplace(context, heads, kEps);
        return Built{ggml_mul_inplace(context, normed, in[1]), in[0]};
    };
    made.plain = [](const std::vector<Numbers> &in) { return plain_norm(in[0], in[1]); };
    return made;
}

Case gated(bool gelu, int64_t positions) {
    constexpr int64_t kWidth = 1544;
    Case made =
        over(gelu ? "GeGLU" : "SwiGLU", positions, !gelu,
             {random_floats(5, {kWidth, positions, 1, 1}), random_floats(6, {kWidth, positions, 1, 1})});
    made.allowed = gelu ? kAllowedGelu : kAllowed;
    made.build = [gelu](ggml_context *context, const std::vector<ggml_tensor *> &in) {
        ggml_tensor *out =
            gelu ? ggml_geglu_split(context, in[0], in[1]) : ggml_swiglu_split(context, in[0], in[1]);
        return Built{out, out};
    };
    made.plain = [gelu](const std::vector<Numbers> &in) {
        Numbers out(in[0].size());
        for (size_t i = 0; i < out.size(); ++i) {
            const double x = static_cast<double>(in[0][i]);
            // GELU by its approximation with tanh: Hendrycks and Gimpel, "Gaussian error linear units", 2016.
            const double gate =
                gelu ? 0.5 * x * (1 + std::tanh(0.79788456080286536 * (x + 0.044715 * x * x * x)))
                     : x / (1 + std::exp(-x));
            out[i] = static_cast<float>(gate * static_cast<double>(in[1][i]));
        }
        return out;
    };
    return made;
}

// `bias`: one row is added to every position.
Case addition(bool bias, int64_t positions) {
    constexpr int64_t kWidth = 576;
    Case made = over(bias ? "bias" : "add", positions, true,
                     {random_floats(7, {kWidth, positions, 1, 1}),
                      random_floats(8, {kWidth, bias ? 1 : positions, 1, 1})});
    made.build = [](ggml_context *context, const std::vector<ggml_tensor *> &in) {
        return Built{ggml_add_inplace(context, in[0], in[1]), in[0]};
    };
    made.plain = [](const std::vector<Numbers> &in) {
        Numbers out = in[0];
        for (size_t i = 0; i < out.size(); ++i) {
            out[i] += in[1][i % in[1].size()];
        }
        return out;
    };
    return made;
}

Case picked() {
    constexpr int64_t kWidth = 576;
    const std::vector<int32_t> wanted = {39, 0, 17, 17, 3};
    Case made = over("get_rows", static_cast<int64_t>(wanted.size()), true,
                     {random_floats(9, {kWidth, 40, 1, 1}), i32_input(wanted)});
    made.build = [](ggml_context *context, const std::vector<ggml_tensor *> &in) {
        ggml_tensor *out = ggml_get_rows(context, in[0], in[1]);
        return Built{out, out};
    };
    made.plain = [](const std::vector<Numbers> &in) {
        Numbers out;
        for (const float row : in[1]) {
            const auto begin = in[0].begin() + static_cast<int64_t>(row) * kWidth;
            out.insert(out.end(), begin, begin + kWidth);
        }
        return out;
    };
    return made;
}

struct Rope {
    const char *operation;
    int mode;
    int rotated;  // elements of a head
    float base;
    float scale;
    float magnitude;
    bool factors;
    bool needed;
};

constexpr Rope kRopes[] = {
    {"RoPE", GGML_ROPE_TYPE_NORMAL, kHead, 10000.0f, 1.0f, 1.0f, false, true},
    {"RoPE with factors", GGML_ROPE_TYPE_NORMAL, kHead, 500000.0f, 1.0f, 1.0f, true, false},
    {"RoPE neox", GGML_ROPE_TYPE_NEOX, kHead, 1000000.0f, 1.0f, 1.0f, false, true},
    {"RoPE neox, scaled,", GGML_ROPE_TYPE_NEOX, kHead, 1000000.0f, 0.125f, 1.0f, false, false},
    {"RoPE neox with factors", GGML_ROPE_TYPE_NEOX, kHead / 2, 10000.0f, 1.0f, 1.19f, true, false},
};

// Su and others, "RoFormer", 2021: pairs of elements are turned, by less the further back in the head they
// are. Neox pairs those half the rotated part apart, normal mode neighbours.
Numbers plain_rope(const Rope &rope, const std::vector<Numbers> &in) {
    Numbers out = in[0];
    const size_t pairs = static_cast<size_t>(rope.rotated) / 2;
    const bool neox = rope.mode == GGML_ROPE_TYPE_NEOX;
    for (size_t head = 0; head * kHead < out.size(); ++head) {
        const double position = static_cast<double>(in[1][head / kHeads]);
        for (size_t pair = 0; pair < pairs; ++pair) {
            const double turn = std::pow(static_cast<double>(rope.base),
                                         -static_cast<double>(pair) / static_cast<double>(pairs));
            const double factor = rope.factors ? static_cast<double>(in[2][pair]) : 1.0;
            const double angle = position * turn / factor * static_cast<double>(rope.scale);
            float &first = out[head * kHead + (neox ? pair : 2 * pair)];
            float &second = out[head * kHead + (neox ? pair + pairs : 2 * pair + 1)];
            const double x = static_cast<double>(first) * static_cast<double>(rope.magnitude);
            const double y = static_cast<double>(second) * static_cast<double>(rope.magnitude);
            first = static_cast<float>(x * std::cos(angle) - y * std::sin(angle));
            second = static_cast<float>(x * std::sin(angle) + y * std::cos(angle));
        }
    }
    return out;
}

Case rotation(const Rope &rope, int64_t positions) {
    Generator generator(10);
    std::vector<int32_t> at(static_cast<size_t>(positions));
    for (size_t i = 0; i < at.size(); ++i) {
        at[i] = static_cast<int32_t>(generator.index(512));
    }
    Case made = over(rope.operation, positions, rope.needed,
                     {random_floats(11, {kHead * kHeads, positions, 1, 1}), i32_input(at)});
    if (rope.factors) {
        Numbers factors(static_cast<size_t>(rope.rotated) / 2);
        for (float &factor : factors) {
            factor = 4.5f + 3.5f * generator.number();
        }
        made.inputs.push_back(number_input(factors, {rope.rotated / 2, 1, 1, 1}));
    }
    made.build = [rope](ggml_context *context, const std::vector<ggml_tensor *> &in) {
        ggml_tensor *heads = ggml_reshape_3d(context, in[0], kHead, kHeads, in[0]->ne[1]);
        return Built{
            ggml_rope_ext_inplace(context, heads, in[1], rope.factors ? in[2] : nullptr, rope.rotated,
                                  rope.mode, 8192, rope.base, rope.scale, 0.0f, rope.magnitude, 32.0f, 1.0f),
            in[0]};
    };
    made.plain = [rope](const std::vector<Numbers> &in) { return plain_rope(rope, in); };
    return made;
}

}  // namespace

bool each_layer_operation(const CaseVisitor &visit) {
    for (const int64_t positions : kFew) {
        for (const int64_t width : kWidths) {
            if (!visit(norm(width, positions))) {
                return false;
            }
        }
        if (!visit(head_norm(positions)) || !visit(gated(false, positions)) ||
            !visit(gated(true, positions)) || !visit(addition(false, positions)) ||
            !visit(addition(true, positions))) {
            return false;
        }
    }
    return visit(picked());
}

bool each_rotation(const CaseVisitor &visit) {
    for (const Rope &rope : kRopes) {
        for (const int64_t positions : kFew) {
            if (!visit(rotation(rope, positions))) {
                return false;
            }
        }
    }
    return true;
}

}  // namespace floatllm

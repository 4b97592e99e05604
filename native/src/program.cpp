#include "program.h"

#include <algorithm>
#include <initializer_list>
#include <numeric>

#include "error.h"

namespace floatllm {

bool multiplies(ggml_type type) {
    return type == GGML_TYPE_F32 || type == GGML_TYPE_F16 || type == GGML_TYPE_BF16 ||
           (ggml_is_quantized(type) && type != GGML_TYPE_Q8_1 && type != GGML_TYPE_Q8_K);
}

namespace {

class Builder {
  public:
    Builder(const GgufFile &model, const ArchSpec &spec) : model_(model) {
        program_.arch = &spec;
        program_.dims = read_dims(model, spec);
    }

    Program build() {
        const Dims &d = program_.dims;
        set_rows({{Act::X, d.embd},
                  {Act::Normed, d.embd},
                  {Act::Scaled, d.embd},
                  {Act::Q, d.q_rows()},
                  {Act::K, d.k_rows()},
                  {Act::V, d.v_rows()},
                  {Act::Att, d.att_rows()},
                  {Act::Out, d.embd},
                  {Act::Gate, d.ff},
                  {Act::Up, d.ff},
                  {Act::Hidden, d.ff},
                  {Act::Logits, d.vocab}});
        program_.embedding = model_.tensor_index("token_embd.weight");
        const ggml_type type = model_.tensors()[static_cast<size_t>(program_.embedding)].type;
        if (type != GGML_TYPE_F32 && ggml_get_type_traits(type)->to_float == nullptr) {
            refuse(program_.embedding,
                   format("token_embd.weight has type %s, which cannot be read as numbers",
                          ggml_type_name(type)));
        }
        for (uint32_t layer = 0; layer < d.layers; ++layer) {
            block(static_cast<int>(layer));
        }
        layer_ = -1;
        half_ = 0;
        push(OpKind::Gather, Act::X, Act::Out, -1);
        gathered_ = true;
        norm("output_norm.weight", Act::Out);
        // A model without an output matrix uses its token embedding.
        const bool tied = model_.tensor_index("output.weight") < 0;
        matmul(tied ? "token_embd.weight" : "output.weight", Act::Scaled, Act::Logits);
        return program_;
    }

  private:
    void block(int layer) {
        layer_ = layer;
        half_ = 0;
        norm(name("attn_norm.weight"), Act::X);
        const ArchSpec &spec = *program_.arch;
        if (spec.fused) {
            fused(name("attn_qkv.weight"), {Act::Q, Act::K, Act::V});
        } else {
            matmul(name("attn_q.weight"), Act::Scaled, Act::Q);
            matmul(name("attn_k.weight"), Act::Scaled, Act::K);
            matmul(name("attn_v.weight"), Act::Scaled, Act::V);
            bias(name("attn_q.bias"), Act::Q);
            bias(name("attn_k.bias"), Act::K);
            bias(name("attn_v.bias"), Act::V);
        }
        if (spec.head_norm) {
            head_norm(name("attn_q_norm.weight"), Act::Q);
            head_norm(name("attn_k_norm.weight"), Act::K);
        }
        attention();
        matmul(name("attn_output.weight"), Act::Att, Act::Out);
        bias(name("attn_output.bias"), Act::Out);
        add_to_stream(name("post_attention_norm.weight"));
        half_ = 1;
        norm(name("ffn_norm.weight"), Act::X);
        if (spec.fused) {
            fused(name("ffn_up.weight"), {Act::Gate, Act::Up});
        } else {
            matmul(name("ffn_gate.weight"), Act::Scaled, Act::Gate);
            matmul(name("ffn_up.weight"), Act::Scaled, Act::Up);
        }
        push(spec.gelu ? OpKind::GeGlu : OpKind::SwiGlu, Act::Gate, Act::Hidden, -1);
        matmul(name("ffn_down.weight"), Act::Hidden, Act::Out);
        add_to_stream(name("post_ffw_norm.weight"));
    }

    // X += Out, normalised first where the architecture does.
    void add_to_stream(const std::string &post_norm) {
        if (program_.arch->post_norm) {
            norm(post_norm, Act::Out);
        }
        push(OpKind::Add, program_.arch->post_norm ? Act::Scaled : Act::Out, Act::X, -1);
    }

    void head_norm(const std::string &weight, Act act) {
        push(OpKind::HeadNorm, act, act, float_tensor(weight, program_.dims.head_k));
    }

    // Biases are optional in every architecture: conversions leave out those that are zero.
    void bias(const std::string &weight, Act act) {
        if (model_.tensor_index(weight) >= 0) {
            push(OpKind::Bias, act, act, float_tensor(weight, rows(act)));
        }
    }

    // One matrix whose rows belong to several activations, one after the other.
    void fused(const std::string &weight, std::initializer_list<Act> outs) {
        int64_t total = 0;
        for (const Act out : outs) {
            total += rows(out);
        }
        const int index = matrix(weight, rows(Act::Scaled), total);
        int64_t first = 0;
        for (const Act out : outs) {
            push(OpKind::MatMul, Act::Scaled, out, index);
            cuttable(first, rows(out));
            first += rows(out);
        }
    }

    std::string name(const char *part) const { return format("blk.%d.%s", layer_, part); }

    void norm(const std::string &weight, Act in) {
        push(OpKind::Norm, in, Act::Scaled, float_tensor(weight, rows(in)));
    }

    void matmul(const std::string &weight, Act in, Act out) {
        push(OpKind::MatMul, in, out, matrix(weight, rows(in), rows(out)));
        cuttable(0, rows(out));
    }

    void cuttable(int64_t first, int64_t count) {
        program_.ops.back().row_first = first;
        program_.ops.back().rows = count;
        program_.ops.back().grain = kRowGrain;
    }

    void attention() {
        int factors = -1;
        if (model_.tensor_index("rope_freqs.weight") >= 0) {
            factors = float_tensor("rope_freqs.weight", program_.dims.rot / 2);
        } else if (model_.tensor_index("rope_factors_short.weight") >= 0) {
            // The long factors are for contexts beyond the original one, which the plan does not grant.
            factors = float_tensor("rope_factors_short.weight", program_.dims.rot / 2);
        }
        push(OpKind::Attention, Act::Q, Act::Att, factors);
    }

    int matrix(const std::string &weight, int64_t ne0, int64_t ne1) const {
        const int index = tensor(weight, ne0, ne1);
        const ggml_type type = model_.tensors()[static_cast<size_t>(index)].type;
        if (!multiplies(type)) {
            refuse(index, format("%s has type %s, which no matrix product takes", weight.c_str(),
                                 ggml_type_name(type)));
        }
        return index;
    }

    int float_tensor(const std::string &name, int64_t count) const {
        const int index = tensor(name, count, 1);
        if (model_.tensors()[static_cast<size_t>(index)].type != GGML_TYPE_F32) {
            refuse(index, name + " is not of type F32");
        }
        return index;
    }

    void push(OpKind kind, Act in, Act out, int weight) {
        program_.ops.push_back({kind, layer_, half_, in, out, weight, 0, 0, 1, gathered_});
    }

    // Index of a tensor that must be [ne0, ne1].
    int tensor(const std::string &name, int64_t ne0, int64_t ne1) const {
        const int index = model_.tensor_index(name);
        if (index < 0) {
            model_.refuse_key("", "the tensor " + name + " is missing");
        }
        const Tensor &t = model_.tensors()[static_cast<size_t>(index)];
        if (t.ne[0] != ne0 || t.ne[1] != ne1 || t.ne[2] != 1 || t.ne[3] != 1) {
            model_.refuse_tensor(
                t, format("the tensor %s has the shape [%lld, %lld, %lld, %lld], not [%lld, %lld, 1, 1]",
                          name.c_str(), static_cast<long long>(t.ne[0]), static_cast<long long>(t.ne[1]),
                          static_cast<long long>(t.ne[2]), static_cast<long long>(t.ne[3]),
                          static_cast<long long>(ne0), static_cast<long long>(ne1)));
        }
        return index;
    }

    int64_t rows(Act act) const { return program_.rows[static_cast<size_t>(act)]; }

    void set_rows(std::initializer_list<std::pair<Act, uint32_t>> all) {
        for (const auto &each : all) {
            program_.rows[static_cast<size_t>(each.first)] = each.second;
        }
    }

    [[noreturn]] void refuse(int tensor, const std::string &what) const {
        model_.refuse_tensor(model_.tensors()[static_cast<size_t>(tensor)], what);
    }

    const GgufFile &model_;
    Program program_;
    int layer_ = -1;
    int half_ = 0;
    bool gathered_ = false;
};

// One part's sums stay within 1 MiB, however thin the rows are.
constexpr int64_t kMostTouchRows = int64_t{1} << 18;

}  // namespace

Program forward_program(const GgufFile &model) {
    const std::string name = model.text("general.architecture", "");
    if (name.empty()) {
        model.refuse_key("general.architecture",
                         "no architecture is named (general.architecture), so it cannot be "
                         "run; inspect and map work");
    }
    const ArchSpec *spec = find_arch(name);
    if (spec == nullptr) {
        throw Error(FLOATLLM_ERROR_MODEL,
                    format("%s is of the architecture %s (at byte %llu), which this engine does not run (it "
                           "runs: %s); inspect and map work on any.",
                           model.path().c_str(), name.c_str(),
                           static_cast<unsigned long long>(model.meta("general.architecture")->offset),
                           known_archs().c_str()));
    }
    return Builder(model, *spec).build();
}

Program map_program(const GgufFile &model) {
    Program program;
    std::vector<size_t> order(model.tensors().size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::sort(order.begin(), order.end(), [&model](size_t a, size_t b) {
        const Tensor &left = model.tensors()[a];
        const Tensor &right = model.tensors()[b];
        return left.file != right.file ? left.file < right.file : left.offset < right.offset;
    });
    for (size_t index : order) {
        const Tensor &tensor = model.tensors()[index];
        const bool computed = multiplies(tensor.type);
        // Every tensor is a layer of its own: nothing here wants its neighbours in the same chunk.
        program.ops.push_back({computed ? OpKind::Touch : OpKind::Peek, -1, 0, Act::X, Act::X,
                               static_cast<int>(index), 0, tensor.rows(), 1, false});
        if (computed) {
            program.touch_width = std::max(program.touch_width, tensor.ne[0]);
            program.touch_rows = std::max(program.touch_rows, std::min(tensor.rows(), kMostTouchRows));
        }
    }
    return program;
}

}  // namespace floatllm

#include "arch.h"

#include <cmath>

#include "error.h"

namespace floatllm {

namespace {

const ArchSpec kArchs[] = {
    {"llama", GGML_ROPE_TYPE_NORMAL, false, false, false, false, false, 0},
    {"qwen2", GGML_ROPE_TYPE_NEOX, false, false, false, false, false, 0},
    {"qwen3", GGML_ROPE_TYPE_NEOX, true, false, false, false, false, 0},
    {"phi3", GGML_ROPE_TYPE_NEOX, false, true, false, false, false, 0},
    {"gemma3", GGML_ROPE_TYPE_NEOX, true, false, true, true, true, 6},
};

// Far above every model known, far below what would overflow a product of two.
constexpr uint32_t kMostLayers = 4096;
constexpr uint32_t kMostWidth = 1u << 22;
constexpr uint32_t kMostHead = 1024;

}  // namespace

const ArchSpec *find_arch(const std::string &name) {
    for (const ArchSpec &spec : kArchs) {
        if (name == spec.name) {
            return &spec;
        }
    }
    return nullptr;
}

std::string known_archs() {
    std::string names;
    for (const ArchSpec &spec : kArchs) {
        names += (names.empty() ? "" : ", ") + std::string(spec.name);
    }
    return names;
}

Dims read_dims(const GgufFile &model, const ArchSpec &spec) {
    const std::string prefix = std::string(spec.name) + ".";
    // Names the byte of the key that is wrong, or the likeliest of several.
    const auto refuse = [&](const char *key, const std::string &what) {
        model.refuse_key(prefix + key, what);
    };
    const auto required = [&](const char *key, uint32_t most) {
        const std::string name = prefix + key;
        if (model.meta(name) == nullptr) {
            refuse(key, "the key " + name + " is missing");
        }
        const uint32_t value = model.number_u32(name, 0);
        if (value < 1 || value > most) {
            refuse(key, format("the key %s is %u, not a number from 1 to %u", name.c_str(), value, most));
        }
        return value;
    };

    Dims dims{};
    dims.layers = required("block_count", kMostLayers);
    dims.embd = required("embedding_length", kMostWidth);
    dims.ff = required("feed_forward_length", kMostWidth);
    dims.heads = required("attention.head_count", kMostWidth);
    dims.kv_heads = model.number_u32(prefix + "attention.head_count_kv", dims.heads);
    if (dims.kv_heads < 1 || dims.kv_heads > dims.heads || dims.heads % dims.kv_heads != 0) {
        refuse("attention.head_count_kv",
               format("%u query heads cannot share %u key-value heads", dims.heads, dims.kv_heads));
    }
    if (model.meta(prefix + "attention.key_length") == nullptr && dims.embd % dims.heads != 0) {
        refuse("attention.head_count",
               format("an embedding of %u does not divide into %u heads", dims.embd, dims.heads));
    }
    dims.head_k = model.number_u32(prefix + "attention.key_length", dims.embd / dims.heads);
    dims.head_v = model.number_u32(prefix + "attention.value_length", dims.head_k);
    if (dims.head_k < 1 || dims.head_v < 1 || dims.head_k > kMostHead || dims.head_v > kMostHead ||
        static_cast<uint64_t>(dims.heads) * dims.head_k > kMostWidth) {
        refuse("attention.key_length",
               format("heads of %u and %u elements are not possible", dims.head_k, dims.head_v));
    }
    dims.rot = model.number_u32(prefix + "rope.dimension_count", dims.head_k);
    if (dims.rot < 2 || dims.rot > dims.head_k || dims.rot % 2 != 0) {
        refuse("rope.dimension_count",
               format("rotating %u elements of a head of %u is not possible", dims.rot, dims.head_k));
    }
    dims.ctx_train = required("context_length", UINT32_MAX);
    dims.rope_base = model.number_f32(prefix + "rope.freq_base", 10000.0f);
    dims.eps = model.number_f32(prefix + "attention.layer_norm_rms_epsilon", 1e-5f);
    const std::string scaling = model.text(prefix + "rope.scaling.type", "none");
    const float factor = model.number_f32(prefix + "rope.scaling.factor", 1.0f);
    if (scaling != "none" && scaling != "linear" && scaling != "longrope") {
        refuse("rope.scaling.type", "rope scaling of type " + scaling +
                                        " is not computed by this engine; none, linear and longrope are");
    }
    if (model.number_u32(prefix + "expert_count", 0) > 0) {
        refuse("expert_count", "a mixture of experts is not computed by this engine");
    }
    if (!(factor > 0) || !(dims.rope_base > 0) || !(dims.eps > 0)) {
        refuse(!(factor > 0)           ? "rope.scaling.factor"
               : !(dims.rope_base > 0) ? "rope.freq_base"
                                       : "attention.layer_norm_rms_epsilon",
               "the rope base, the rope scaling factor and the norm's epsilon must be above 0");
    }
    dims.rope_scale = scaling == "linear" ? 1.0f / factor : 1.0f;
    dims.rope_attention = model.number_f32(prefix + "rope.scaling.attn_factor", 1.0f);
    dims.window = spec.window_every > 0 ? model.number_u32(prefix + "attention.sliding_window", 0) : 0;
    dims.window_rope_base = 10000.0f;
    // Gemma 3's largest scales queries by the width of a head in the residual stream, not by its own.
    const bool wide = spec.post_norm && dims.layers == 62;
    dims.query_scale = 1.0f / std::sqrt(static_cast<float>(wide ? dims.embd / dims.heads : dims.head_k));
    dims.ctx_orig = model.number_u32(prefix + "rope.scaling.original_context_length", dims.ctx_train);

    const int embedding = model.tensor_index("token_embd.weight");
    if (embedding < 0) {
        model.refuse_key("", "the tensor token_embd.weight is missing");
    }
    const Tensor &table = model.tensors()[static_cast<size_t>(embedding)];
    if (table.ne[0] != static_cast<int64_t>(dims.embd) || table.ne[1] > INT32_MAX ||
        table.rows() != table.ne[1]) {
        model.refuse_tensor(
            table,
            format("token_embd.weight has the shape [%lld, %lld], not [%u, vocabulary]",
                   static_cast<long long>(table.ne[0]), static_cast<long long>(table.rows()), dims.embd));
    }
    dims.vocab = static_cast<uint32_t>(table.ne[1]);
    const Meta *tokens = model.meta("tokenizer.ggml.tokens");
    if (tokens != nullptr && tokens->count > dims.vocab) {
        model.refuse_key("tokenizer.ggml.tokens",
                         format("the tokenizer has %llu tokens, but token_embd.weight has rows for %u only",
                                static_cast<unsigned long long>(tokens->count), dims.vocab));
    }
    return dims;
}

}  // namespace floatllm

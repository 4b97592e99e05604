// What the engine knows of model architectures: a table, and the dimensions read from a file.
#pragma once

#include <cstdint>
#include <string>

#include "gguf_file.h"

namespace floatllm {

// How an architecture differs from the plain pre-norm transformer block with grouped-query attention
// and a gated feed-forward network.
struct ArchSpec {
    const char *name;       // general.architecture
    int rope_mode;          // GGML_ROPE_TYPE_*
    bool head_norm;         // queries and keys are normalised head by head
    bool fused;             // one matrix for Q, K and V, one for gate and up
    bool post_norm;         // the outputs of attention and feed-forward are normalised before they are added
    bool gelu;              // the gate is GELU, not SiLU
    bool scaled_embedding;  // embeddings are multiplied by the square root of their width
    int window_every;       // all layers but every n-th see a sliding window only; 0: none does
};

// nullptr for an architecture that the engine does not compute.
const ArchSpec *find_arch(const std::string &name);
// "llama, qwen2, ..." for messages.
std::string known_archs();

// Dimensions of a model, all checked against each other. Widths count elements.
struct Dims {
    uint32_t layers;
    uint32_t embd;  // residual stream
    uint32_t heads;
    uint32_t kv_heads;
    uint32_t head_k;  // of one query or key head
    uint32_t head_v;
    uint32_t ff;
    uint32_t vocab;
    uint32_t rot;  // rotated elements of a head
    uint32_t ctx_train;
    uint32_t ctx_orig;  // before rope scaling
    uint32_t window;    // positions that a layer with a sliding window sees; 0: no such layers
    float rope_base;
    float rope_scale;      // 1 / scaling factor
    float rope_attention;  // factor on the rotated values (longrope)
    float window_rope_base;
    float query_scale;
    float eps;

    uint32_t q_rows() const { return heads * head_k; }
    uint32_t k_rows() const { return kv_heads * head_k; }
    uint32_t v_rows() const { return kv_heads * head_v; }
    uint32_t att_rows() const { return heads * head_v; }
    // Whether this layer sees the last `window` positions only.
    bool windowed(const ArchSpec &spec, int layer) const {
        return window > 0 && spec.window_every > 0 && (layer + 1) % spec.window_every != 0;
    }
};

// Throws Error(FLOATLLM_ERROR_MODEL) for missing or impossible values.
Dims read_dims(const GgufFile &model, const ArchSpec &spec);

}  // namespace floatllm

// How a memory budget is shared out, before anything is allocated. Pure.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "gguf_table.h"

namespace floatllm::engine {

// What libllama takes for itself, for a context of some positions and passes of some width: bytes.
struct Demand {
    uint64_t own;      // vocabulary, tables, the graphs' own bookkeeping
    uint64_t context;  // KV cache and states
    uint64_t compute;  // activations
    uint64_t outputs;  // logits of a pass
    uint64_t work;     // that kernels turn activations into other types in

    uint64_t total() const { return own + context + compute + outputs + work; }
};

// Of the weights, what no budget changes: bytes.
struct Weights {
    uint64_t small;    // that always stay
    uint64_t rows;     // that tables of embeddings are read through
    uint64_t largest;  // that must lie whole in a slot
    uint64_t dense;    // that stay or stream, all together
};

struct Shares {
    uint32_t positions;  // of the context
    uint32_t width;      // of a pass
    Demand demand;
    uint64_t slot_bytes;
    unsigned slots;
    uint64_t kept;  // of the dense weights; all of them, or the rest passes through the slots
};

Weights weights_of(const std::vector<Tensor> &tensors);
// Demand::work for passes of such a width: ggml tells it of a graph only when it computes it.
uint64_t work_of(const std::vector<Tensor> &tensors, uint32_t width, unsigned threads);

// Asks what libllama would take for a context of so many positions and passes of such a width.
using Ask = std::function<Demand(uint32_t positions, uint32_t width)>;

// The widest passes that fit, for a context of `positions`; 0: the longest that takes a quarter of the budget
// at most, of those up to `trained`. Throws Error(FLOATLLM_ERROR_ENGINE) with the smallest budget that works.
Shares share_out(uint64_t budget, const Weights &weights, uint32_t positions, uint32_t trained,
                 const Ask &ask);

}  // namespace floatllm::engine

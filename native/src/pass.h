// What goes through the weights together: tokens of one or more sequences. Pure.
#pragma once

#include <cstdint>
#include <vector>

#include "ggml.h"
#include "graph.h"

namespace floatllm {

// Where the logits behind a token go, and the ids of the `top` largest of them.
struct Output {
    float *logits;  // nullptr where only the ids are wanted
    uint32_t *ids;
    uint32_t top;
};

// Tokens to append to a sequence, and room for what is wanted of the logits behind the last `outputs` of
// them.
struct Addition {
    uint32_t sequence;
    const int32_t *tokens;
    size_t count;
    float *logits;  // outputs * vocabulary, or nullptr
    size_t outputs;
    uint32_t top;
    uint32_t *ids;  // outputs * top
};

struct Pass {
    PassShape shape;
    std::vector<int32_t> tokens;
    std::vector<int32_t> positions;  // of each token in its sequence
    std::vector<int64_t> cells;      // of the KV cache that each token writes
    std::vector<int32_t> wanted;     // tokens whose logits are wanted
    std::vector<Output> outputs;     // where these go
};

struct PassLimits {
    size_t width;    // tokens
    size_t outputs;  // logits
    size_t cells;    // of the KV cache, for each sequence
    size_t vocab;
    // Positions and logits are filled up to multiples of these.
    size_t position_grain;
    // Positions of one sequence that attention takes together, at least; 0: all of them.
    size_t attention_block;
    size_t output_grain;
};

// `positions` and `wanted` include the padding, whose values do not matter; the others hold real tokens only.
// Fills as few passes as the limits allow, in order. `lengths` are the sequences' lengths before; each
// sequence appears in at most one addition.
std::vector<Pass> make_passes(const std::vector<Addition> &additions, const std::vector<size_t> &lengths,
                              const PassLimits &limits);

// Each token sees itself and what came before in its sequence, or the last `window` of these. The masks
// of the segments stand one after the other, as Segment::mask says.
void fill_mask(const Pass &pass, size_t window, std::vector<ggml_fp16_t> &mask);

}  // namespace floatllm

// Where everything that a pass computes with lies in one buffer. Pure.
#pragma once

#include <array>
#include <cstdint>

#include "program.h"

namespace floatllm {

inline uint64_t round_up(uint64_t value, uint64_t to) { return (value + to - 1) / to * to; }

struct Region {
    uint64_t offset;
    uint64_t size;
};

// The one buffer that holds activations and inputs of a pass, on the device.
struct Layout {
    std::array<Region, kActs> act;
    Region slice;      // rows of a product that is computed piece by piece
    Region positions;  // I32 [width]
    Region cells;      // I64 [width]: rows of the KV cache to write
    Region wanted;     // I32 [outputs]: positions whose logits are wanted
    Region mask;       // F16 [kv cells, positions] of each sequence of a pass, one after the other
    Region near;       // the same for layers with a sliding window
    Region ones;       // F32 [longest row], mode map
    Region sums;       // F32 [most rows of a part], mode map
    uint64_t bytes;
};

// At least the tensor alignment of every backend.
constexpr uint64_t kLayoutAlign = 256;

// What a pass holds at most.
struct PassSize {
    uint32_t width;
    uint32_t outputs;
    uint32_t cells;
    bool sliced;                 // some product is computed a few rows at a time
    uint64_t attention_scratch;  // bytes behind attention's result
};

Layout lay_out(const Program &program, const PassSize &size);

// Scratch that ggml's CPU kernels take: the other side of a product in the weight's own dot type (at most
// four bytes an element), and the tiles of flash attention, which are 64 positions wide.
uint64_t kernel_scratch(const Program &program, uint32_t width, uint32_t threads);

// Positions of one pass: 512, fewer only for models whose activations would be enormous. A function of
// the model alone.
uint32_t pass_width(const Program &program, uint64_t weight_bytes);

}  // namespace floatllm

// A model's pass as a flat list of operations over named activations, before anything is cut.
//
// Every operation reads and writes activations that live outside the graphs, in one fixed buffer, so a
// chunk may begin and end between any two operations, and a matrix may be computed a few rows at a time.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "arch.h"
#include "gguf_file.h"

namespace floatllm {

// Activations of a pass; each is [rows, positions] in F32.
enum class Act : uint8_t { X, Normed, Scaled, Q, K, V, Att, Out, Gate, Up, Hidden, Logits, Count };
constexpr size_t kActs = static_cast<size_t>(Act::Count);

enum class OpKind : uint8_t {
    Norm,       // out = rms_norm(in) * weight
    MatMul,     // out = weight · in; may be cut by rows
    Bias,       // out += weight
    HeadNorm,   // out = rms_norm of each head of out * weight
    Attention,  // rope on Q and K, K and V into the cache, Att = attention; weight: rope factors or none
    Add,        // X = X + in
    SwiGlu,     // Hidden = silu(Gate) * Up
    GeGlu,      // Hidden = gelu(Gate) * Up
    Gather,     // out = in at the positions whose logits are wanted; what follows sees only these
    Touch,      // the sum over each row of the weight; may be cut by rows (mode map)
    Peek,       // the weight is bound and not computed on: types that no matrix product takes (mode map)
};

struct Op {
    OpKind kind;
    int layer;  // -1 outside the layers
    int half;   // 0 attention, 1 feed-forward
    Act in;
    Act out;
    int weight;         // index of a tensor, -1 for none
    int64_t row_first;  // of the weight's rows that this operation takes
    int64_t rows;       // how many, where they may be cut; 0 where nothing may
    int64_t grain;      // cuts fall on multiples of this many rows, counted from row_first
    bool gathered;      // works on the wanted positions, not on all of the pass
};

struct Program {
    const ArchSpec *arch = nullptr;  // nullptr in mode map
    Dims dims{};
    int embedding = -1;  // tensor read row by row, outside every chunk
    std::vector<Op> ops;
    std::array<uint32_t, kActs> rows{};  // per position; 0: unused
    // Touch: the longest row, and the most rows of one part.
    int64_t touch_width = 0;
    int64_t touch_rows = 0;
};

// Row slices fall on multiples of this, so that no kernel sees a slice differently from the whole
// (DESIGN.md, Exactness).
constexpr int64_t kRowGrain = 64;

// Types that ggml multiplies with F32. Q8_1 and Q8_K exist only as the other side of a product.
bool multiplies(ggml_type type);

// Throws Error(FLOATLLM_ERROR_MODEL) for an architecture that is not computed, and for missing or
// misshapen tensors.
Program forward_program(const GgufFile &model);

// Every tensor once, in the order of the file.
Program map_program(const GgufFile &model);

}  // namespace floatllm

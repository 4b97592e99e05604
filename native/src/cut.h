// Cutting a program into pieces of bounded size: layers, else halves, else operations, else rows.
#pragma once

#include <cstdint>
#include <vector>

#include "plan.h"

namespace floatllm {

// How many ggml tensors an operation's graph takes at most, its weights included.
uint64_t graph_tensors(OpKind kind, uint32_t sequences);
// A chunk is closed before its graph has more.
constexpr uint64_t kMostGraphTensors = 16384;

// Bytes that the smallest possible chunk takes: the largest piece that cannot be cut further.
uint64_t smallest_chunk(const GgufFile &model, const Program &program, const DeviceFacts &device);

// Chunks of at most `cap` bytes each, in the program's order. `cap` must be at least smallest_chunk().
std::vector<Chunk> cut_program(const GgufFile &model, const Program &program, const DeviceFacts &device,
                               uint32_t sequences, uint64_t cap);

}  // namespace floatllm

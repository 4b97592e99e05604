// Cutting a program into pieces of bounded size: layers, else halves, else operations, else rows.
#pragma once

#include <cstdint>
#include <vector>

#include "plan.h"

namespace floatllm {

// How many ggml tensors an operation's graph takes at most, its weights included.
uint64_t graph_tensors(OpKind kind, uint32_t segments);
uint64_t graph_tensors(const Plan &plan, const Chunk &chunk);
// A chunk is closed before its graph has more.
constexpr uint64_t kMostGraphTensors = 16384;

// Whether the weight of an operation is rearranged for the device's kernels: a matter of the model and the
// device alone, so that the same kernels run however the model is cut (DESIGN.md, Exactness).
bool is_repacked(const GgufFile &model, const DeviceFacts &device, const Op &op);

// Bytes before and behind what a reader repacks, in the pages that it begins and ends in.
uint64_t repack_edges(const DeviceFacts &device);

// Bytes that one reader needs to repack a group of rows, with the pages that it begins and ends in; 0 where
// nothing is repacked.
uint64_t smallest_repack(const GgufFile &model, const Program &program, const DeviceFacts &device);

// Bytes that the smallest possible chunk takes: the largest piece that cannot be cut further.
uint64_t smallest_chunk(const GgufFile &model, const Program &program, const DeviceFacts &device);

// Bytes of the largest operation of the layers, whole.
uint64_t largest_operation(const GgufFile &model, const Program &program, const DeviceFacts &device);

// Whether a chunk ends where a half of a layer does.
enum class Halves : uint8_t { Together, Apart };

// Chunks of at most `cap` bytes each, in the program's order. `cap` must be at least smallest_chunk().
std::vector<Chunk> cut_program(const GgufFile &model, const Program &program, const DeviceFacts &device,
                               uint32_t segments, uint64_t cap, Halves halves = Halves::Together);

}  // namespace floatllm

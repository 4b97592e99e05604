// Cuts a program into chunks that fit a memory budget. No tensor data is read and no device is asked.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "budget.h"
#include "floatllm.h"
#include "gguf_file.h"
#include "program.h"

namespace floatllm {

// What the plan must know of a device.
struct DeviceFacts {
    std::string name;
    bool maps_host;         // computes on host memory in place, so chunks are windows of the file
    uint64_t memory_free;   // of a device with memory of its own
    uint64_t alignment;     // of a tensor in a device buffer
    uint64_t tensor_slack;  // most bytes by which the device pads one tensor
    uint64_t granularity;   // of a file mapping
    // A product of a multiple of this many columns gives each the same numbers, however many there are; 0:
    // of no multiple.
    uint32_t column_grain;
};

// How weights come from the file.
enum class IoMode : uint8_t {
    Mmap,    // windows of the file, through the page cache
    Direct,  // large reads past it, into memory of our own
};

struct PlanRequest {
    floatllm_mode mode;
    Budget budget;
    bool explicit_budget;  // --memory: the budget holds for device memory too
    IoMode io;
    bool explicit_io;    // --io; else a model that fits is always mapped
    uint64_t chunk;      // upper bound of a chunk, 0: none; nothing is pinned where it is given
    uint32_t ctx;        // 0: by the budget
    uint32_t width;      // 0: by the model
    uint32_t sequences;  // that have a context of their own
    uint32_t outputs;    // positions of one pass whose logits are wanted, at most
    uint32_t threads;
    bool uniform;  // passes are filled up with padding
};

// An operation, or some rows of one.
struct Step {
    int op;
    int64_t row_begin;
    int64_t row_end;  // equal to row_begin where nothing is cut
};

// Rows of a tensor that a chunk binds.
struct Part {
    int tensor;
    int64_t row_begin;
    int64_t row_end;
    uint32_t file;
    uint64_t offset;  // in the file
    uint64_t size;
};

// A range of a file, rounded to the mapping granularity.
struct Extent {
    uint32_t file;
    uint64_t offset;
    uint64_t size;
};

struct Chunk {
    std::vector<Step> steps;
    std::vector<Part> parts;      // by file and offset, each tensor range once
    std::vector<Extent> extents;  // by file and offset, disjoint
    uint64_t weight_bytes;
    uint64_t mapped_bytes;  // of the extents
    uint64_t device_bytes;  // in a device buffer, with alignment and padding
    bool pinned;            // loaded once and kept; the others pass through the ring
};

// What a chunk takes of the device's memory, or of the host's where the device maps it.
inline uint64_t chunk_cost(const DeviceFacts &device, const Chunk &chunk) {
    return device.maps_host ? chunk.mapped_bytes : chunk.device_bytes;
}

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

struct MemoryShares {
    uint64_t metadata;     // tensor table and graphs' own bookkeeping
    uint64_t kv;           // key-value cache, F16
    uint64_t activations;  // Layout::bytes and the host copies of embeddings
    uint64_t graph;        // scratch of the CPU backend's kernels
    uint64_t staging;      // file windows while a chunk is uploaded; 0 where the device maps host memory
    uint64_t pinned;       // chunks that stay
    uint64_t ring;         // slots that the others pass through
    uint64_t total() const { return metadata + kv + activations + graph + staging + pinned + ring; }
};

struct Plan {
    std::shared_ptr<const GgufFile> model;
    Program program;
    DeviceFacts device;
    floatllm_mode mode;
    Budget budget;
    IoMode io;
    MemoryShares memory;
    Layout layout;
    uint32_t ctx;
    uint32_t cells;  // of the KV cache for one sequence: ctx rounded up to kKvGrain
    uint32_t width;
    uint32_t sequences;
    uint32_t outputs;
    // Passes are filled up with padding to multiples of these; 1: not at all.
    uint32_t position_grain;
    uint32_t output_grain;
    uint32_t threads;
    uint64_t graph_tensors;  // most ggml tensors of one chunk's graph
    uint32_t slots;          // of the ring
    std::vector<Chunk> chunks;
};

// Attention looks at a multiple of this many cells, whatever the memory (DESIGN.md, Exactness).
constexpr uint32_t kKvGrain = 256;
// File bytes mapped at a time while they are uploaded to a device.
constexpr uint64_t kStagingWindow = uint64_t{16} << 20;

// Uniform passes on a device whose numbers depend on the width: all are as wide, and their logits are as
// many, for up to so many sequences.
constexpr uint32_t kUniformWidth = 128;
constexpr uint32_t kUniformOutputs = 64;

// Positions of one pass: 512, fewer only for models whose activations would be enormous. A function of
// the model alone.
uint32_t pass_width(const Program &program, uint64_t weight_bytes);

// Throws Error(FLOATLLM_ERROR_ENGINE) naming the smallest budget that works, Error(FLOATLLM_ERROR_USAGE)
// for requests that no budget can meet, Error(FLOATLLM_ERROR_MODEL) as the programs do.
Plan make_plan(std::shared_ptr<const GgufFile> model, const DeviceFacts &device, const PlanRequest &request);

// docs/plan.md describes it.
std::string plan_json(const Plan &plan);

}  // namespace floatllm

// Cuts a program into chunks that fit a memory budget. No tensor data is read and no device is asked.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "budget.h"
#include "floatllm.h"
#include "gguf_file.h"
#include "layout.h"
#include "program.h"

namespace floatllm {

// What the plan must know of a device.
struct DeviceFacts {
    std::string name;
    bool maps_host;         // computes on host memory in place, so chunks are windows of the file
    uint64_t memory_free;   // of a device with memory of its own
    uint64_t alignment;     // of a tensor in a device buffer
    uint64_t tensor_slack;  // most bytes by which the device pads one tensor
    uint64_t max_buffer;    // that it gives in one piece
    uint64_t granularity;   // of a file mapping
    // A product of a multiple of this many columns gives each the same numbers, however many there are; 0:
    // of no multiple.
    uint32_t column_grain;
    bool cpu;
    bool overlaps;    // a second stream uploads while the first computes
    bool integrated;  // its memory is the host's
    // By ggml type: whether matrices of it, of a multiple of kRowGrain rows, are rearranged for faster
    // kernels.
    std::vector<bool> repacks;
};

// How weights come from the file.
enum class IoMode : uint8_t {
    Mmap,    // windows of the file, through the page cache
    Direct,  // large reads past it, into memory of our own
};

struct PlanRequest {
    floatllm_mode mode;
    Budget budget;
    bool explicit_budget;  // --memory; without --device-memory it bounds the device's memory with the host's
    IoMode io;
    bool explicit_io;    // --io; else a model that fits is always mapped
    uint64_t chunk;      // upper bound of a chunk, 0: none; nothing is pinned where it is given
    uint32_t ctx;        // 0: by the budget
    uint32_t width;      // 0: by the model
    uint32_t sequences;  // that have a context of their own
    uint32_t outputs;    // positions of one pass whose logits are wanted, at most
    uint32_t threads;
    bool uniform;            // passes are filled up with padding
    ggml_type kv;            // of the cache
    uint64_t device_memory;  // --device-memory: of a device with memory of its own; 0: by what is free there
    double cpu_share;        // --cpu-share: of streamed weights that the CPU computes; below 0: as is fastest
    // Operations of the program that are planned for: those of one device of several, each with bounds of its
    // own.
    size_t first_op = 0;
    size_t end_op = SIZE_MAX;
    uint64_t others = 0;    // host memory that other devices take, beside the budget
    bool several;           // devices
    bool attention_blocks;  // positions of a long prompt go in blocks, as on the CPU
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
    bool repacked;  // rearranged when it is read

    uint64_t row_bytes() const { return size / static_cast<uint64_t>(row_end - row_begin); }
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
    std::vector<Extent> plain;    // of the parts that are not repacked alone
    uint64_t weight_bytes;
    uint64_t mapped_bytes;    // of the extents
    uint64_t repacked_bytes;  // of the repacked parts, aligned
    uint64_t kept_bytes;      // of these and of the plain extents
    uint64_t device_bytes;    // in a device buffer, with alignment and padding
    bool pinned;              // loaded once and kept; the others pass through the ring
    bool hosted;              // kept in the host's memory, on the way to a device with memory of its own
    bool shared;              // in narrow passes the CPU computes it there
    uint32_t unit;            // chunks of one half of a layer, where halves are apart, are of one unit
};

// The chunk's file bytes in memory of the host, aligned for reading past the page cache.
inline uint64_t staging_bytes(uint64_t mapped_bytes) { return mapped_bytes + os::kDirectAlignment; }

// What a chunk takes of the memory that it is computed in; on its way to a device with memory of its own it
// takes no more of the host's.
inline uint64_t chunk_cost(const DeviceFacts &device, const Chunk &chunk) {
    return device.maps_host ? std::max(chunk.mapped_bytes, chunk.kept_bytes)
                            : std::max(chunk.device_bytes, staging_bytes(chunk.mapped_bytes));
}

struct Plan;
// Of one slot of the ring: any chunk fits, for what stays now may have to pass through it later.
uint64_t ring_slot_bytes(const Plan &plan);
// Of the host's memory that one chunk passes through from the disk to a device.
uint64_t staging_slot_bytes(const Plan &plan);

// Of repacked parts in memory: ggml's own for tensors.
constexpr uint64_t kRepackAlign = 64;
// Threads that read: the disk's queue depth.
constexpr unsigned kReaders = 6;

struct MemoryShares {
    uint64_t metadata;     // tensor table and graphs' own bookkeeping
    uint64_t kv;           // key-value cache
    uint64_t activations;  // Layout::bytes and the host copies of embeddings
    uint64_t graph;        // scratch of the CPU backend's kernels
    uint64_t staging;      // file bytes on their way to a device with memory of its own, or to be repacked
    uint64_t pinned;       // chunks that stay
    uint64_t host;         // chunks that stay in the host's memory and are uploaded in each pass
    uint64_t ring;         // slots that the others pass through, and one to repack what is computed in turn
    MemoryShares &operator+=(const MemoryShares &other) {
        metadata += other.metadata;
        kv += other.kv;
        activations += other.activations;
        graph += other.graph;
        staging += other.staging;
        pinned += other.pinned;
        host += other.host;
        ring += other.ring;
        return *this;
    }
    uint64_t total() const { return metadata + kv + activations + graph + staging + pinned + host + ring; }
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
    ggml_type kv_type;
    uint32_t width;
    uint32_t sequences;
    uint32_t outputs;
    uint32_t attention_block;  // PassLimits
    uint32_t segments;         // of a pass, at most
    // Passes are filled up with padding to multiples of these; 1: not at all.
    uint32_t position_grain;
    uint32_t output_grain;
    uint32_t threads;
    uint64_t graph_tensors;   // most ggml tensors of one chunk's graph
    uint32_t slots;           // of the ring
    uint32_t staging_slots;   // that chunks pass through from the disk to a device with memory of its own
    std::string device_note;  // why no GPU computes, where one might be expected
    uint64_t device_limit;    // of the memory that is computed in
    uint64_t host_bytes;      // that are taken of the host's
    uint32_t first_layer;     // of those whose KV cache this device holds
    uint32_t layers;
    double cpu_share;       // of streamed weights, in narrow passes
    bool trial;             // made by plan_over()
    uint64_t repack_block;  // bytes that one thread reads to repack and keep; 0: nothing is repacked
    std::vector<Chunk> chunks;
};

// One for each device, in the order of the layers.
using Plans = std::vector<Plan>;

// Attention looks at a multiple of this many cells, whatever the memory (DESIGN.md, Exactness).
constexpr uint32_t kKvGrain = 256;
// Cells that attention's kernels on the CPU take at a time where there are enough positions.
constexpr uint32_t kTileCells = 64;
// On the CPU attention takes the positions of a long prompt in blocks: each then passes over the cells that
// it sees alone.
constexpr uint32_t kAttentionBlock = 128;
// File bytes mapped at a time while they are uploaded to a device.
constexpr uint64_t kStagingWindow = uint64_t{16} << 20;

// Passes of at most so many positions are narrow: the CPU computes them as fast as it reads the weights.
constexpr uint32_t kShareWidth = 8;

// Uniform passes on a device whose numbers depend on the width: all are as wide, and their logits are as
// many, for up to so many sequences.
constexpr uint32_t kUniformWidth = 128;
constexpr uint32_t kUniformOutputs = 64;

// Bytes that K or V of one layer take in the cache, for all sequences, with what the device puts behind.
uint64_t kv_layer_bytes(const Plan &plan, bool value);

// Throws Error(FLOATLLM_ERROR_ENGINE) naming the smallest budget that works, Error(FLOATLLM_ERROR_USAGE)
// for requests that no budget can meet, Error(FLOATLLM_ERROR_MODEL) as the programs do.
Plan make_plan(std::shared_ptr<const GgufFile> model, const DeviceFacts &device, const PlanRequest &request);

// A plan for each device, in the order given: layers are divided in proportion to the memory that the devices
// have for them. Throws as make_plan().
Plans make_plans(std::shared_ptr<const GgufFile> model, std::vector<DeviceFacts> devices,
                 const PlanRequest &request);

// A plan for passes of one position over some chunks of the model alone, as measuring needs it. Its numbers
// mean nothing.
Plan plan_over(const Plan &plan, std::vector<Chunk> chunks, uint32_t slots);

// The plan of what the CPU computes of another device's: its layout is that of narrow passes.
Plan plan_of_share(const Plan &plan, const DeviceFacts &cpu);

// Chooses the chunks that the CPU computes in narrow passes: feed-forward halves of layers, which see nothing
// of the KV cache, as near to this share of all streamed weights as they come.
void share_with_cpu(Plan &plan, double share);

// docs/plan.md describes it.
std::string plan_json(const Plans &plans);

}  // namespace floatllm

// Memory for one chunk at a time, and the chunk's bytes in it.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "device.h"
#include "plan.h"
#include "reader.h"

namespace floatllm {

// Where the weights of the chunk that is computed now lie repacked, and the threads that bring them there.
// They work while nothing is computed: beside threads that wait for each other they would cost more than they
// do.
struct Repacker {
    ggml_backend_buffer_ptr buffer;
    std::unique_ptr<ReadPool> workers;
};

// A part as ggml sees it, without memory: whole tensors keep their four dimensions, row slices are flattened
// to two.
ggml_tensor *part_tensor(ggml_context *context, const Tensor &tensor, const Part &part);
// Gives a tensor its memory. Throws Error(FLOATLLM_ERROR_ENGINE).
void place(ggml_backend_buffer_t buffer, ggml_tensor *tensor, void *address);

class Slot {
  public:
    // Of the ring, for chunks of at most `size` bytes. `own` memory is read into; without it chunks are
    // windows of the file. What is repacked goes through `repacker`.
    Slot(const Plan &plan, const Device &device, uint64_t size, bool own, Repacker *repacker);
    // For `chunk` alone, which stays: repacked parts are kept as such.
    Slot(const Plan &plan, const Device &device, const Chunk &chunk, bool own);
    // Over memory of a driver, of at least staging_bytes(). bind() needs a `cpu`.
    Slot(const Plan &plan, const Device *cpu, ggml_backend_buffer_ptr memory);
    // Readers still write into it until then.
    ~Slot() { release(); }
    Slot(const Slot &) = delete;
    Slot &operator=(const Slot &) = delete;

    // Begins to bring the chunk in; bind() waits for it. `inspect`: its weights are looked at for damage.
    // `before` is called by each reader, and may wait until the memory is free.
    void load(const Chunk &chunk, ReadPool &pool, bool inspect, std::function<void()> before = nullptr);
    // Whether wait() will not wait.
    bool ready() const { return reading_ == nullptr || reading_->done(); }
    // Until the chunk is there. Throws Error(FLOATLLM_ERROR_ENGINE) when reading failed, and
    // Error(FLOATLLM_ERROR_MODEL) for damage.
    void wait();
    // When the bytes were read, behind wait().
    ReadPool::Span span() const { return reading_->span(); }
    // Of a part's first byte, as it is in the file.
    char *address(const Part &part) const;
    // One ggml tensor per part, made in `context`. Throws what wait() does.
    std::vector<ggml_tensor *> bind(ggml_context *context);
    // When the bytes were read that bind() brought; nothing where it found them there from before.
    const std::optional<ReadPool::Span> &came() const { return came_; }
    // Throws Error(FLOATLLM_ERROR_ENGINE) when bytes were lost since bind().
    void check() const;
    // Waits for what is still being read and gives mapped windows back.
    void release();
    bool holds(const Chunk &chunk) const { return chunk_ == &chunk; }
    // Whether the chunk could not be read.
    bool failed() const { return failed_ || (reading_ != nullptr && reading_->failed()); }
    // Bytes that closing the slot gives back.
    uint64_t own_bytes() const { return own_bytes_; }

  private:
    void take_own(char *memory, uint64_t size);
    const std::vector<Extent> &extents() const { return keeps_ ? chunk_->plain : chunk_->extents; }
    // Bytes of an extent: a window of the file, or memory of the slot's own.
    char *base_of(size_t extent) const;
    size_t extent_of(const Part &part) const;
    void read_extent(size_t index, uint64_t begin, size_t count) const;

    void inspect(const Extent &extent, const char *base, uint64_t begin, uint64_t end) const;
    void inspect_seams(const Extent &extent, const char *base) const;
    void inspect_rows(const Part &part, uint64_t begin, const char *bytes, uint64_t size) const;

    ggml_backend_buffer_t repacked() const { return keeps_ ? kept_.get() : repacker_->buffer.get(); }
    char *repacked_base() const;
    using RepackRows = void (Slot::*)(const Part &part, int64_t row_begin, int64_t rows, char *to) const;
    // One task for every `block` bytes of rows of the repacked parts.
    std::vector<ReadPool::Task> repacking(RepackRows repack, uint64_t block) const;
    void read_and_repack(const Part &part, int64_t row_begin, int64_t rows, char *to) const;
    void repack_in_reach(const Part &part, int64_t row_begin, int64_t rows, char *to) const;
    void repack_rows(const Part &part, int64_t rows, const char *from, char *to) const;

    const Plan &plan_;
    const Device *device_;
    const Chunk *chunk_ = nullptr;
    bool keeps_ = false;
    os::Pages pages_;      // own memory, where nothing is repacked to stay,
    char *own_ = nullptr;  // which is this, or lies in `kept_` where something is, or is a driver's;
    uint64_t own_bytes_ = 0;
    std::vector<os::Mapping> windows_;  // else windows of the file
    ggml_backend_buffer_ptr kept_;
    bool foreign_ = false;
    Repacker *repacker_ = nullptr;
    std::vector<ggml_backend_buffer_ptr> wrapped_;
    bool bound_ = false;  // since load()
    bool failed_ = false;
    bool inspected_ = true;
    std::shared_ptr<ReadPool::Batch> reading_;
    std::optional<ReadPool::Span> came_;
};

}  // namespace floatllm

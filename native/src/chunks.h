// The weights of chunks in reach of the device: some loaded once and kept, the others passing through a
// ring of slots that is filled ahead of the computation.
#pragma once

#include <memory>
#include <vector>

#include "device.h"
#include "plan.h"
#include "reader.h"

namespace floatllm {

// Memory for one chunk at a time, and the chunk's bytes in it.
class Slot {
  public:
    // `own` memory is read into; without it chunks are windows of the file.
    Slot(const Plan &plan, const Device &device, uint64_t size, bool own);

    // Begins to bring the chunk in; bind() waits for it.
    void load(const Chunk &chunk, ReadPool &pool);
    // One ggml tensor per part, made in `context`. Throws Error(FLOATLLM_ERROR_ENGINE) when reading failed.
    std::vector<ggml_tensor *> bind(ggml_context *context);
    // Throws Error(FLOATLLM_ERROR_ENGINE) when bytes were lost since bind().
    void check() const;
    // Waits for what is still being read and gives mapped windows back.
    void release();
    // Whether the chunk could not be read.
    bool failed() const { return failed_; }

  private:
    // Bytes of an extent: a window of the file, or memory of the slot's own.
    char *base_of(size_t extent) const;
    void upload(const std::vector<ggml_tensor *> &tensors);

    const Plan &plan_;
    const Device &device_;
    const Chunk *chunk_ = nullptr;
    os::Pages pages_;                   // own memory
    std::vector<os::Mapping> windows_;  // or windows of the file
    std::vector<ggml_backend_buffer_ptr> wrapped_;
    ggml_backend_buffer_ptr device_memory_;  // of devices that do not compute on host memory
    bool uploaded_ = false;
    bool failed_ = false;
    std::shared_ptr<ReadPool::Batch> reading_;
};

// How many threads a ChunkStore starts: the disk's queue depth.
constexpr unsigned kReaders = 6;

class ChunkStore {
  public:
    // Loads the pinned chunks and begins to fill the ring.
    ChunkStore(const Plan &plan, const Device &device);
    ~ChunkStore();

    // The chunk's tensors. Chunks are asked for in the order of the plan, over and over.
    std::vector<ggml_tensor *> acquire(size_t index, ggml_context *context);
    // The chunk was computed; its slot, if it has no slot for itself, is filled with what comes next.
    void release(size_t index);
    // Forgets what was read ahead, after a pass that did not reach its end, and reads again what could not
    // be read.
    void restart();

  private:
    void fill(size_t slot);

    const Plan &plan_;
    std::vector<std::unique_ptr<Slot>> pinned_;  // by chunk; nullptr for streamed ones
    std::vector<std::unique_ptr<Slot>> ring_;
    std::vector<size_t> streamed_;    // indices of chunks, in order
    size_t loaded_ = 0;               // fills since restart(); the next goes to loaded_ % streamed_.size()
    size_t taken_ = 0;                // releases since restart()
    std::unique_ptr<ReadPool> pool_;  // last: its threads end before the slots do
};

}  // namespace floatllm

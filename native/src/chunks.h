// The weights of chunks in memory that the device computes on in place: some loaded once and kept, the others
// passing through a ring of slots that is filled ahead of the computation.
#pragma once

#include <memory>
#include <vector>

#include "slot.h"
#include "stopwatch.h"
#include "weights.h"

namespace floatllm {

class ChunkStore : public WeightStore {
  public:
    // Loads the pinned chunks and begins to fill the ring.
    ChunkStore(const Plan &plan, const Device &device, bool inspect);
    ~ChunkStore() override;

    std::vector<ggml_tensor *> acquire(size_t index, ggml_context *context) override;
    const std::optional<ReadPool::Span> &came(size_t index) const override { return holder(index).came(); }
    void release(size_t index) override;
    void restart() override;
    // Lets the ring carry chunks that were kept until others have the room they need, and keeps them again
    // when there is plenty. No number depends on it.
    void heed_memory() override;

  private:
    // Gives back or takes so many bytes of kept chunks; returns how many chunks.
    size_t give_back(uint64_t bytes);
    size_t take_again(uint64_t bytes);
    bool keeps(size_t index) const { return pinned_[index] != nullptr; }
    Slot &holder(size_t index) const;
    void keep(size_t index);
    void list_streamed();
    void fill(size_t slot);

    const Plan &plan_;
    const Device &device_;
    std::vector<std::unique_ptr<Slot>> pinned_;  // by chunk; nullptr for streamed ones
    Repacker repacker_;                          // of the ring
    std::vector<std::unique_ptr<Slot>> ring_;
    std::vector<bool> sound_;         // by chunk: it was bound once, so its weights are numbers
    std::vector<size_t> streamed_;    // indices of chunks, in order
    Stopwatch heeded_;                // since the machine's memory was looked at
    size_t loaded_ = 0;               // fills since restart(); the next goes to loaded_ % streamed_.size()
    size_t taken_ = 0;                // releases since restart()
    std::unique_ptr<ReadPool> pool_;  // last: its threads end before the slots do
};

}  // namespace floatllm

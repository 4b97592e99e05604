// Where a session finds the weights of its chunks.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "device.h"
#include "plan.h"
#include "reader.h"

namespace floatllm {

class WeightStore {
  public:
    virtual ~WeightStore() = default;

    // A pass begins. `narrow`: the host computes the chunks that it shares.
    virtual void begin(bool narrow) { (void)narrow; }
    // The chunk's tensors. Chunks are asked for in the order of the plan, over and over.
    virtual std::vector<ggml_tensor *> acquire(size_t index, ggml_context *context) = 0;
    // When the bytes of the chunk acquired last were read, if they were for this time.
    virtual const std::optional<ReadPool::Span> &came(size_t index) const = 0;
    // The chunk's graph was started; its place, if it has none for itself, is filled with what comes next.
    virtual void release(size_t index) = 0;
    // Forgets what was read ahead, after a pass that did not reach its end, and reads again what could not
    // be read.
    virtual void restart() = 0;
    // Between passes: others may have taken what was free when the plan was made.
    virtual void heed_memory() {}
};

// `cpu` computes what the plan's device shares with the host; nullptr where it shares nothing. `inspect`:
// weights are looked at for damage when they are first read.
std::unique_ptr<WeightStore> open_weights(const Plan &plan, const Device &device, const Device *cpu,
                                          bool inspect = true);

}  // namespace floatllm

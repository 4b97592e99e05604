// A device at work on its part of a model: its memory, its weights and its graphs.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "device.h"
#include "graph.h"
#include "pass.h"
#include "plan.h"
#include "weights.h"

namespace floatllm {

// Told of everything that happens; throws to stop.
using Tell = std::function<void(const floatllm_event &)>;

// What the CPU computes of a device's chunks in narrow passes.
class HostShare {
  public:
    HostShare(const Plan &plan, const Device &device);
    const Device &cpu() const { return cpu_; }
    void heed_cpus() { cpu_.heed_cpus(); }
    GraphBuilder &builder() { return builder_; }
    // Of `residual`, a tensor of the device: before the first chunk of a half, and behind the last.
    void take(const Device &device, const ggml_tensor *residual);
    void give(const Device &device, ggml_tensor *residual);

  private:
    char *residual() const;

    Plan plan_;
    Device cpu_;
    ggml_backend_buffer_ptr memory_;  // of the device's driver
    ggml_backend_buffer_ptr activations_;
    GraphBuilder builder_;
};

class Lane {
  public:
    // Takes all memory that the plan granted. `first_chunk` and `chunks` number the plan's among all of a
    // model's.
    Lane(const Plan &plan, size_t first_chunk, size_t chunks, std::chrono::steady_clock::time_point opened);

    // Between passes.
    void heed() {
        device_.heed_cpus();
        if (share_ != nullptr) {
            share_->heed_cpus();
        }
        weights_->heed_memory();
    }
    // After a pass that did not reach its end.
    void restart();

    // Inputs of a pass, and with the first lane the embeddings. They must stay as they are until finish().
    void begin(const Pass &pass, const float *embeddings);
    // The residual stream of so many positions, from lane to lane.
    void take_residual(float *to, int64_t positions);
    void give_residual(const float *from, int64_t positions);
    void run(const PassShape &shape, const Tell &tell);
    void finish() const { device_.wait(); }
    // Logits of output `index` of `outputs`, in the host's memory; valid until the next call.
    const float *logits(size_t index, int64_t outputs, float *to);

    // Mode map: adds to `sums`, by tensor. `damaged` throws where a sum is no number.
    void map(double *sums, const Tell &tell, const std::function<void(int)> &damaged);

    // An event of a chunk of this lane, counted among all.
    floatllm_event event_of(floatllm_event_kind kind, size_t index) const;
    const Plan &plan() const { return plan_; }

  private:
    // The residual stream of so many positions, in the device's memory.
    ggml_tensor *residual(ggml_context *context, int64_t positions) const;
    void run_chunk(size_t index, const PassShape &shape, const Tell &tell);
    void run_shared(size_t index, const PassShape &shape, const Tell &tell);
    void touch_chunk(size_t index, double *sums, const Tell &tell, const std::function<void(int)> &damaged);
    void announce(size_t index, const std::vector<ggml_tensor *> &weights, const Tell &tell);
    // Binds the chunk's weights and tells of it; `waited` is how many seconds from `began` on their bytes
    // took.
    std::vector<ggml_tensor *> bind(size_t index, std::chrono::steady_clock::time_point began, double &waited,
                                    GraphBuilder &builder, const Tell &tell);
    void release(size_t index, std::chrono::steady_clock::time_point began, double waited, const Tell &tell);
    double since_opened(std::chrono::steady_clock::time_point when) const;

    const Plan &plan_;
    const size_t first_chunk_;
    const size_t chunks_;
    const std::chrono::steady_clock::time_point opened_;
    Device device_;
    ggml_backend_buffer_ptr activations_;
    ggml_backend_buffer_ptr kv_;
    std::unique_ptr<HostShare> share_;
    std::unique_ptr<WeightStore> weights_;
    GraphBuilder builder_;
    bool narrow_ = false;
    std::vector<ggml_fp16_t> mask_;
    std::vector<ggml_fp16_t> near_;
    ggml_context_ptr inputs_;
    ggml_backend_buffer_ptr logits_;  // of one position, where the device keeps them to itself
    // Chunks whose weights stay where they are stay bound, and their graphs are reused while the shape is the
    // same.
    struct Kept {
        std::unique_ptr<GraphBuilder> builder;
        std::vector<ggml_tensor *> weights;
        ggml_cgraph *graph = nullptr;
        PassShape shape{};
        bool again = false;  // computed before
    };
    bool keeps(size_t index) const;
    void forget_graphs();
    ggml_cgraph *kept_graph(size_t index, const PassShape &shape, const Tell &tell,
                            std::chrono::steady_clock::time_point began, double &waited);
    std::vector<Kept> kept_;
    std::unique_ptr<Repeated> repeated_;  // of a model in one chunk
};

}  // namespace floatllm

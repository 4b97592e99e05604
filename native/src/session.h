// A plan at work: takes its memory once, then runs passes chunk by chunk.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <vector>

#include "chunks.h"
#include "device.h"
#include "graph.h"
#include "pass.h"
#include "plan.h"

namespace floatllm {

// Returns false to stop the pass.
using EventFn = std::function<bool(const floatllm_event &)>;

class Session {
  public:
    // Allocates all that the plan granted. Throws Error(FLOATLLM_ERROR_ENGINE).
    explicit Session(std::shared_ptr<const Plan> plan);

    void on_event(EventFn on_event) { on_event_ = std::move(on_event); }

    // Appends tokens to sequences, as many as fit in one pass together. After a failure all sequences are
    // as they were before.
    void append(const std::vector<Addition> &additions);
    void truncate(uint32_t sequence, size_t length);
    size_t length(uint32_t sequence) const;
    const Plan &plan() const { return *plan_; }

    // Mode map: `sums` has one entry per tensor of the model.
    void map(double *sums);

  private:
    void require_mode(floatllm_mode mode) const;
    void check(const Addition &addition) const;
    void run(const Pass &pass);
    void set_inputs(const Pass &pass);
    void hand_out(const Pass &pass);
    [[noreturn]] void refuse_numbers(const std::vector<int> &tensors, const std::string &what);
    void embed(const std::vector<int32_t> &tokens);
    void run_chunk(size_t index, const PassShape &shape);
    void touch_chunk(size_t index, double *sums);
    void announce(size_t index, const std::vector<ggml_tensor *> &weights);
    // Binds the chunk's weights and tells of it; `waited` is how many seconds from `began` on their bytes
    // took.
    std::vector<ggml_tensor *> bind(size_t index, std::chrono::steady_clock::time_point began,
                                    double &waited);
    void finish(size_t index, std::chrono::steady_clock::time_point began, double waited);
    // Seconds since the session was opened.
    double since_opened(std::chrono::steady_clock::time_point when) const;
    void emit(const floatllm_event &event);

    // First: reading begins with the members below.
    const std::chrono::steady_clock::time_point opened_ = std::chrono::steady_clock::now();
    // Destroyed last, when all memory was freed.
    struct Trim {
        ~Trim() { os::trim(); }
    } trim_;
    std::shared_ptr<const Plan> plan_;
    Device device_;
    ggml_backend_buffer_ptr activations_;
    ggml_backend_buffer_ptr kv_;
    ChunkStore chunks_;
    GraphBuilder builder_;
    EventFn on_event_;
    std::vector<size_t> lengths_;
    std::vector<float> embeddings_;
    std::vector<ggml_fp16_t> mask_;
    std::vector<char> row_;
    std::vector<float> logits_;  // of one position, where the device keeps them to itself
    // A model in one chunk stays bound, and its graph is reused while the shape is the same.
    std::vector<ggml_tensor *> bound_;
    ggml_cgraph *kept_graph_ = nullptr;
    PassShape kept_shape_{};
};

}  // namespace floatllm

// A plan at work: takes its memory once, then runs passes chunk by chunk, through one device after the other.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <vector>

#include "lane.h"
#include "pass.h"
#include "plan.h"

namespace floatllm {

// Returns false to stop the pass.
using EventFn = std::function<bool(const floatllm_event &)>;

class Session {
  public:
    // Allocates all that the plan granted. Throws Error(FLOATLLM_ERROR_ENGINE).
    explicit Session(std::shared_ptr<const Plans> plans);

    void on_event(EventFn on_event) { on_event_ = std::move(on_event); }

    // Appends tokens to sequences, as many as fit in one pass together. After a failure all sequences are
    // as they were before.
    void append(const std::vector<Addition> &additions);
    void truncate(uint32_t sequence, size_t length);
    size_t length(uint32_t sequence) const;
    // Of the first device; what concerns no device is the same in all.
    const Plan &plan() const { return plans_->front(); }

    // Mode map: `sums` has one entry per tensor of the model.
    void map(double *sums);

  private:
    void require_mode(floatllm_mode mode) const;
    void check(const Addition &addition) const;
    void run(const Pass &pass);
    void hand_out(const Pass &pass);
    [[noreturn]] void refuse_numbers(const std::vector<int> &tensors, const std::string &what);
    void embed(const std::vector<int32_t> &tokens, int64_t positions);
    void restart();
    void emit(const floatllm_event &event);
    Tell tell();

    // First: reading begins with the members below.
    const std::chrono::steady_clock::time_point opened_ = std::chrono::steady_clock::now();
    // Destroyed last, when all memory was freed.
    struct Trim {
        ~Trim() { os::trim(); }
    } trim_;
    std::shared_ptr<const Plans> plans_;
    std::vector<std::unique_ptr<Lane>> lanes_;
    EventFn on_event_;
    std::vector<size_t> lengths_;
    std::vector<float> embeddings_;  // then the residual stream, from device to device
    std::vector<char> row_;
};

}  // namespace floatllm

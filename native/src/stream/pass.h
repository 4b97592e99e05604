// A graph computed segment by segment.
#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "ggml-backend.h"
#include "stream/device.h"

namespace floatllm::stream {

// A tensor that stands for a weight, or for a view of one.
struct Use {
    ggml_tensor *tensor;
    Weight *weight;
    uint64_t offset;  // of the view
};

struct Planned {
    Segment segment;
    std::vector<Use> uses;
};

// How a graph is cut: the same as long as the graph is.
struct Cutting {
    uint64_t uid;
    int nodes;
    const ggml_tensor *first;
    uint64_t branches;
    std::vector<Planned> segments;
    std::shared_ptr<const Cycle> cycle;
};

// Computes graphs for one context.
class Pass {
  public:
    Pass(Device &device, ggml_backend_t base) : device_(device), base_(base) {}

    // Throws Error. The graph's tensors are as before, whatever happens.
    ggml_status compute(ggml_cgraph *graph);

  private:
    const Cutting &cutting_of(ggml_cgraph *graph);
    Node facts_of(ggml_cgraph *graph, int index);
    Weight *streamed(const ggml_tensor *tensor);
    void bring_sound(const Planned &planned, const Landing *slot);
    ggml_status run(ggml_cgraph *graph, const Segment &segment);
    ggml_status pick_rows(ggml_cgraph *graph, const Planned &planned);
    ggml_status split(ggml_cgraph *graph, const Segment &segment, char *rows);
    ggml_status compute_node(ggml_cgraph *graph, ggml_tensor *node);

    Device &device_;
    ggml_backend_t base_;
    std::deque<Cutting> known_;
    uint64_t known_for_ = 0;  // Device::kept_changed_
    os::Pages rows_;
    std::vector<int32_t> picked_;
};

}  // namespace floatllm::stream

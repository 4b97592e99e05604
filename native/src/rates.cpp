#include "rates.h"

#include <algorithm>
#include <functional>

#include "device.h"
#include "slot.h"
#include "stopwatch.h"

namespace floatllm {

namespace {

constexpr uint64_t kLinkSample = uint64_t{64} << 20;
// More than the caches of large CPUs hold.
constexpr uint64_t kCpuSample = uint64_t{1} << 30;
constexpr int64_t kWarmRows = 256;
// What the CPU waits for the device before each half of a layer, and lets it wait behind (measured).
constexpr double kBetweenHalves = 2e-4;

// Uploads of a sample to the plan's device.
class Link {
  public:
    explicit Link(const Plan &plan)
        : device_(plan.device.name, plan.threads, 0),
          size_(std::min(kLinkSample, std::max<uint64_t>(ring_slot_bytes(plan), 1))),
          there_(device_.allocate(size_, "a measurement of its link")),
          here_(device_.pinned(size_)),
          context_(ggml_init({ggml_tensor_overhead(), nullptr, true})),
          bytes_(ggml_new_tensor_1d(context_.get(), GGML_TYPE_I8, static_cast<int64_t>(size_))) {
        place(there_.get(), bytes_, ggml_backend_buffer_get_base(there_.get()));
        start();
        device_.wait();
    }

    ~Link() { device_.wait(); }
    Link(const Link &) = delete;
    Link &operator=(const Link &) = delete;

    void start() {
        device_.set(bytes_, ggml_backend_buffer_get_base(here_.get()), static_cast<size_t>(size_));
    }
    // Bytes per second, the best of three when what was begun is done.
    double rate() {
        device_.wait();
        double best = 0;
        for (int i = 0; i < 3; ++i) {
            const Stopwatch watch;
            start();
            device_.wait();
            best = std::max(best, static_cast<double>(size_) / std::max(watch.seconds(), 1e-9));
        }
        return best;
    }
    uint64_t size() const { return size_; }

  private:
    Device device_;
    uint64_t size_;
    ggml_backend_buffer_ptr there_;
    ggml_backend_buffer_ptr here_;
    ggml_context_ptr context_;
    ggml_tensor *bytes_;
};

// Bytes of a matrix that the CPU multiplies per second, behind `begin`: one of the chunk's, made longer.
double cpu_rate_beside(const Plan &plan, const Chunk &chunk, const std::function<void(uint64_t)> &begin) {
    const auto largest = std::max_element(chunk.parts.begin(), chunk.parts.end(),
                                          [](const Part &a, const Part &b) { return a.size < b.size; });
    const Tensor &tensor = plan.model->tensors()[static_cast<size_t>(largest->tensor)];
    const uint64_t size =
        std::max(std::min(kCpuSample, plan.memory.host / 2), 2 * uint64_t{kWarmRows} * tensor.row_bytes());
    const int64_t rows = static_cast<int64_t>(size / tensor.row_bytes());
    const Device cpu(ggml_backend_dev_name(cpu_device()), plan.threads, 50);
    const ggml_backend_buffer_ptr weights = cpu.allocate(size, "a measurement of the CPU");
    const uint64_t in = sizeof(float) * static_cast<uint64_t>(tensor.ne[0]);
    const ggml_backend_buffer_ptr activations =
        cpu.allocate(round_up(in, kLayoutAlign) + sizeof(float) * static_cast<uint64_t>(rows), "activations");
    const ggml_context_ptr context(
        ggml_init({ggml_tensor_overhead() * 8 + 2 * ggml_graph_overhead_custom(8, false), nullptr, true}));
    ggml_tensor *matrix = ggml_new_tensor_2d(context.get(), tensor.type, tensor.ne[0], rows);
    ggml_tensor *column = ggml_new_tensor_1d(context.get(), GGML_TYPE_F32, tensor.ne[0]);
    ggml_tensor *product = ggml_mul_mat(context.get(), matrix, column);
    char *base = static_cast<char *>(ggml_backend_buffer_get_base(activations.get()));
    place(weights.get(), matrix, ggml_backend_buffer_get_base(weights.get()));
    place(activations.get(), column, base);
    place(activations.get(), product, base + round_up(in, kLayoutAlign));
    const auto graph_of = [&](ggml_tensor *node) {
        ggml_cgraph *graph = ggml_new_graph_custom(context.get(), 8, false);
        ggml_build_forward_expand(graph, node);
        return graph;
    };
    ggml_tensor *few =
        ggml_mul_mat(context.get(),
                     ggml_view_2d(context.get(), matrix, tensor.ne[0], kWarmRows, matrix->nb[1], 0), column);
    place(activations.get(), few, base + round_up(in, kLayoutAlign));
    ggml_backend_view_init(few->src[0]);
    cpu.compute(graph_of(few));
    // Once from end to end: what lies in the caches by then are its last rows, and they go before their turn.
    ggml_cgraph *graph = graph_of(product);
    begin(size);
    const Stopwatch watch;
    cpu.compute(graph);
    return static_cast<double>(size) / std::max(watch.seconds(), 1e-9);
}

}  // namespace

double link_rate(const Plan &plan) { return Link(plan).rate(); }

double cpu_rate(const Plan &plan, const Chunk &chunk) {
    return cpu_rate_beside(plan, chunk, [](uint64_t) {});
}

double measured_cpu_share(const Plan &plan) {
    const auto half = std::find_if(plan.chunks.begin(), plan.chunks.end(), [&plan](const Chunk &chunk) {
        return chunk.hosted && plan.program.ops[static_cast<size_t>(chunk.steps.front().op)].half == 1;
    });
    if (half == plan.chunks.end() || !plan.device.overlaps) {
        return 0;
    }
    double bytes = 0;
    for (const Chunk &chunk : plan.chunks) {
        bytes += chunk.unit == half->unit ? static_cast<double>(chunk.weight_bytes) : 0;
    }
    // The memory that both read from is shared, so neither is alone; and reading goes on until the last bytes
    // are multiplied.
    Link link(plan);
    const double cpu = cpu_rate_beside(plan, *half, [&link](uint64_t size) {
        for (uint64_t sent = 0; sent < size; sent += link.size()) {
            link.start();
        }
    });
    const double own = bytes / (bytes / cpu + kBetweenHalves);
    return own / (own + link.rate());
}

}  // namespace floatllm

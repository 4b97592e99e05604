#include "lane.h"

#include <algorithm>
#include <cmath>

#include "cut.h"
#include "error.h"

namespace floatllm {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_between(Clock::time_point began, Clock::time_point ended) {
    return std::chrono::duration<double>(ended - began).count();
}

bool shares(const Plan &plan) {
    return std::any_of(plan.chunks.begin(), plan.chunks.end(), [](const Chunk &c) { return c.shared; });
}

// A tensor over some elements of a buffer's region.
ggml_tensor *tensor_at(ggml_context *context, ggml_backend_buffer_t buffer, ggml_type type, int64_t elements,
                       uint64_t offset) {
    ggml_tensor *tensor = ggml_new_tensor_1d(context, type, elements);
    char *base = static_cast<char *>(ggml_backend_buffer_get_base(buffer));
    if (ggml_backend_tensor_alloc(buffer, tensor, base + offset) != GGML_STATUS_SUCCESS) {
        throw Error(FLOATLLM_ERROR_ENGINE, "The device refused an activation.");
    }
    return tensor;
}

ggml_context_ptr small_context(size_t tensors) {
    return ggml_context_ptr(ggml_init({ggml_tensor_overhead() * tensors, nullptr, true}));
}

}  // namespace

HostShare::HostShare(const Plan &plan, const Device &device)
    : plan_(plan_of_share(plan, device_facts(cpu_device()))),
      cpu_(plan_.device.name, plan.threads, 50),
      memory_(device.pinned(plan_.layout.bytes)),
      activations_(cpu_.wrap(ggml_backend_buffer_get_base(memory_.get()), plan_.layout.bytes)),
      builder_(plan_, State{activations_.get(), nullptr}) {}

char *HostShare::residual() const {
    return static_cast<char *>(ggml_backend_buffer_get_base(activations_.get())) +
           plan_.layout.act[static_cast<size_t>(Act::X)].offset;
}

void HostShare::take(const Device &device, const ggml_tensor *from) {
    ggml_backend_tensor_get_async(device.stream(), from, residual(), 0, ggml_nbytes(from));
    device.wait();
}

void HostShare::give(const Device &device, ggml_tensor *to) { device.set(to, residual(), ggml_nbytes(to)); }

Lane::Lane(const Plan &plan, size_t first_chunk, size_t chunks, Clock::time_point opened)
    : plan_(plan),
      first_chunk_(first_chunk),
      chunks_(chunks),
      opened_(opened),
      // Beside a stream, threads that watch for work would take the CPUs from those that read.
      device_(plan.device.name, plan.threads, plan.slots > 0 ? 0 : 50),
      activations_(device_.allocate(plan.layout.bytes, "activations")),
      kv_(plan.program.arch != nullptr ? device_.allocate(plan.memory.kv, "the KV cache") : nullptr),
      share_(shares(plan) ? std::make_unique<HostShare>(plan, device_) : nullptr),
      weights_(open_weights(plan, device_, share_ == nullptr ? nullptr : &share_->cpu())),
      builder_(plan, State{activations_.get(), kv_.get()}),
      kept_(plan.chunks.size()) {
    const std::vector<float> ones(static_cast<size_t>(plan.program.touch_width), 1.0f);
    if (!ones.empty()) {
        builder_.reset();
        ggml_tensor *tensor = builder_.over(GGML_TYPE_F32, plan.program.touch_width, 1, plan.layout.ones);
        ggml_backend_tensor_set(tensor, ones.data(), 0, ones.size() * sizeof(float));
    }
}

void Lane::restart() {
    forget_graphs();
    weights_->restart();
}

floatllm_event Lane::event_of(floatllm_event_kind kind, size_t index) const {
    floatllm_event event{};
    event.kind = kind;
    event.chunk = first_chunk_ + index;
    event.chunks = chunks_;
    event.device = ggml_backend_dev_name(device_.handle());
    return event;
}

double Lane::since_opened(Clock::time_point when) const { return seconds_between(opened_, when); }

void Lane::begin(const Pass &pass, const float *embeddings) {
    narrow_ = share_ != nullptr && pass.shape.positions <= kShareWidth;
    weights_->begin(narrow_);
    inputs_ = small_context(8);
    const auto set = [&](ggml_type type, const Region &region, const void *data, size_t elements) {
        if (elements > 0) {
            ggml_tensor *tensor = tensor_at(inputs_.get(), activations_.get(), type,
                                            static_cast<int64_t>(elements), region.offset);
            device_.set(tensor, data, ggml_nbytes(tensor));
        }
    };
    const Layout &layout = plan_.layout;
    if (embeddings != nullptr) {
        set(GGML_TYPE_F32, layout.act[static_cast<size_t>(Act::X)], embeddings,
            size_t{plan_.program.dims.embd} * static_cast<size_t>(pass.shape.positions));
    }
    set(GGML_TYPE_I32, layout.positions, pass.positions.data(), pass.positions.size());
    set(GGML_TYPE_I64, layout.cells, pass.cells.data(), pass.cells.size());
    set(GGML_TYPE_I32, layout.wanted, pass.wanted.data(), pass.wanted.size());
    fill_mask(pass, SIZE_MAX, mask_);
    set(GGML_TYPE_F16, layout.mask, mask_.data(), mask_.size());
    if (plan_.program.dims.window > 0) {
        fill_mask(pass, plan_.program.dims.window, near_);
        set(GGML_TYPE_F16, layout.near, near_.data(), near_.size());
    }
}

ggml_tensor *Lane::residual(ggml_context *context, int64_t positions) const {
    return tensor_at(context, activations_.get(), GGML_TYPE_F32, positions * plan_.program.dims.embd,
                     plan_.layout.act[static_cast<size_t>(Act::X)].offset);
}

void Lane::take_residual(float *to, int64_t positions) {
    const ggml_context_ptr context = small_context(1);
    const ggml_tensor *tensor = residual(context.get(), positions);
    device_.wait();
    ggml_backend_tensor_get(tensor, to, 0, ggml_nbytes(tensor));
}

void Lane::give_residual(const float *from, int64_t positions) {
    const ggml_context_ptr context = small_context(1);
    ggml_tensor *tensor = residual(context.get(), positions);
    ggml_backend_tensor_set(tensor, from, 0, ggml_nbytes(tensor));
}

const float *Lane::logits(size_t index, int64_t outputs, float *to) {
    const int64_t vocab = plan_.program.dims.vocab;
    const ggml_context_ptr context = small_context(1);
    ggml_tensor *tensor = tensor_at(context.get(), activations_.get(), GGML_TYPE_F32, vocab * outputs,
                                    plan_.layout.act[static_cast<size_t>(Act::Logits)].offset);
    const size_t row = static_cast<size_t>(vocab) * sizeof(float);
    if (to == nullptr && ggml_backend_buffer_is_host(activations_.get())) {
        return static_cast<const float *>(tensor->data) + index * static_cast<size_t>(vocab);
    }
    if (to == nullptr) {
        if (logits_ == nullptr) {
            logits_ = device_.pinned(row);
        }
        to = static_cast<float *>(ggml_backend_buffer_get_base(logits_.get()));
    }
    ggml_backend_tensor_get(tensor, to, index * row, row);
    return to;
}

// Tells which tensors a chunk has bound, and where.
void Lane::announce(size_t index, const std::vector<ggml_tensor *> &weights, const Tell &tell) {
    if (!tell) {
        return;
    }
    const Chunk &chunk = plan_.chunks[index];
    for (size_t i = 0; i < chunk.parts.size(); ++i) {
        const Part &part = chunk.parts[i];
        if (part.row_begin > 0) {
            continue;
        }
        floatllm_event event = event_of(FLOATLLM_EVENT_TENSOR, index);
        event.computed = 1;
        for (const Step &step : chunk.steps) {
            const Op &op = plan_.program.ops[static_cast<size_t>(step.op)];
            if (op.weight == part.tensor) {
                event.computed = op.kind == OpKind::Peek ? 0 : 1;
                break;
            }
        }
        event.tensor = static_cast<uint64_t>(part.tensor);
        event.device = device_of(weights[i]);
        event.bytes = part.size;
        tell(event);
    }
}

std::vector<ggml_tensor *> Lane::bind(size_t index, Clock::time_point began, double &waited,
                                      GraphBuilder &builder, const Tell &tell) {
    std::vector<ggml_tensor *> weights = weights_->acquire(index, builder.reset());
    waited = seconds_between(began, Clock::now());
    const auto &came = weights_->came(index);
    if (tell && came && !plan_.chunks[index].extents.empty()) {
        floatllm_event event = event_of(FLOATLLM_EVENT_READ, index);
        event.bytes = plan_.chunks[index].mapped_bytes;
        event.seconds = seconds_between(came->began, came->ended);
        event.began = since_opened(came->began);
        tell(event);
    }
    announce(index, weights, tell);
    return weights;
}

void Lane::release(size_t index, Clock::time_point began, double waited, const Tell &tell) {
    weights_->release(index);
    if (tell) {
        floatllm_event event = event_of(FLOATLLM_EVENT_CHUNK, index);
        event.bytes = plan_.chunks[index].weight_bytes;
        event.seconds = seconds_between(began, Clock::now());
        event.began = since_opened(began);
        event.waited = waited;
        tell(event);
    }
}

void Lane::run(const PassShape &shape, const Tell &tell) {
    for (size_t index = 0; index < plan_.chunks.size(); ++index) {
        run_chunk(index, shape, tell);
    }
}

void Lane::run_chunk(size_t index, const PassShape &shape, const Tell &tell) {
    const Clock::time_point began = Clock::now();
    double waited = 0;
    const Chunk &chunk = plan_.chunks[index];
    if (narrow_ && chunk.shared) {
        run_shared(index, shape, tell);
        return;
    }
    ggml_cgraph *graph = nullptr;
    if (keeps(index)) {
        graph = kept_graph(index, shape, tell, began, waited);
    } else {
        graph = builder_.build(chunk, bind(index, began, waited, builder_, tell), shape);
    }
    if (ggml_graph_n_nodes(graph) > 0) {
        if (repeated_ != nullptr) {
            repeated_->start();
        } else {
            device_.start(graph);
        }
        // Where uploads are ordered by events nothing is waited for but the end of the pass.
        if (!plan_.device.overlaps || plan_.slots <= 1) {
            device_.wait();
        }
    }
    release(index, began, waited, tell);
}

void Lane::run_shared(size_t index, const PassShape &shape, const Tell &tell) {
    const Clock::time_point began = Clock::now();
    double waited = 0;
    const std::vector<Chunk> &chunks = plan_.chunks;
    const ggml_context_ptr context = small_context(1);
    ggml_tensor *stream = residual(context.get(), shape.positions);
    const std::vector<ggml_tensor *> weights = bind(index, began, waited, share_->builder(), tell);
    if (index == 0 || chunks[index - 1].unit != chunks[index].unit) {
        share_->take(device_, stream);
    }
    share_->cpu().compute(share_->builder().build(chunks[index], weights, shape));
    if (index + 1 == chunks.size() || chunks[index + 1].unit != chunks[index].unit) {
        share_->give(device_, stream);
    }
    release(index, began, waited, tell);
}

bool Lane::keeps(size_t index) const {
    // In the host's memory what stays may be given back to others.
    return plan_.chunks[index].pinned && (!plan_.device.maps_host || plan_.chunks.size() == 1);
}

void Lane::forget_graphs() {
    repeated_.reset();
    for (Kept &kept : kept_) {
        kept.graph = nullptr;
    }
}

ggml_cgraph *Lane::kept_graph(size_t index, const PassShape &shape, const Tell &tell, Clock::time_point began,
                              double &waited) {
    Kept &kept = kept_[index];
    if (kept.graph != nullptr && kept.shape == shape) {
        const bool whole = plan_.chunks.size() == 1 && ggml_graph_n_nodes(kept.graph) > 0;
        if (!kept.again && whole && plan_.device.overlaps && keeps_order(device_.handle())) {
            repeated_ = std::make_unique<Repeated>(device_, kept.graph, plan_.graph_tensors);
        }
        kept.again = true;
        return kept.graph;
    }
    if (kept.builder == nullptr) {
        kept.builder = std::make_unique<GraphBuilder>(plan_, State{activations_.get(), kv_.get()},
                                                      graph_tensors(plan_, plan_.chunks[index]));
    }
    repeated_.reset();
    kept.graph = nullptr;
    kept.weights = bind(index, began, waited, *kept.builder, tell);
    kept.graph = kept.builder->build(plan_.chunks[index], kept.weights, shape);
    kept.shape = shape;
    kept.again = false;
    return kept.graph;
}

void Lane::map(double *sums, const Tell &tell, const std::function<void(int)> &damaged) {
    for (size_t index = 0; index < plan_.chunks.size(); ++index) {
        touch_chunk(index, sums, tell, damaged);
    }
}

void Lane::touch_chunk(size_t index, double *sums, const Tell &tell,
                       const std::function<void(int)> &damaged) {
    const Clock::time_point began = Clock::now();
    double waited = 0;
    const Chunk &chunk = plan_.chunks[index];
    const std::vector<ggml_tensor *> weights = bind(index, began, waited, builder_, tell);
    std::vector<float> rows;
    for (const Step &step : chunk.steps) {
        const int tensor = plan_.program.ops[static_cast<size_t>(step.op)].weight;
        const auto part = std::find_if(chunk.parts.begin(), chunk.parts.end(), [&](const Part &p) {
            return p.tensor == tensor && p.row_begin == step.row_begin;
        });
        ggml_cgraph *graph =
            builder_.build_touch(step, weights[static_cast<size_t>(part - chunk.parts.begin())]);
        if (graph == nullptr) {
            continue;
        }
        if (const ggml_tensor *lacking = first_unsupported(device_.handle(), graph)) {
            throw Error(FLOATLLM_ERROR_ENGINE,
                        format("%s cannot compute %s. Choose another --device.", plan_.device.name.c_str(),
                               operation_text(lacking).c_str()));
        }
        device_.compute(graph);
        rows.resize(static_cast<size_t>(step.row_end - step.row_begin));
        ggml_tensor *result = ggml_graph_node(graph, -1);
        ggml_backend_tensor_get(result, rows.data(), 0, rows.size() * sizeof(float));
        for (const float row : rows) {
            sums[tensor] += static_cast<double>(row);
        }
        if (!std::isfinite(sums[tensor])) {
            damaged(tensor);
        }
    }
    release(index, began, waited, tell);
}

}  // namespace floatllm

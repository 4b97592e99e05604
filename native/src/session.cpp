#include "session.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>

#include "error.h"

namespace floatllm {

namespace {

class Stopwatch {
  public:
    double seconds() const {
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    }

  private:
    std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace

Session::Session(std::shared_ptr<const Plan> plan)
    : plan_(std::move(plan)),
      // Beside a stream, threads that watch for work would take the CPUs from those that read.
      device_(plan_->device.name, plan_->threads, plan_->slots > 0 ? 0 : 50),
      activations_(device_.allocate(plan_->layout.bytes, "activations")),
      kv_(plan_->program.arch != nullptr ? device_.allocate(plan_->memory.kv, "the KV cache") : nullptr),
      chunks_(*plan_, device_),
      builder_(*plan_, State{activations_.get(), kv_.get()}),
      lengths_(plan_->sequences, 0) {
    if (plan_->program.arch == nullptr) {
        builder_.reset();
        const std::vector<float> ones(static_cast<size_t>(plan_->program.touch_width), 1.0f);
        if (!ones.empty()) {
            ggml_tensor *tensor =
                builder_.over(GGML_TYPE_F32, plan_->program.touch_width, 1, plan_->layout.ones);
            ggml_backend_tensor_set(tensor, ones.data(), 0, ones.size() * sizeof(float));
        }
    }
}

void Session::require_mode(floatllm_mode mode) const {
    if (plan_->mode != mode) {
        throw Error(FLOATLLM_ERROR_USAGE, format("This session was planned to %s the model, not to %s it.",
                                                 plan_->mode == FLOATLLM_MODE_MAP ? "map" : "run",
                                                 mode == FLOATLLM_MODE_MAP ? "map" : "run"));
    }
}

void Session::emit(const floatllm_event &event) {
    if (on_event_ && !on_event_(event)) {
        throw Error(FLOATLLM_ERROR_ENGINE, "Stopped.");
    }
}

// Tells which tensors a chunk has bound, and where.
void Session::announce(size_t index, const std::vector<ggml_tensor *> &weights) {
    if (!on_event_) {
        return;
    }
    const Chunk &chunk = plan_->chunks[index];
    for (size_t i = 0; i < chunk.parts.size(); ++i) {
        const Part &part = chunk.parts[i];
        if (part.row_begin > 0) {
            continue;
        }
        floatllm_event event{};
        event.kind = FLOATLLM_EVENT_TENSOR;
        event.computed = 1;
        for (const Step &step : chunk.steps) {
            const Op &op = plan_->program.ops[static_cast<size_t>(step.op)];
            if (op.weight == part.tensor) {
                event.computed = op.kind == OpKind::Peek ? 0 : 1;
                break;
            }
        }
        event.chunk = index;
        event.chunks = plan_->chunks.size();
        event.tensor = static_cast<uint64_t>(part.tensor);
        event.device = device_of(weights[i]);
        event.bytes = part.size;
        emit(event);
    }
}

void Session::finish(size_t index, double seconds) {
    floatllm_event event{};
    event.kind = FLOATLLM_EVENT_CHUNK;
    event.chunk = index;
    event.chunks = plan_->chunks.size();
    event.device = ggml_backend_dev_name(device_.handle());
    event.bytes = plan_->chunks[index].weight_bytes;
    event.seconds = seconds;
    emit(event);
}

void Session::append(const std::vector<Addition> &additions) {
    require_mode(FLOATLLM_MODE_RUN);
    std::vector<bool> seen(lengths_.size(), false);
    for (const Addition &addition : additions) {
        check(addition);
        if (seen[addition.sequence]) {
            throw Error(FLOATLLM_ERROR_USAGE, format("Sequence %u is named twice.", addition.sequence));
        }
        seen[addition.sequence] = true;
    }
    const std::vector<size_t> before = lengths_;
    const PassLimits limits{plan_->width,          plan_->outputs,
                            plan_->cells,          plan_->program.dims.vocab,
                            plan_->position_grain, plan_->output_grain};
    try {
        for (const Pass &each : make_passes(additions, lengths_, limits)) {
            run(each);
        }
    } catch (...) {
        lengths_ = before;
        kept_graph_ = nullptr;
        chunks_.restart();
        throw;
    }
}

void Session::check(const Addition &addition) const {
    if (addition.sequence >= lengths_.size()) {
        throw Error(FLOATLLM_ERROR_USAGE,
                    format("There is no sequence %u; %zu were planned.", addition.sequence, lengths_.size()));
    }
    if (addition.count == 0) {
        throw Error(FLOATLLM_ERROR_USAGE, "There are no tokens to compute; give at least one.");
    }
    if (addition.outputs > addition.count) {
        throw Error(FLOATLLM_ERROR_USAGE, "Logits are wanted of more tokens than there are.");
    }
    const size_t taken = lengths_[addition.sequence];
    if (addition.count > plan_->ctx - taken) {
        throw Error(FLOATLLM_ERROR_USAGE,
                    format("%zu tokens do not fit: %zu of the %u positions of context are taken. Plan with "
                           "a larger context.",
                           addition.count, taken, plan_->ctx));
    }
    const uint32_t vocab = plan_->program.dims.vocab;
    for (size_t i = 0; i < addition.count; ++i) {
        if (addition.tokens[i] < 0 || static_cast<uint32_t>(addition.tokens[i]) >= vocab) {
            throw Error(FLOATLLM_ERROR_USAGE,
                        format("Token %d is not in the vocabulary of %u.", addition.tokens[i], vocab));
        }
    }
}

size_t Session::length(uint32_t sequence) const {
    return sequence < lengths_.size() ? lengths_[sequence] : 0;
}

void Session::truncate(uint32_t sequence, size_t length) {
    if (sequence >= lengths_.size() || length > lengths_[sequence]) {
        throw Error(FLOATLLM_ERROR_USAGE,
                    format("There is no sequence %u of at least %zu positions.", sequence, length));
    }
    lengths_[sequence] = length;
}

void Session::run(const Pass &pass) {
    set_inputs(pass);
    for (size_t index = 0; index < plan_->chunks.size(); ++index) {
        run_chunk(index, pass.shape);
    }
    for (const Segment &segment : pass.shape.segments) {
        lengths_[segment.sequence] += static_cast<size_t>(segment.count);
    }
    if (pass.wanted.empty()) {
        return;
    }
    // The graphs stay as they are: a tensor of their context would be forgotten with them.
    const int64_t vocab = plan_->program.dims.vocab;
    ggml_context_ptr context(ggml_init({ggml_tensor_overhead() * 2, nullptr, true}));
    ggml_tensor *tensor = ggml_new_tensor_2d(context.get(), GGML_TYPE_F32, vocab, pass.shape.outputs);
    char *base = static_cast<char *>(ggml_backend_buffer_get_base(activations_.get()));
    ggml_backend_tensor_alloc(activations_.get(), tensor,
                              base + plan_->layout.act[static_cast<size_t>(Act::Logits)].offset);
    for (size_t i = 0; i < pass.logits.size(); ++i) {
        ggml_backend_tensor_get(tensor, pass.logits[i], i * tensor->nb[1], tensor->nb[1]);
    }
}

void Session::embed(const std::vector<int32_t> &tokens) {
    const Tensor &table = plan_->model->tensors()[static_cast<size_t>(plan_->program.embedding)];
    const size_t embd = plan_->program.dims.embd;
    const size_t bytes = static_cast<size_t>(table.row_bytes());
    const ggml_to_float_t to_float = ggml_get_type_traits(table.type)->to_float;
    embeddings_.resize(embd * tokens.size());
    row_.resize(bytes);
    for (size_t i = 0; i < tokens.size(); ++i) {
        float *out = embeddings_.data() + i * embd;
        plan_->model->file(table.file)
            .read_at(table.offset + static_cast<uint64_t>(tokens[i]) * bytes, row_.data(), bytes);
        if (table.type == GGML_TYPE_F32) {
            std::memcpy(out, row_.data(), bytes);
        } else {
            to_float(row_.data(), out, static_cast<int64_t>(embd));
        }
        if (plan_->program.arch->scaled_embedding) {
            const float scale = std::sqrt(static_cast<float>(embd));
            std::transform(out, out + embd, out, [scale](float x) { return x * scale; });
        }
    }
}

void Session::set_inputs(const Pass &pass) {
    embed(pass.tokens);
    embeddings_.resize(plan_->program.dims.embd * static_cast<size_t>(pass.shape.positions), 0.0f);
    ggml_context_ptr context(ggml_init({ggml_tensor_overhead() * 8, nullptr, true}));
    char *base = static_cast<char *>(ggml_backend_buffer_get_base(activations_.get()));
    const auto set = [&](ggml_type type, const Region &region, const void *data, size_t elements) {
        if (elements == 0) {
            return;
        }
        ggml_tensor *tensor = ggml_new_tensor_1d(context.get(), type, static_cast<int64_t>(elements));
        ggml_backend_tensor_alloc(activations_.get(), tensor, base + region.offset);
        ggml_backend_tensor_set(tensor, data, 0, ggml_nbytes(tensor));
    };
    const Layout &layout = plan_->layout;
    set(GGML_TYPE_F32, layout.act[static_cast<size_t>(Act::X)], embeddings_.data(), embeddings_.size());
    set(GGML_TYPE_I32, layout.positions, pass.positions.data(), pass.positions.size());
    set(GGML_TYPE_I64, layout.cells, pass.cells.data(), pass.cells.size());
    set(GGML_TYPE_I32, layout.wanted, pass.wanted.data(), pass.wanted.size());
    fill_mask(pass, SIZE_MAX, mask_);
    set(GGML_TYPE_F16, layout.mask, mask_.data(), mask_.size());
    if (plan_->program.dims.window > 0) {
        fill_mask(pass, plan_->program.dims.window, mask_);
        set(GGML_TYPE_F16, layout.near, mask_.data(), mask_.size());
    }
}

void Session::run_chunk(size_t index, const PassShape &shape) {
    const Stopwatch watch;
    const bool resident = plan_->chunks.size() == 1 && plan_->chunks[0].pinned;
    if (!resident || kept_graph_ == nullptr || !(kept_shape_ == shape)) {
        kept_graph_ = nullptr;
        bound_ = chunks_.acquire(index, builder_.reset());
        announce(index, bound_);
        ggml_cgraph *graph = builder_.build(plan_->chunks[index], bound_, shape);
        device_.require_support(graph);
        kept_graph_ = graph;
        kept_shape_ = shape;
    }
    if (ggml_graph_n_nodes(kept_graph_) > 0) {
        device_.compute(kept_graph_);
    }
    chunks_.release(index);
    finish(index, watch.seconds());
}

void Session::map(double *sums) {
    require_mode(FLOATLLM_MODE_MAP);
    std::fill_n(sums, plan_->model->tensors().size(), 0.0);
    try {
        for (size_t index = 0; index < plan_->chunks.size(); ++index) {
            touch_chunk(index, sums);
        }
    } catch (...) {
        chunks_.restart();
        throw;
    }
}

void Session::touch_chunk(size_t index, double *sums) {
    const Stopwatch watch;
    const Chunk &chunk = plan_->chunks[index];
    const std::vector<ggml_tensor *> weights = chunks_.acquire(index, builder_.reset());
    announce(index, weights);
    std::vector<float> rows;
    for (const Step &step : chunk.steps) {
        const int tensor = plan_->program.ops[static_cast<size_t>(step.op)].weight;
        const auto part = std::find_if(chunk.parts.begin(), chunk.parts.end(), [&](const Part &p) {
            return p.tensor == tensor && p.row_begin == step.row_begin;
        });
        ggml_cgraph *graph =
            builder_.build_touch(step, weights[static_cast<size_t>(part - chunk.parts.begin())]);
        if (graph == nullptr) {
            continue;
        }
        device_.require_support(graph);
        device_.compute(graph);
        rows.resize(static_cast<size_t>(step.row_end - step.row_begin));
        ggml_tensor *result = ggml_graph_node(graph, -1);
        ggml_backend_tensor_get(result, rows.data(), 0, rows.size() * sizeof(float));
        for (const float row : rows) {
            sums[tensor] += static_cast<double>(row);
        }
    }
    chunks_.release(index);
    finish(index, watch.seconds());
}

}  // namespace floatllm

#include "session.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>

#include "choice.h"
#include "damage.h"
#include "error.h"

namespace floatllm {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_between(Clock::time_point began, Clock::time_point ended) {
    return std::chrono::duration<double>(ended - began).count();
}

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

double Session::since_opened(Clock::time_point when) const { return seconds_between(opened_, when); }

std::vector<ggml_tensor *> Session::bind(size_t index, Clock::time_point began, double &waited) {
    std::vector<ggml_tensor *> weights = chunks_.acquire(index, builder_.reset());
    waited = seconds_between(began, Clock::now());
    const auto &came = chunks_.came(index);
    if (came && !plan_->chunks[index].extents.empty()) {
        floatllm_event event{};
        event.kind = FLOATLLM_EVENT_READ;
        event.chunk = index;
        event.chunks = plan_->chunks.size();
        event.device = ggml_backend_dev_name(device_.handle());
        event.bytes = plan_->chunks[index].mapped_bytes;
        event.seconds = seconds_between(came->began, came->ended);
        event.began = since_opened(came->began);
        emit(event);
    }
    announce(index, weights);
    return weights;
}

void Session::finish(size_t index, Clock::time_point began, double waited) {
    floatllm_event event{};
    event.kind = FLOATLLM_EVENT_CHUNK;
    event.chunk = index;
    event.chunks = plan_->chunks.size();
    event.device = ggml_backend_dev_name(device_.handle());
    event.bytes = plan_->chunks[index].weight_bytes;
    event.seconds = seconds_between(began, Clock::now());
    event.began = since_opened(began);
    event.waited = waited;
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
    const PassLimits limits{
        plan_->width,          plan_->outputs,         plan_->cells,       plan_->program.dims.vocab,
        plan_->position_grain, plan_->attention_block, plan_->output_grain};
    try {
        for (const Pass &each : make_passes(additions, lengths_, limits)) {
            chunks_.heed_memory();
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
    if (!pass.wanted.empty() && !plan_->trial) {
        hand_out(pass);
    }
}

void Session::hand_out(const Pass &pass) {
    // The graphs stay as they are: a tensor of their context would be forgotten with them.
    const int64_t vocab = plan_->program.dims.vocab;
    ggml_context_ptr context(ggml_init({ggml_tensor_overhead() * 2, nullptr, true}));
    ggml_tensor *tensor = ggml_new_tensor_2d(context.get(), GGML_TYPE_F32, vocab, pass.shape.outputs);
    char *base = static_cast<char *>(ggml_backend_buffer_get_base(activations_.get()));
    ggml_backend_tensor_alloc(activations_.get(), tensor,
                              base + plan_->layout.act[static_cast<size_t>(Act::Logits)].offset);
    const bool in_reach = ggml_backend_buffer_is_host(activations_.get());
    for (size_t i = 0; i < pass.outputs.size(); ++i) {
        const Output &out = pass.outputs[i];
        const float *row = out.logits;
        if (out.logits != nullptr) {
            ggml_backend_tensor_get(tensor, out.logits, i * tensor->nb[1], tensor->nb[1]);
        } else if (in_reach) {
            row =
                reinterpret_cast<const float *>(static_cast<const char *>(tensor->data) + i * tensor->nb[1]);
        } else {
            logits_.resize(static_cast<size_t>(vocab));
            ggml_backend_tensor_get(tensor, logits_.data(), i * tensor->nb[1], tensor->nb[1]);
            row = logits_.data();
        }
        if (!all_finite(row, static_cast<size_t>(vocab))) {
            std::vector<int> used = {plan_->program.embedding};
            for (const Op &op : plan_->program.ops) {
                if (op.weight >= 0) {
                    used.push_back(op.weight);
                }
            }
            refuse_numbers(used, "the logits that " + plan_->device.name + " computed");
        }
        top(row, static_cast<size_t>(vocab), out.top, out.ids);
    }
}

// Throws what is wrong where a computation over these tensors gave no numbers.
void Session::refuse_numbers(const std::vector<int> &tensors, const std::string &what) {
    find_damage(*plan_->model, tensors, [this](int tensor, uint64_t bytes) {
        floatllm_event event{};
        event.kind = FLOATLLM_EVENT_CHECK;
        event.chunks = plan_->chunks.size();
        event.tensor = static_cast<uint64_t>(tensor);
        event.device = ggml_backend_dev_name(device_.handle());
        event.bytes = bytes;
        emit(event);
    });
    throw Error(
        FLOATLLM_ERROR_ENGINE,
        format("Every weight of %s is a number, but %s are not: the computation overflowed. Try another "
               "--device, or another conversion of the model.",
               plan_->model->path().c_str(), what.c_str()));
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
        const uint64_t at = table.offset + static_cast<uint64_t>(tokens[i]) * bytes;
        plan_->model->file(table.file).read_at(at, row_.data(), bytes);
        if (table.type == GGML_TYPE_F32) {
            std::memcpy(out, row_.data(), bytes);
        } else {
            to_float(row_.data(), out, static_cast<int64_t>(embd));
        }
        if (!all_finite(out, embd)) {
            const int64_t bad = std::max<int64_t>(first_damaged(table.type, row_.data(), bytes), 0);
            refuse_damage(*plan_->model, table, at + static_cast<uint64_t>(bad));
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
    const Clock::time_point began = Clock::now();
    double waited = 0;
    const bool resident = plan_->chunks.size() == 1 && plan_->chunks[0].pinned;
    if (!resident || kept_graph_ == nullptr || !(kept_shape_ == shape)) {
        kept_graph_ = nullptr;
        bound_ = bind(index, began, waited);
        ggml_cgraph *graph = builder_.build(plan_->chunks[index], bound_, shape);
        device_.require_support(graph);
        kept_graph_ = graph;
        kept_shape_ = shape;
    }
    if (ggml_graph_n_nodes(kept_graph_) > 0) {
        device_.compute(kept_graph_);
    }
    chunks_.release(index);
    finish(index, began, waited);
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
    const Clock::time_point began = Clock::now();
    double waited = 0;
    const Chunk &chunk = plan_->chunks[index];
    const std::vector<ggml_tensor *> weights = bind(index, began, waited);
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
        if (!std::isfinite(sums[tensor])) {
            refuse_numbers({tensor}, "the sums over the rows of " +
                                         plan_->model->tensors()[static_cast<size_t>(tensor)].name);
        }
    }
    chunks_.release(index);
    finish(index, began, waited);
}

}  // namespace floatllm

#include "session.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>

#include "choice.h"
#include "damage.h"
#include "error.h"

namespace floatllm {

Session::Session(std::shared_ptr<const Plans> plans)
    : plans_(std::move(plans)), lengths_(plan().sequences, 0) {
    size_t chunks = 0;
    for (const Plan &each : *plans_) {
        chunks += each.chunks.size();
    }
    size_t first = 0;
    for (const Plan &each : *plans_) {
        lanes_.push_back(std::make_unique<Lane>(each, first, chunks, opened_));
        first += each.chunks.size();
    }
}

void Session::require_mode(floatllm_mode mode) const {
    if (plan().mode != mode) {
        throw Error(FLOATLLM_ERROR_USAGE, format("This session was planned to %s the model, not to %s it.",
                                                 plan().mode == FLOATLLM_MODE_MAP ? "map" : "run",
                                                 mode == FLOATLLM_MODE_MAP ? "map" : "run"));
    }
}

void Session::emit(const floatllm_event &event) {
    if (on_event_ && !on_event_(event)) {
        throw Error(FLOATLLM_ERROR_ENGINE, "Stopped.");
    }
}

Tell Session::tell() {
    return on_event_ ? Tell([this](const floatllm_event &event) { emit(event); }) : nullptr;
}

void Session::restart() {
    for (const auto &lane : lanes_) {
        try {
            lane->restart();
        } catch (const Error &) {
            // Told again by the pass that needs what is missing; now another error is on its way.
        }
    }
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
        plan().width,          plan().outputs,         plan().cells,       plan().program.dims.vocab,
        plan().position_grain, plan().attention_block, plan().output_grain};
    try {
        for (const Pass &each : make_passes(additions, lengths_, limits)) {
            for (const auto &lane : lanes_) {
                lane->heed();
            }
            run(each);
        }
    } catch (...) {
        lengths_ = before;
        restart();
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
    if (addition.count > plan().ctx - taken) {
        throw Error(FLOATLLM_ERROR_USAGE,
                    format("%zu tokens do not fit: %zu of the %u positions of context are taken. Plan with "
                           "a larger context.",
                           addition.count, taken, plan().ctx));
    }
    const uint32_t vocab = plan().program.dims.vocab;
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
    embed(pass.tokens, pass.shape.positions);
    for (size_t i = 0; i < lanes_.size(); ++i) {
        lanes_[i]->begin(pass, i == 0 ? embeddings_.data() : nullptr);
    }
    for (size_t i = 0; i < lanes_.size(); ++i) {
        if (i > 0) {
            lanes_[i - 1]->take_residual(embeddings_.data(), pass.shape.positions);
            lanes_[i]->give_residual(embeddings_.data(), pass.shape.positions);
        }
        lanes_[i]->run(pass.shape, tell());
    }
    for (const auto &lane : lanes_) {
        lane->finish();
    }
    for (const Segment &segment : pass.shape.segments) {
        lengths_[segment.sequence] += static_cast<size_t>(segment.count);
    }
    if (!pass.wanted.empty() && !plan().trial) {
        hand_out(pass);
    }
}

void Session::hand_out(const Pass &pass) {
    const size_t vocab = plan().program.dims.vocab;
    for (size_t i = 0; i < pass.outputs.size(); ++i) {
        const Output &out = pass.outputs[i];
        const float *row = lanes_.back()->logits(i, pass.shape.outputs, out.logits);
        if (!all_finite(row, vocab)) {
            std::vector<int> used = {plan().program.embedding};
            for (const Plan &each : *plans_) {
                for (const Op &op : each.program.ops) {
                    if (op.weight >= 0) {
                        used.push_back(op.weight);
                    }
                }
            }
            refuse_numbers(used, "the logits that " + lanes_.back()->plan().device.name + " computed");
        }
        top(row, vocab, out.top, out.ids);
    }
}

// Throws what is wrong where a computation over these tensors gave no numbers.
void Session::refuse_numbers(const std::vector<int> &tensors, const std::string &what) {
    find_damage(*plan().model, tensors, [this](int tensor, uint64_t bytes) {
        floatllm_event event = lanes_.front()->event_of(FLOATLLM_EVENT_CHECK, 0);
        event.tensor = static_cast<uint64_t>(tensor);
        event.bytes = bytes;
        emit(event);
    });
    throw Error(
        FLOATLLM_ERROR_ENGINE,
        format("Every weight of %s is a number, but %s are not: the computation overflowed. Try another "
               "--device, or another conversion of the model.",
               plan().model->path().c_str(), what.c_str()));
}

void Session::embed(const std::vector<int32_t> &tokens, int64_t positions) {
    const Tensor &table = plan().model->tensors()[static_cast<size_t>(plan().program.embedding)];
    const size_t embd = plan().program.dims.embd;
    const size_t bytes = static_cast<size_t>(table.row_bytes());
    const ggml_to_float_t to_float = ggml_get_type_traits(table.type)->to_float;
    embeddings_.resize(embd * tokens.size());
    row_.resize(bytes);
    for (size_t i = 0; i < tokens.size(); ++i) {
        float *out = embeddings_.data() + i * embd;
        const uint64_t at = table.offset + static_cast<uint64_t>(tokens[i]) * bytes;
        plan().model->file(table.file).read_at(at, row_.data(), bytes);
        if (table.type == GGML_TYPE_F32) {
            std::memcpy(out, row_.data(), bytes);
        } else {
            to_float(row_.data(), out, static_cast<int64_t>(embd));
        }
        if (!all_finite(out, embd)) {
            const int64_t bad = std::max<int64_t>(first_damaged(table.type, row_.data(), bytes), 0);
            refuse_damage(*plan().model, table, at + static_cast<uint64_t>(bad));
        }
        if (plan().program.arch->scaled_embedding) {
            const float scale = std::sqrt(static_cast<float>(embd));
            std::transform(out, out + embd, out, [scale](float x) { return x * scale; });
        }
    }
    embeddings_.resize(embd * static_cast<size_t>(positions), 0.0f);
}

void Session::map(double *sums) {
    require_mode(FLOATLLM_MODE_MAP);
    std::fill_n(sums, plan().model->tensors().size(), 0.0);
    try {
        for (const auto &lane : lanes_) {
            lane->map(sums, tell(), [this](int tensor) {
                refuse_numbers({tensor}, "the sums over the rows of " +
                                             plan().model->tensors()[static_cast<size_t>(tensor)].name);
            });
        }
    } catch (...) {
        restart();
        throw;
    }
}

}  // namespace floatllm

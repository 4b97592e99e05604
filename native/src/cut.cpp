#include "cut.h"

#include <algorithm>
#include <stdexcept>

namespace floatllm {

namespace {

class Cutter {
  public:
    Cutter(const GgufFile &model, const Program &program, const DeviceFacts &device, uint32_t segments)
        : model_(model), program_(program), device_(device), segments_(segments) {}

    uint64_t smallest() const {
        uint64_t most = 0;
        for (size_t op = 0; op < program_.ops.size(); ++op) {
            const Op &o = program_.ops[op];
            if (o.rows > o.grain) {
                most = std::max(most, static_cast<uint64_t>(o.grain) * row_bytes(o) + edges());
            } else {
                most = std::max(most, cost({step(op, 0, o.rows)}));
            }
        }
        return most;
    }

    uint64_t largest() const {
        uint64_t most = 0;
        for (size_t op = 0; op < program_.ops.size(); ++op) {
            const Op &o = program_.ops[op];
            most = o.layer < 0 ? most : std::max(most, cost({step(op, 0, o.rows)}));
        }
        return most;
    }

    std::vector<Chunk> cut(uint64_t cap, Halves halves) {
        cap_ = cap;
        halves_ = halves;
        size_t begin = 0;
        while (begin < program_.ops.size()) {
            const size_t end =
                run_end(begin, [](const Op &a, const Op &b) { return a.layer == b.layer && a.layer >= 0; });
            add_layer(begin, end);
            begin = end;
        }
        close();
        return std::move(chunks_);
    }

  private:
    template <typename Same>
    size_t run_end(size_t begin, Same same) const {
        size_t end = begin + 1;
        while (end < program_.ops.size() && same(program_.ops[begin], program_.ops[end])) {
            ++end;
        }
        return end;
    }

    void add_layer(size_t begin, size_t end) {
        if (halves_ == Halves::Together && add_whole(begin, end)) {
            return;
        }
        while (begin < end) {
            const size_t half = run_end(begin, [](const Op &a, const Op &b) {
                return a.layer == b.layer && a.layer >= 0 && a.half == b.half;
            });
            if (!add_whole(begin, half)) {
                for (size_t op = begin; op < half; ++op) {
                    if (!add_whole(op, op + 1)) {
                        add_rows(op);
                    }
                }
            }
            begin = half;
            if (halves_ == Halves::Apart) {
                close();
                ++unit_;
            }
        }
    }

    // Adds operations as one piece that no chunk border cuts; false when they exceed a chunk.
    bool add_whole(size_t begin, size_t end) {
        std::vector<Step> steps;
        for (size_t op = begin; op < end; ++op) {
            const Op &o = program_.ops[op];
            // Thin rows of mode map would make sums larger than the weights.
            if (program_.touch_rows > 0 && o.rows > program_.touch_rows) {
                return false;
            }
            steps.push_back(step(op, 0, o.rows));
        }
        return add(steps);
    }

    void add_rows(size_t op) {
        const Op &o = program_.ops[op];
        const uint64_t fit = cap_ > edges() ? (cap_ - edges()) / row_bytes(o) : 0;
        int64_t most = std::max<int64_t>(o.grain, static_cast<int64_t>(fit) / o.grain * o.grain);
        if (program_.touch_rows > 0) {
            most = std::min(most, program_.touch_rows);
        }
        const int64_t slices = (o.rows + most - 1) / most;
        const int64_t each = static_cast<int64_t>(
            round_up(static_cast<uint64_t>((o.rows + slices - 1) / slices), static_cast<uint64_t>(o.grain)));
        for (int64_t row_begin = 0; row_begin < o.rows; row_begin += each) {
            if (!add({step(op, row_begin, std::min(o.rows, row_begin + each))})) {
                throw std::logic_error("a row slice exceeds its chunk; this is a defect of FloatLLM");
            }
        }
    }

    uint64_t row_bytes(const Op &o) const {
        return model_.tensors()[static_cast<size_t>(o.weight)].row_bytes();
    }

    // What a slice takes beyond its bytes: it may begin and end inside a granule, and be padded.
    uint64_t edges() const {
        const uint64_t direct = device_.maps_host ? 0 : os::kDirectAlignment;
        return 2 * device_.granularity + device_.alignment + device_.tensor_slack + direct;
    }

    bool add(const std::vector<Step> &steps) {
        const uint64_t bytes = cost(steps);
        uint64_t tensors = 0;
        for (const Step &s : steps) {
            tensors += graph_tensors(program_.ops[static_cast<size_t>(s.op)].kind, segments_);
        }
        if (bytes > cap_) {
            return false;
        }
        if (used_ + bytes > cap_ || tensors_ + tensors > kMostGraphTensors) {
            close();
        }
        used_ += bytes;
        tensors_ += tensors;
        open_.insert(open_.end(), steps.begin(), steps.end());
        return true;
    }

    void close() {
        if (open_.empty()) {
            return;
        }
        chunks_.push_back(chunk(std::move(open_)));
        unit_ += halves_ == Halves::Together ? 1 : 0;
        chunks_.back().unit = unit_;
        open_.clear();
        used_ = 0;
        tensors_ = 0;
    }

    // Rows [begin, end) of what the operation takes, as rows of the tensor.
    Step step(size_t op, int64_t begin, int64_t end) const {
        const int64_t first = program_.ops[op].row_first;
        return {static_cast<int>(op), first + begin, first + end};
    }

    uint64_t cost(const std::vector<Step> &steps) const { return chunk_cost(device_, chunk(steps)); }

    // Adds the part's granules to the extents; returns by how many bytes these grow.
    uint64_t cover(std::vector<Extent> &extents, const Part &p) const {
        const uint64_t begin = p.offset / device_.granularity * device_.granularity;
        const uint64_t end = round_up(p.offset + p.size, device_.granularity);
        if (extents.empty() || extents.back().file != p.file ||
            begin > extents.back().offset + extents.back().size) {
            extents.push_back({p.file, begin, end - begin});
            return end - begin;
        }
        const uint64_t before = extents.back().size;
        extents.back().size = std::max(before, end - extents.back().offset);
        return extents.back().size - before;
    }

    Chunk chunk(std::vector<Step> steps) const {
        Chunk c{};
        for (const Step &s : steps) {
            const Op &o = program_.ops[static_cast<size_t>(s.op)];
            if (o.weight < 0) {
                continue;
            }
            const Tensor &t = model_.tensors()[static_cast<size_t>(o.weight)];
            const bool cut = s.row_end > s.row_begin;
            const int64_t begin = cut ? s.row_begin : 0;
            const int64_t end = cut ? s.row_end : t.rows();
            c.parts.push_back(
                {o.weight, begin, end, t.file, t.offset + static_cast<uint64_t>(begin) * t.row_bytes(),
                 static_cast<uint64_t>(end - begin) * t.row_bytes(), is_repacked(model_, device_, o)});
        }
        std::sort(c.parts.begin(), c.parts.end(), [](const Part &a, const Part &b) {
            return a.file != b.file ? a.file < b.file : a.offset < b.offset;
        });
        c.parts.erase(std::unique(c.parts.begin(), c.parts.end(),
                                  [](const Part &a, const Part &b) {
                                      return a.file == b.file && a.offset == b.offset && a.size == b.size;
                                  }),
                      c.parts.end());
        for (const Part &p : c.parts) {
            c.weight_bytes += p.size;
            c.device_bytes += round_up(p.size + device_.tensor_slack, device_.alignment);
            c.repacked_bytes += p.repacked ? round_up(p.size, kRepackAlign) : 0;
            c.mapped_bytes += cover(c.extents, p);
            c.kept_bytes += p.repacked ? 0 : cover(c.plain, p);
        }
        // The memory of what is repacked begins anywhere.
        c.kept_bytes += c.repacked_bytes > 0 ? c.repacked_bytes + os::kDirectAlignment : 0;
        c.steps = std::move(steps);
        return c;
    }

    const GgufFile &model_;
    const Program &program_;
    const DeviceFacts &device_;
    const uint32_t segments_;
    uint64_t cap_ = 0;
    Halves halves_ = Halves::Together;
    uint32_t unit_ = 0;
    uint64_t used_ = 0;
    uint64_t tensors_ = 0;
    std::vector<Step> open_;
    std::vector<Chunk> chunks_;
};

}  // namespace

bool is_repacked(const GgufFile &model, const DeviceFacts &device, const Op &op) {
    if (op.kind != OpKind::MatMul || op.rows == 0 || op.rows % kRowGrain != 0) {
        return false;
    }
    const Tensor &tensor = model.tensors()[static_cast<size_t>(op.weight)];
    const size_t type = static_cast<size_t>(tensor.type);
    return tensor.ne[2] == 1 && tensor.ne[3] == 1 && type < device.repacks.size() && device.repacks[type];
}

uint64_t repack_edges(const DeviceFacts &device) {
    return 2 * std::max<uint64_t>(device.granularity, os::kDirectAlignment);
}

uint64_t smallest_repack(const GgufFile &model, const Program &program, const DeviceFacts &device) {
    uint64_t group = 0;
    for (const Op &op : program.ops) {
        if (is_repacked(model, device, op)) {
            const Tensor &tensor = model.tensors()[static_cast<size_t>(op.weight)];
            group = std::max(group, static_cast<uint64_t>(kRowGrain) * tensor.row_bytes());
        }
    }
    return group == 0 ? 0 : round_up(group + repack_edges(device), os::kDirectAlignment);
}

uint64_t graph_tensors(OpKind kind, uint32_t segments) {
    switch (kind) {
        case OpKind::Norm:
            return 6;
        case OpKind::MatMul:
            return 8;
        case OpKind::Attention:
            return 24 + uint64_t{12} * segments;
        case OpKind::Add:
        case OpKind::Bias:
        case OpKind::SwiGlu:
        case OpKind::GeGlu:
        case OpKind::Gather:
            return 4;
        case OpKind::HeadNorm:
            return 8;
        case OpKind::Touch:
            return 6;
        case OpKind::Peek:
            break;
    }
    return 2;
}

uint64_t graph_tensors(const Plan &plan, const Chunk &chunk) {
    uint64_t sum = 64;
    for (const Step &step : chunk.steps) {
        sum += graph_tensors(plan.program.ops[static_cast<size_t>(step.op)].kind, plan.segments);
    }
    return sum;
}

uint64_t smallest_chunk(const GgufFile &model, const Program &program, const DeviceFacts &device) {
    return Cutter(model, program, device, 1).smallest();
}

uint64_t largest_operation(const GgufFile &model, const Program &program, const DeviceFacts &device) {
    return Cutter(model, program, device, 1).largest();
}

std::vector<Chunk> cut_program(const GgufFile &model, const Program &program, const DeviceFacts &device,
                               uint32_t segments, uint64_t cap, Halves halves) {
    return Cutter(model, program, device, segments).cut(cap, halves);
}

}  // namespace floatllm

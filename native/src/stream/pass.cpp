#include "stream/pass.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "error.h"
#include "ggml-impl.h"
#include "layout.h"

namespace floatllm::stream {

namespace {

// Contexts have a few shapes of graphs: a token, a full width of a prompt, its rest.
constexpr size_t kKnown = 8;
// Kernels that choose by the number of rows look at it modulo this.
constexpr int64_t kKernelRows = 16;
// Rows that one reader reads before the next has a turn.
constexpr int64_t kRowsPerTask = 8;

ggml_tensor *root_of(ggml_tensor *tensor) { return tensor->view_src != nullptr ? tensor->view_src : tensor; }

// Reads nothing: it is another shape of what is there, or of a branch of the graph that this pass does not
// take.
bool is_idle(const ggml_tensor *node) {
    if ((node->flags & GGML_TENSOR_FLAG_COMPUTE) == 0) {
        return true;
    }
    switch (node->op) {
        case GGML_OP_NONE:
        case GGML_OP_RESHAPE:
        case GGML_OP_VIEW:
        case GGML_OP_PERMUTE:
        case GGML_OP_TRANSPOSE:
            return true;
        default:
            return false;
    }
}

bool is_matrix(const ggml_tensor *tensor) { return tensor->ne[2] == 1 && tensor->ne[3] == 1; }

// Of the branches that a pass takes.
uint64_t branches_of(const ggml_cgraph *graph) {
    uint64_t hash = 14695981039346656037u;
    for (int i = 0; i < graph->n_nodes; ++i) {
        hash = (hash ^ static_cast<uint64_t>(graph->nodes[i]->flags & GGML_TENSOR_FLAG_COMPUTE)) *
               1099511628211u;
    }
    return hash;
}

void require_unchanged(const Files &files) {
    for (const auto &file : files) {
        file->require_unchanged();
    }
}

// Points tensors at where their weights are, and back when it ends.
class Bound {
  public:
    ~Bound() {
        for (const auto &[tensor, data] : former_) {
            tensor->data = data;
        }
    }
    void set(ggml_tensor *tensor, char *data) {
        former_.emplace_back(tensor, tensor->data);
        tensor->data = data;
    }

  private:
    std::vector<std::pair<ggml_tensor *, void *>> former_;
};

}  // namespace

// nullptr for anything but a weight that lies in a file alone.
Weight *Pass::streamed(const ggml_tensor *tensor) {
    Weight *weight = device_.weights_.find(tensor);
    if (weight != nullptr && weight->kept == nullptr) {
        weight->kept = device_.kept_.find(weight->range);
    }
    if (weight != nullptr && weight->kept == nullptr && weight->range.size <= kSmallWeight) {
        device_.keep({weight->range});
        weight->kept = device_.kept_.find(weight->range);
    }
    return weight != nullptr && weight->kept == nullptr ? weight : nullptr;
}

Node Pass::facts_of(ggml_cgraph *graph, int index) {
    Node facts;
    const ggml_tensor *node = graph->nodes[index];
    if (is_idle(node)) {
        return facts;
    }
    facts.fused = node->op == GGML_OP_MUL && index > 0 && graph->nodes[index - 1]->op == GGML_OP_RMS_NORM;
    for (ggml_tensor *source : node->src) {
        const Weight *weight = source != nullptr ? streamed(root_of(source)) : nullptr;
        if (weight == nullptr) {
            continue;
        }
        if (std::find(facts.weights.begin(), facts.weights.end(), weight->range) == facts.weights.end()) {
            facts.weights.push_back(weight->range);
        }
    }
    const ggml_tensor *first = node->src[0];
    if (facts.weights.size() != 1 || first == nullptr || streamed(root_of(node->src[0])) == nullptr) {
        return facts;
    }
    const ggml_tensor *second = node->src[1];
    facts.rows = node->op == GGML_OP_GET_ROWS && is_matrix(first) && is_matrix(second) &&
                 second->ne[1] == 1 && ggml_is_contiguous(node);
    const bool whole = ggml_nbytes(first) == facts.weights[0].size && ggml_is_contiguous(first);
    // Some products take the matrix for another than it is stored as, which goes by all of its rows.
    const bool plain = ggml_get_op_params_i32(node, 1) == 0;
    if (node->op == GGML_OP_MUL_MAT && plain && whole && is_matrix(first) && is_matrix(second) &&
        first->ne[1] % kKernelRows == 0) {
        facts.split_rows = first->ne[1];
    }
    return facts;
}

const Cutting &Pass::cutting_of(ggml_cgraph *graph) {
    const uint64_t branches = branches_of(graph);
    for (const Cutting &known : known_) {
        if (known.uid != 0 && known.uid == graph->uid && known.nodes == graph->n_nodes &&
            known.first == graph->nodes[0] && known.branches == branches) {
            return known;
        }
    }
    ++device_.count_.cuttings;
    std::vector<Node> nodes;
    for (int i = 0; i < graph->n_nodes; ++i) {
        nodes.push_back(facts_of(graph, i));
    }
    Cutting cutting{graph->uid, graph->n_nodes, graph->nodes[0], branches, {}, nullptr};
    auto cycle = std::make_shared<Cycle>();
    for (Segment &segment : cut(nodes, device_.limits_.slot_bytes)) {
        Planned planned{std::move(segment), {}};
        for (int i = planned.segment.begin; i < planned.segment.end; ++i) {
            if (is_idle(graph->nodes[i])) {
                continue;
            }
            for (ggml_tensor *source : graph->nodes[i]->src) {
                Weight *weight = source != nullptr ? device_.weights_.find(root_of(source)) : nullptr;
                const auto same = [source](const Use &use) { return use.tensor == source; };
                if (weight != nullptr && std::none_of(planned.uses.begin(), planned.uses.end(), same)) {
                    planned.uses.push_back(
                        {source, weight, source->view_src != nullptr ? source->view_offs : 0});
                }
            }
        }
        if (!planned.segment.ranges.empty()) {
            cycle->push_back(planned.segment.ranges);
        }
        cutting.segments.push_back(std::move(planned));
    }
    cutting.cycle = std::move(cycle);
    if (known_.size() == kKnown) {
        known_.pop_front();
    }
    known_.push_back(std::move(cutting));
    return known_.back();
}

// Looks for damage in what was not looked at before. Weights that pass through in parts come in order.
void Pass::bring_sound(const Planned &planned, const Landing *slot) {
    std::vector<ReadPool::Task> tasks;
    std::vector<std::pair<Weight *, uint64_t>> reached;
    const auto look = [&](const Use &use, uint64_t from, uint64_t size, const char *data) {
        Weight *weight = use.weight;
        const auto same = [weight](const auto &other) { return other.first == weight; };
        if (from > weight->sound || from + size <= weight->sound ||
            std::any_of(reached.begin(), reached.end(), same)) {
            return;
        }
        tasks.push_back([this, weight, from, size, data] {
            require_sound(*device_.weights_.files()[weight->range.file], *weight, from, data, size);
        });
        reached.emplace_back(weight, from + size);
    };
    for (const Use &use : planned.uses) {
        const Range &whole = use.weight->range;
        if (use.weight->kept != nullptr) {
            look(use, 0, whole.size, use.weight->kept);
            continue;
        }
        for (const Range &range : planned.segment.ranges) {
            if (range.file == whole.file && range.offset >= whole.offset && range.end() <= whole.end()) {
                look(use, range.offset - whole.offset, range.size, slot->address(range.file, range.offset));
            }
        }
    }
    if (!tasks.empty()) {
        device_.readers_.submit(std::move(tasks))->wait();
    }
    for (const auto &[weight, sound] : reached) {
        weight->sound = sound;
    }
}

ggml_status Pass::compute_node(ggml_cgraph *graph, ggml_tensor *node) {
    ggml_cgraph view = ggml_graph_view(graph, 0, 1);
    view.nodes = &node;
    return ggml_backend_graph_compute(base_, &view);
}

ggml_status Pass::run(ggml_cgraph *graph, const Segment &segment) {
    ggml_cgraph view = ggml_graph_view(graph, segment.begin, segment.end);
    return ggml_backend_graph_compute(base_, &view);
}

// Only the rows that are asked for are read, each once, and the wrapped device picks among them.
ggml_status Pass::pick_rows(ggml_cgraph *graph, const Planned &planned) {
    ggml_tensor *node = graph->nodes[planned.segment.begin];
    const ggml_tensor *ids = node->src[1];
    const Use &use = *std::find_if(planned.uses.begin(), planned.uses.end(),
                                   [node](const Use &one) { return one.tensor == node->src[0]; });
    const Range &range = use.weight->range;
    const os::File &file = *device_.weights_.files()[range.file];
    const uint64_t row = node->src[0]->nb[1];
    const uint64_t bytes = ggml_row_size(node->src[0]->type, node->src[0]->ne[0]);
    const int64_t step = std::max<int64_t>(1, static_cast<int64_t>(kRowBytes / row));
    for (int64_t begin = 0; begin < ids->ne[0]; begin += step) {
        const int64_t end = std::min(begin + step, ids->ne[0]);
        std::vector<int32_t> wanted;
        for (int64_t i = begin; i < end; ++i) {
            wanted.push_back(*reinterpret_cast<const int32_t *>(static_cast<const char *>(ids->data) +
                                                                static_cast<uint64_t>(i) * ids->nb[0]));
        }
        std::vector<int32_t> rows = wanted;
        std::sort(rows.begin(), rows.end());
        rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
        if (rows.front() < 0 || rows.back() >= node->src[0]->ne[1]) {
            throw Error(FLOATLLM_ERROR_USAGE,
                        format("Row %d of %s was asked for, which has %lld.",
                               rows.front() < 0 ? rows.front() : rows.back(), use.weight->name.c_str(),
                               static_cast<long long>(node->src[0]->ne[1])));
        }
        if (rows_.size() < rows.size() * row) {
            rows_ = os::Pages(static_cast<size_t>(rows.size() * row));
        }
        char *memory = static_cast<char *>(rows_.data());
        std::vector<ReadPool::Task> tasks;
        for (size_t first = 0; first < rows.size(); first += kRowsPerTask) {
            const size_t last = std::min(first + kRowsPerTask, rows.size());
            tasks.push_back([&, first, last] {
                for (size_t i = first; i < last; ++i) {
                    const uint64_t from = use.offset + static_cast<uint64_t>(rows[i]) * row;
                    file.read_at(range.offset + from, memory + i * row, static_cast<size_t>(bytes));
                    require_sound(file, *use.weight, from, memory + i * row, bytes);
                }
            });
        }
        device_.readers_.submit(std::move(tasks))->wait();
        picked_.clear();
        for (const int32_t id : wanted) {
            picked_.push_back(
                static_cast<int32_t>(std::lower_bound(rows.begin(), rows.end(), id) - rows.begin()));
        }
        ggml_tensor table = *node->src[0];
        table.ne[1] = static_cast<int64_t>(rows.size());
        table.nb[2] = table.nb[3] = row * rows.size();
        table.data = memory;
        table.view_src = nullptr;
        ggml_tensor order = *ids;
        order.ne[0] = end - begin;
        order.nb[0] = sizeof(int32_t);
        order.nb[1] = order.nb[2] = order.nb[3] = sizeof(int32_t) * picked_.size();
        order.data = picked_.data();
        order.view_src = nullptr;
        ggml_tensor part = *node;
        part.src[0] = &table;
        part.src[1] = &order;
        part.ne[1] = end - begin;
        part.nb[2] = part.nb[3] = part.nb[1] * picked_.size();
        part.data = static_cast<char *>(node->data) + static_cast<uint64_t>(begin) * node->nb[1];
        const ggml_status status = compute_node(graph, &part);
        if (status != GGML_STATUS_SUCCESS) {
            return status;
        }
    }
    return GGML_STATUS_SUCCESS;
}

ggml_status Pass::split(ggml_cgraph *graph, const Segment &segment, char *rows) {
    ggml_tensor *node = graph->nodes[segment.begin];
    ggml_tensor matrix = *node->src[0];
    matrix.ne[1] = segment.row_end - segment.row_begin;
    matrix.nb[2] = matrix.nb[3] = matrix.nb[1] * static_cast<uint64_t>(matrix.ne[1]);
    matrix.data = rows;
    matrix.view_src = nullptr;
    ggml_tensor part = *node;
    part.src[0] = &matrix;
    part.ne[0] = matrix.ne[1];
    part.data = static_cast<char *>(node->data) + static_cast<uint64_t>(segment.row_begin) * node->nb[0];
    return compute_node(graph, &part);
}

ggml_status Pass::compute(ggml_cgraph *graph) {
    const std::lock_guard<std::mutex> held(device_.one_pass_);
    Device::Count &count = device_.count_;
    ++count.passes;
    const Files &files = device_.weights_.files();
    try {
        require_unchanged(files);
        if (device_.kept_.heed_memory(files, device_.readers_)) {
            device_.forget_kept();
        }
        if (known_for_ != device_.kept_changed_) {
            known_.clear();
            known_for_ = device_.kept_changed_;
        }
        const Cutting &cutting = cutting_of(graph);
        device_.ring_.begin(files, cutting.cycle, device_.readers_);
        for (const Planned &planned : cutting.segments) {
            const Segment &segment = planned.segment;
            ++count.segments;
            Landing *slot = nullptr;
            if (!segment.ranges.empty()) {
                const auto began = std::chrono::steady_clock::now();
                slot = &device_.ring_.take();
                count.waited +=
                    std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
            }
            bring_sound(planned, slot);
            ggml_status status = GGML_STATUS_SUCCESS;
            {
                Bound bound;
                if (segment.kind == Kind::Run) {
                    for (const Use &use : planned.uses) {
                        const Range &range = use.weight->range;
                        char *data = use.weight->kept != nullptr ? use.weight->kept
                                                                 : slot->address(range.file, range.offset);
                        bound.set(use.tensor, data + use.offset);
                    }
                    status = run(graph, segment);
                } else if (segment.kind == Kind::Rows) {
                    status = pick_rows(graph, planned);
                } else {
                    ++count.splits;
                    status = split(graph, segment,
                                   slot->address(segment.ranges[0].file, segment.ranges[0].offset));
                }
            }
            if (status != GGML_STATUS_SUCCESS) {
                device_.ring_.restart();
                return status;
            }
            if (slot != nullptr) {
                slot->check();
                for (const Range &range : segment.ranges) {
                    count.read += range.size;
                }
                device_.ring_.give_back(files, device_.readers_);
            }
        }
        // What was read since may be of another model.
        require_unchanged(files);
    } catch (...) {
        device_.ring_.restart();
        device_.forget_kept();
        throw;
    }
    return GGML_STATUS_SUCCESS;
}

}  // namespace floatllm::stream

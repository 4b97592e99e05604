#include "graph.h"

#include <algorithm>

#include "error.h"
#include "slot.h"

namespace floatllm {

bool operator==(const PassShape &a, const PassShape &b) {
    const auto same = [](const Segment &x, const Segment &y) {
        return x.sequence == y.sequence && x.first == y.first && x.count == y.count && x.cells == y.cells;
    };
    return a.tokens == b.tokens && a.positions == b.positions && a.outputs == b.outputs &&
           std::equal(a.segments.begin(), a.segments.end(), b.segments.begin(), b.segments.end(), same);
}

GraphBuilder::GraphBuilder(const Plan &plan, const State &state, uint64_t tensors)
    : plan_(plan), state_(state), tensors_(static_cast<size_t>(tensors > 0 ? tensors : plan.graph_tensors)) {
    memory_.resize(tensors_ * ggml_tensor_overhead() + ggml_graph_overhead_custom(tensors_, false) + 1024);
}

GraphBuilder::~GraphBuilder() { ggml_free(context_); }

ggml_context *GraphBuilder::reset() {
    ggml_free(context_);
    context_ = ggml_init({memory_.size(), memory_.data(), /*no_alloc*/ true});
    graph_ = ggml_new_graph_custom(context_, tensors_, false);
    latest_.fill(nullptr);
    return context_;
}

ggml_tensor *GraphBuilder::over(ggml_type type, int64_t ne0, int64_t ne1, const Region &region,
                                uint64_t begin) {
    ggml_tensor *tensor = ggml_new_tensor_2d(context_, type, ne0, ne1);
    write(tensor, {region.offset + begin, region.size - begin});
    return tensor;
}

// Puts the result of `node` at a region of the activation buffer.
void GraphBuilder::write(ggml_tensor *node, const Region &region) {
    if (state_.activations == nullptr) {
        return;
    }
    char *base = static_cast<char *>(ggml_backend_buffer_get_base(state_.activations));
    if (ggml_backend_tensor_alloc(state_.activations, node, base + region.offset) != GGML_STATUS_SUCCESS) {
        throw Error(FLOATLLM_ERROR_ENGINE, "The device refused an activation.");
    }
}

ggml_tensor *GraphBuilder::act(Act act, int64_t positions) {
    const size_t index = static_cast<size_t>(act);
    ggml_tensor *latest = latest_[index];
    const int64_t rows = plan_.program.rows[index];
    return latest != nullptr && latest->ne[0] == rows && latest->ne[1] == positions
               ? latest
               : over(GGML_TYPE_F32, rows, positions, plan_.layout.act[index]);
}

void GraphBuilder::wrote(Act act, ggml_tensor *node) {
    latest_[static_cast<size_t>(act)] = node;
    add(node);
}

// K or V of one layer, [rows, cells of all sequences]; V lies behind K.
ggml_tensor *GraphBuilder::kv(int layer, bool value) {
    const Dims &d = plan_.program.dims;
    const uint64_t cells = uint64_t{plan_.cells} * plan_.sequences;
    const uint64_t k_bytes = kv_layer_bytes(plan_, false);
    const uint64_t v_bytes = kv_layer_bytes(plan_, true);
    const uint64_t offset =
        (static_cast<uint64_t>(layer) - plan_.first_layer) * (k_bytes + v_bytes) + (value ? k_bytes : 0);
    ggml_tensor *tensor = ggml_new_tensor_2d(context_, plan_.kv_type, value ? d.v_rows() : d.k_rows(),
                                             static_cast<int64_t>(cells));
    if (state_.kv == nullptr) {
        return tensor;
    }
    char *base = static_cast<char *>(ggml_backend_buffer_get_base(state_.kv));
    if (ggml_backend_tensor_alloc(state_.kv, tensor, base + offset) != GGML_STATUS_SUCCESS) {
        throw Error(FLOATLLM_ERROR_ENGINE, "The device refused the KV cache.");
    }
    return tensor;
}

// Appends a node and what it needs.
void GraphBuilder::add(ggml_tensor *node) { ggml_build_forward_expand(graph_, node); }

ggml_cgraph *GraphBuilder::build(const Chunk &chunk, const std::vector<ggml_tensor *> &weights,
                                 const PassShape &shape) {
    const auto weight_of = [&](const Op &op, const Step &step) -> ggml_tensor * {
        for (size_t i = 0; op.weight >= 0 && i < chunk.parts.size(); ++i) {
            if (chunk.parts[i].tensor == op.weight &&
                (op.rows == 0 || chunk.parts[i].row_begin == step.row_begin)) {
                return weights[i];
            }
        }
        return nullptr;
    };
    for (const Step &step : chunk.steps) {
        const Op &op = plan_.program.ops[static_cast<size_t>(step.op)];
        if (shape.outputs == 0 && (op.gathered || op.kind == OpKind::Gather)) {
            continue;
        }
        ggml_tensor *weight = weight_of(op, step);
        const int64_t positions = op.gathered ? shape.outputs : shape.positions;
        switch (op.kind) {
            case OpKind::Norm:
                norm(op, weight, positions);
                break;
            case OpKind::MatMul:
                matmul(op, step, weight, positions);
                break;
            case OpKind::Attention:
                attention(op, weight, shape);
                break;
            case OpKind::Add:
                wrote(op.out, ggml_add_inplace(context_, act(op.out, positions), act(op.in, positions)));
                break;
            case OpKind::Bias:
                wrote(op.out, ggml_add_inplace(context_, act(op.out, positions), weight));
                break;
            case OpKind::HeadNorm: {
                ggml_tensor *whole = act(op.out, positions);
                ggml_tensor *heads = ggml_reshape_3d(context_, whole, weight->ne[0],
                                                     whole->ne[0] / weight->ne[0], whole->ne[1]);
                add(ggml_mul_inplace(context_, ggml_rms_norm_inplace(context_, heads, plan_.program.dims.eps),
                                     weight));
                break;
            }
            case OpKind::SwiGlu:
            case OpKind::GeGlu: {
                ggml_tensor *gate = act(Act::Gate, positions);
                ggml_tensor *up = act(Act::Up, positions);
                ggml_tensor *hidden = op.kind == OpKind::SwiGlu ? ggml_swiglu_split(context_, gate, up)
                                                                : ggml_geglu_split(context_, gate, up);
                write(hidden, plan_.layout.act[static_cast<size_t>(Act::Hidden)]);
                wrote(Act::Hidden, hidden);
                break;
            }
            case OpKind::Gather: {
                ggml_tensor *wanted = over(GGML_TYPE_I32, shape.outputs, 1, plan_.layout.wanted);
                ggml_tensor *rows = ggml_get_rows(context_, act(op.in, positions), wanted);
                write(rows, plan_.layout.act[static_cast<size_t>(op.out)]);
                wrote(op.out, rows);
                break;
            }
            case OpKind::Touch:
            case OpKind::Peek:
                break;
        }
    }
    for (int i = 0; i < ggml_graph_n_nodes(graph_) && state_.activations != nullptr; ++i) {
        ggml_tensor *node = ggml_graph_node(graph_, i);
        if (node->view_src != nullptr && node->buffer == nullptr &&
            ggml_backend_view_init(node) != GGML_STATUS_SUCCESS) {
            throw Error(FLOATLLM_ERROR_ENGINE, "The device refused a view.");
        }
    }
    return graph_;
}

void GraphBuilder::norm(const Op &op, ggml_tensor *weight, int64_t positions) {
    ggml_tensor *normed = ggml_rms_norm(context_, act(op.in, positions), plan_.program.dims.eps);
    write(normed, plan_.layout.act[static_cast<size_t>(Act::Normed)]);
    ggml_tensor *scaled = ggml_mul(context_, normed, weight);
    write(scaled, plan_.layout.act[static_cast<size_t>(op.out)]);
    wrote(op.out, scaled);
}

void GraphBuilder::matmul(const Op &op, const Step &step, ggml_tensor *weight, int64_t positions) {
    ggml_tensor *in = act(op.in, positions);
    ggml_tensor *product = ggml_mul_mat(context_, weight, in);
    const Region &region = plan_.layout.act[static_cast<size_t>(op.out)];
    const int64_t rows = step.row_end - step.row_begin;
    const uint64_t begin = static_cast<uint64_t>(step.row_begin - op.row_first) * sizeof(float);
    if (rows == op.rows || positions == 1) {
        write(product, {region.offset + begin, region.size});
        wrote(op.out, product);
        return;
    }
    // Rows of several positions are not contiguous in the whole: compute aside, then copy in.
    write(product, plan_.layout.slice);
    ggml_tensor *whole = over(GGML_TYPE_F32, op.rows, positions, region);
    ggml_tensor *place =
        ggml_view_2d(context_, whole, rows, positions, whole->nb[1], static_cast<size_t>(begin));
    add(ggml_cpy(context_, product, place));
    latest_[static_cast<size_t>(op.out)] = nullptr;
}

void GraphBuilder::attention(const Op &op, ggml_tensor *factors, const PassShape &shape) {
    const Dims &d = plan_.program.dims;
    const int64_t n = shape.positions;
    const Layout &layout = plan_.layout;
    ggml_tensor *positions = over(GGML_TYPE_I32, n, 1, layout.positions);
    // Padding is not kept.
    ggml_tensor *cells = over(GGML_TYPE_I64, shape.tokens, 1, layout.cells);
    const bool windowed = d.windowed(*plan_.program.arch, op.layer);
    const Region &masks = windowed ? layout.near : layout.mask;
    // In place by its address, not as a view, so that a device may join it with what follows.
    const auto rope = [&](Act act, uint32_t count) {
        ggml_tensor *turned =
            ggml_rope_ext(context_, ggml_reshape_3d(context_, this->act(act, n), d.head_k, count, n),
                          positions, factors, static_cast<int>(d.rot), plan_.program.arch->rope_mode,
                          static_cast<int>(d.ctx_orig), windowed ? d.window_rope_base : d.rope_base,
                          windowed ? 1.0f : d.rope_scale, 0.0f, d.rope_attention, 32.0f, 1.0f);
        write(turned, layout.act[static_cast<size_t>(act)]);
        return turned;
    };
    ggml_tensor *q = rope(Act::Q, d.heads);
    ggml_tensor *k = rope(Act::K, d.kv_heads);
    ggml_tensor *k_cache = kv(op.layer, false);
    ggml_tensor *v_cache = kv(op.layer, true);
    ggml_tensor *k_rows = ggml_view_2d(context_, k, d.k_rows(), shape.tokens, d.k_rows() * sizeof(float), 0);
    if (shape.tokens < n) {
        // CUDA joins turning and writing, and would write the padding too.
        add(k);
        k_rows = over(GGML_TYPE_F32, d.k_rows(), shape.tokens, layout.act[static_cast<size_t>(Act::K)]);
    }
    add(ggml_set_rows(context_, k_cache, k_rows, cells));
    add(ggml_set_rows(context_, v_cache, act(Act::V, shape.tokens), cells));
    // Heads of some cells of one sequence. This reads the cache itself, not set_rows' result: the graph's
    // order puts the writes first.
    const auto heads = [&](ggml_tensor *cache, uint32_t head, const Segment &segment) {
        ggml_tensor *view =
            ggml_view_3d(context_, cache, head, d.kv_heads, segment.cells, ggml_row_size(cache->type, head),
                         cache->nb[1], cache->nb[1] * segment.sequence * plan_.cells);
        return ggml_permute(context_, view, 0, 2, 1, 3);
    };
    for (const Segment &segment : shape.segments) {
        ggml_tensor *own = ggml_view_3d(context_, q, d.head_k, d.heads, segment.count, q->nb[1], q->nb[2],
                                        static_cast<size_t>(segment.first) * q->nb[2]);
        ggml_tensor *mask = over(GGML_TYPE_F16, segment.cells, segment.count, masks,
                                 sizeof(ggml_fp16_t) * static_cast<uint64_t>(segment.mask));
        ggml_tensor *attended = ggml_flash_attn_ext(
            context_, ggml_permute(context_, own, 0, 2, 1, 3), heads(k_cache, d.head_k, segment),
            heads(v_cache, d.head_v, segment), mask, d.query_scale, 0.0f, 0.0f);
        ggml_prec_set_acc(attended, GGML_PREC_F32);
        const Region &att = layout.act[static_cast<size_t>(Act::Att)];
        const uint64_t begin = static_cast<uint64_t>(segment.first) * d.att_rows() * sizeof(float);
        // Some kernels keep scratch behind their result; the next activation must not lie there.
        if (state_.activations != nullptr &&
            ggml_backend_buft_get_alloc_size(ggml_backend_buffer_get_type(state_.activations), attended) >
                att.size - begin) {
            throw Error(FLOATLLM_ERROR_ENGINE,
                        "The device needs more memory for attention than was planned. "
                        "Plan with the KV cache in f16.");
        }
        write(attended, {att.offset + begin, att.size - begin});
        add(attended);
    }
}

ggml_cgraph *GraphBuilder::build_touch(const Step &step, ggml_tensor *weight) {
    const Op &op = plan_.program.ops[static_cast<size_t>(step.op)];
    if (op.kind != OpKind::Touch) {
        return nullptr;
    }
    const int64_t rows = step.row_end - step.row_begin;
    ggml_tensor *flat = ggml_reshape_2d(context_, weight, weight->ne[0], rows);
    ggml_tensor *sums =
        ggml_mul_mat(context_, flat, over(GGML_TYPE_F32, weight->ne[0], 1, plan_.layout.ones));
    write(sums, plan_.layout.sums);
    ggml_graph_clear(graph_);
    add(sums);
    if (flat->buffer == nullptr && ggml_backend_view_init(flat) != GGML_STATUS_SUCCESS) {
        throw Error(FLOATLLM_ERROR_ENGINE, "The device refused a view.");
    }
    return graph_;
}

void require_operations(const Plan &plan) {
    if (plan.program.arch == nullptr) {
        return;
    }
    ggml_backend_dev_t device = find_device(plan.device.name);
    std::vector<std::pair<int64_t, int64_t>> sizes = {{1, plan.cells}, {plan.width, plan.cells}};
    if (plan.attention_block > 0 && plan.width > 1) {
        sizes.emplace_back(std::min(plan.width, plan.attention_block), kTileCells);
    }
    for (const auto &[width, cells] : sizes) {
        const PassShape shape{{{0, 0, width, cells, 0}}, width, width, 1};
        GraphBuilder builder(plan, State{nullptr, nullptr});
        for (const Chunk &chunk : plan.chunks) {
            ggml_context *context = builder.reset();
            std::vector<ggml_tensor *> weights;
            for (const Part &part : chunk.parts) {
                weights.push_back(
                    part_tensor(context, plan.model->tensors()[static_cast<size_t>(part.tensor)], part));
            }
            ggml_cgraph *graph = builder.build(chunk, weights, shape);
            const ggml_tensor *lacking = first_unsupported(device, graph);
            if (lacking != nullptr) {
                const Op &first = plan.program.ops[static_cast<size_t>(chunk.steps.front().op)];
                const std::string where = first.layer < 0 ? "" : format(", from layer %d on", first.layer);
                throw Error(
                    FLOATLLM_ERROR_ENGINE,
                    format("%s cannot compute %s%s. Choose another --device, or another conversion of "
                           "the model.",
                           plan.device.name.c_str(), operation_text(lacking).c_str(), where.c_str()));
            }
        }
    }
}

}  // namespace floatllm

#include "graph.h"

#include <algorithm>

#include "error.h"

namespace floatllm {

bool operator==(const PassShape &a, const PassShape &b) {
    const auto same = [](const Segment &x, const Segment &y) {
        return x.sequence == y.sequence && x.first == y.first && x.count == y.count && x.cells == y.cells;
    };
    return a.tokens == b.tokens && a.positions == b.positions && a.outputs == b.outputs &&
           std::equal(a.segments.begin(), a.segments.end(), b.segments.begin(), b.segments.end(), same);
}

GraphBuilder::GraphBuilder(const Plan &plan, const State &state) : plan_(plan), state_(state) {
    const size_t tensors = static_cast<size_t>(plan.graph_tensors);
    memory_.resize(tensors * ggml_tensor_overhead() + ggml_graph_overhead_custom(tensors, false) + 1024);
}

GraphBuilder::~GraphBuilder() { ggml_free(context_); }

ggml_context *GraphBuilder::reset() {
    ggml_free(context_);
    context_ = ggml_init({memory_.size(), memory_.data(), /*no_alloc*/ true});
    graph_ = ggml_new_graph_custom(context_, static_cast<size_t>(plan_.graph_tensors), false);
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
    char *base = static_cast<char *>(ggml_backend_buffer_get_base(state_.activations));
    if (ggml_backend_tensor_alloc(state_.activations, node, base + region.offset) != GGML_STATUS_SUCCESS) {
        throw Error(FLOATLLM_ERROR_ENGINE, "The device refused an activation.");
    }
}

ggml_tensor *GraphBuilder::act(Act act, int64_t positions) {
    const size_t index = static_cast<size_t>(act);
    return over(GGML_TYPE_F32, plan_.program.rows[index], positions, plan_.layout.act[index]);
}

// K or V of one layer, [rows, cells of all sequences]; V lies behind K.
ggml_tensor *GraphBuilder::kv(int layer, bool value) {
    const Dims &d = plan_.program.dims;
    const uint64_t cells = uint64_t{plan_.cells} * plan_.sequences;
    const uint64_t k_bytes = kv_layer_bytes(plan_, false);
    const uint64_t v_bytes = kv_layer_bytes(plan_, true);
    const uint64_t offset = static_cast<uint64_t>(layer) * (k_bytes + v_bytes) + (value ? k_bytes : 0);
    ggml_tensor *tensor = ggml_new_tensor_2d(context_, plan_.kv_type, value ? d.v_rows() : d.k_rows(),
                                             static_cast<int64_t>(cells));
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
                add(ggml_add_inplace(context_, act(op.out, positions), act(op.in, positions)));
                break;
            case OpKind::Bias:
                add(ggml_add_inplace(context_, act(op.out, positions), weight));
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
                add(hidden);
                break;
            }
            case OpKind::Gather: {
                ggml_tensor *wanted = over(GGML_TYPE_I32, shape.outputs, 1, plan_.layout.wanted);
                ggml_tensor *rows = ggml_get_rows(context_, act(op.in, positions), wanted);
                write(rows, plan_.layout.act[static_cast<size_t>(op.out)]);
                add(rows);
                break;
            }
            case OpKind::Touch:
            case OpKind::Peek:
                break;
        }
    }
    for (int i = 0; i < ggml_graph_n_nodes(graph_); ++i) {
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
    add(scaled);
}

void GraphBuilder::matmul(const Op &op, const Step &step, ggml_tensor *weight, int64_t positions) {
    ggml_tensor *in = act(op.in, positions);
    ggml_tensor *product = ggml_mul_mat(context_, weight, in);
    const Region &region = plan_.layout.act[static_cast<size_t>(op.out)];
    const int64_t rows = step.row_end - step.row_begin;
    const uint64_t begin = static_cast<uint64_t>(step.row_begin - op.row_first) * sizeof(float);
    if (rows == op.rows || positions == 1) {
        write(product, {region.offset + begin, region.size});
        add(product);
        return;
    }
    // Rows of several positions are not contiguous in the whole: compute aside, then copy in.
    write(product, plan_.layout.slice);
    ggml_tensor *whole = over(GGML_TYPE_F32, op.rows, positions, region);
    ggml_tensor *place =
        ggml_view_2d(context_, whole, rows, positions, whole->nb[1], static_cast<size_t>(begin));
    add(ggml_cpy(context_, product, place));
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
    const auto rope = [&](ggml_tensor *heads) {
        return ggml_rope_ext_inplace(context_, heads, positions, factors, static_cast<int>(d.rot),
                                     plan_.program.arch->rope_mode, static_cast<int>(d.ctx_orig),
                                     windowed ? d.window_rope_base : d.rope_base,
                                     windowed ? 1.0f : d.rope_scale, 0.0f, d.rope_attention, 32.0f, 1.0f);
    };
    ggml_tensor *q = rope(ggml_reshape_3d(context_, act(Act::Q, n), d.head_k, d.heads, n));
    ggml_tensor *k = rope(ggml_reshape_3d(context_, act(Act::K, n), d.head_k, d.kv_heads, n));
    ggml_tensor *k_cache = kv(op.layer, false);
    ggml_tensor *v_cache = kv(op.layer, true);
    ggml_tensor *k_rows = ggml_view_2d(context_, k, d.k_rows(), shape.tokens, d.k_rows() * sizeof(float), 0);
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
        ggml_flash_attn_ext_set_prec(attended, GGML_PREC_F32);
        const Region &att = layout.act[static_cast<size_t>(Act::Att)];
        const uint64_t begin = static_cast<uint64_t>(segment.first) * d.att_rows() * sizeof(float);
        // Some kernels keep scratch behind their result; the next activation must not lie there.
        if (ggml_backend_buft_get_alloc_size(ggml_backend_buffer_get_type(state_.activations), attended) >
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

}  // namespace floatllm

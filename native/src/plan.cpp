#include "plan.h"

#include <algorithm>
#include <stdexcept>

#include "cut.h"
#include "damage.h"
#include "error.h"

namespace floatllm {

namespace {

constexpr uint64_t kGraphTensorBytes = 512;
constexpr uint32_t kDefaultCtx = 4096;
constexpr uint64_t kLeastSlot = uint64_t{1} << 20;
constexpr uint64_t kMostSlot = uint64_t{32} << 20;
constexpr uint64_t kMostRepackBlock = uint64_t{4} << 20;

unsigned long long ull(uint64_t value) { return value; }

// CUDA puts what attention sees of a quantised cache behind its result, as F16 and aligned.
uint64_t attention_scratch(const Plan &plan) {
    const Dims &d = plan.program.dims;
    const bool copied =
        plan.program.arch != nullptr && !plan.device.maps_host && ggml_is_quantized(plan.kv_type);
    return copied ? sizeof(ggml_fp16_t) * plan.cells * (uint64_t{d.k_rows()} + d.v_rows()) + 2 * kLayoutAlign
                  : 0;
}

// Beside the ring, what is computed in turn takes the room of a slot where it is repacked.
uint64_t slots_taken(const Plan &plan) {
    return plan.slots + (plan.slots > 0 && plan.repack_block > 0 ? 1 : 0);
}

class Planner {
  public:
    Planner(std::shared_ptr<const GgufFile> model, const DeviceFacts &device, const PlanRequest &request)
        : request_(request) {
        plan_.model = std::move(model);
        plan_.device = device;
        plan_.mode = request.mode;
        plan_.budget = request.budget;
        plan_.threads = request.threads;

        plan_.program =
            request.mode == FLOATLLM_MODE_MAP ? map_program(*plan_.model) : forward_program(*plan_.model);
        for (const Tensor &t : plan_.model->tensors()) {
            weights_ += t.size;
        }
        const bool forward = plan_.program.arch != nullptr;
        plan_.sequences = request.sequences;
        plan_.outputs = request.outputs;
        plan_.kv_type = request.kv;
        check_kv();
        plan_.width = !forward ? 1 : request.width > 0 ? request.width : pass_width(plan_.program, weights_);
        set_grains(request.uniform && forward);
        plan_.attention_block = device.cpu ? kAttentionBlock : 0;
        plan_.segments = plan_.sequences + (device.cpu ? plan_.width / kAttentionBlock : 0);
        plan_.repack_block = smallest_repack(*plan_.model, plan_.program, device);
        smallest_ = smallest_chunk(*plan_.model, plan_.program, device);
    }

    Plan make() {
        if (plan_.program.ops.empty()) {
            throw Error(FLOATLLM_ERROR_MODEL, format("%s holds no tensors, so there is nothing to map.",
                                                     plan_.model->path().c_str()));
        }
        if (request_.chunk > 0 && request_.chunk < smallest_) {
            throw Error(
                FLOATLLM_ERROR_USAGE,
                format(
                    "A chunk of %s is too small: the largest piece of this model that cannot be cut takes %llu "
                    "bytes.",
                    human_size(request_.chunk).c_str(), static_cast<unsigned long long>(smallest_)));
        }
        choose_context();
        enlarge_repack_block();
        // Row slices need a scratch region, which in turn leaves less for chunks: plan without, then with.
        for (const bool sliced : {false, true}) {
            share(plan_.ctx, sliced);
            cut();
            if (!cuts_rows()) {
                break;
            }
        }
        pin();
        return std::move(plan_);
    }

  private:
    void set_grains(bool uniform) {
        plan_.position_grain = plan_.output_grain = 1;
        if (!uniform) {
            return;
        }
        const uint32_t grain = plan_.device.column_grain;
        if (grain == 0 && request_.width == 0) {
            plan_.width = std::min(plan_.width, kUniformWidth);
        }
        if (grain > 0) {
            plan_.width = static_cast<uint32_t>(round_up(plan_.width, grain));
        }
        plan_.outputs = static_cast<uint32_t>(round_up(plan_.outputs, grain > 0 ? grain : kUniformOutputs));
        plan_.outputs = std::min(plan_.outputs, plan_.width);
        plan_.position_grain = grain > 0 ? grain : plan_.width;
        plan_.output_grain = grain > 0 ? grain : plan_.outputs;
    }

    // Sets ctx to the largest that leaves room for the smallest chunk, or throws.
    void choose_context() {
        if (plan_.program.arch == nullptr) {
            plan_.ctx = 0;
            share(0, true);
            if (room() < least() || !host_fits()) {
                too_small();
            }
            return;
        }
        uint64_t ctx = request_.ctx;
        if (ctx == 0) {
            plan_.cells = kKvGrain;
            const uint64_t quarter = limit() / 4 / (kv_bytes() / kKvGrain);
            ctx = std::min<uint64_t>({kDefaultCtx, round_up(plan_.program.dims.ctx_train, kKvGrain),
                                      quarter / kKvGrain * kKvGrain});
            ctx = std::max<uint64_t>(ctx, kKvGrain);
        }
        // The long factors of longrope are not computed; the short ones hold up to the original context.
        if (plan_.model->tensor_index("rope_factors_short.weight") >= 0) {
            const uint64_t most = plan_.program.dims.ctx_orig;
            if (request_.ctx > most) {
                throw Error(
                    FLOATLLM_ERROR_USAGE,
                    format(
                        "This engine computes this model up to its original context of %llu positions only.",
                        ull(most)));
            }
            ctx = std::min(ctx, std::max<uint64_t>(most, 1));
        }
        if (ctx > INT32_MAX / 2 || !kv_fits(static_cast<uint32_t>(ctx))) {
            throw Error(FLOATLLM_ERROR_USAGE, format("A context of %llu positions is not possible.",
                                                     static_cast<unsigned long long>(ctx)));
        }
        for (;; ctx -= kKvGrain) {
            share(static_cast<uint32_t>(ctx), true);
            if (room() >= least() && host_fits()) {
                break;
            }
            if (request_.ctx > 0 || ctx <= kKvGrain) {
                too_small();
            }
        }
        plan_.ctx = static_cast<uint32_t>(ctx);
    }

    // Bytes that the largest piece takes where nothing else is held, beside itself repacked.
    uint64_t least() const { return (plan_.repack_block > 0 ? 2 : 1) * smallest_; }

    [[noreturn]] void too_small() {
        const uint64_t kib = 1024;
        const uint64_t needed = round_up(fixed() + least(), kib);
        const bool device_binds = fixed() + least() > plan_.device.memory_free && !plan_.device.maps_host;
        throw Error(
            FLOATLLM_ERROR_ENGINE,
            format(
                "%s of memory (%s) is too small for %s: the smallest that works is %lluK (%s). It takes %s of KV "
                "cache for %u positions, %s of activations, %s of bookkeeping and scratch, and %s for the largest "
                "piece of a weight. %s%s.",
                human_size(limit()).c_str(),
                device_binds ? (plan_.device.name + "'s free memory").c_str() : plan_.budget.source.c_str(),
                plan_.model->path().c_str(), static_cast<unsigned long long>(needed / kib),
                human_size(needed).c_str(), human_size(plan_.memory.kv).c_str(), plan_.cells,
                human_size(plan_.memory.activations).c_str(),
                human_size(plan_.memory.metadata + plan_.memory.graph + plan_.memory.staging).c_str(),
                human_size(least()).c_str(),
                request_.explicit_budget ? "Give more memory" : "Close other programs, or raise the limit",
                request_.ctx > kKvGrain ? ", or take a smaller context" : ""));
    }

    // A block of the cache lies within one head.
    void check_kv() const {
        const Dims &d = plan_.program.dims;
        const uint32_t block = static_cast<uint32_t>(ggml_blck_size(plan_.kv_type));
        if (plan_.program.arch != nullptr && (d.head_k % block != 0 || d.head_v % block != 0)) {
            throw Error(FLOATLLM_ERROR_USAGE,
                        format("A KV cache in %s holds blocks of %u numbers, and the heads of this model are "
                               "%u and %u wide. Plan with the KV cache in f16.",
                               ggml_type_name(plan_.kv_type), block, d.head_k, d.head_v));
        }
    }

    // Whether the size of the cache can be told in 64 bits, with room to add to it.
    bool kv_fits(uint32_t ctx) const {
        const Dims &d = plan_.program.dims;
        const double rows = static_cast<double>(d.k_rows()) + d.v_rows();
        return 2.0 * (static_cast<double>(ctx) + kKvGrain) * plan_.sequences * d.layers * rows < 1e18;
    }

    uint64_t kv_bytes() const {
        return plan_.program.arch == nullptr
                   ? 0
                   : plan_.program.dims.layers * (kv_layer_bytes(plan_, false) + kv_layer_bytes(plan_, true));
    }

    // Chunks of the whole model at once where it fits, else of the size of a ring's slot.
    void cut() {
        const uint64_t all = room();
        plan_.chunks = cut_program(*plan_.model, plan_.program, plan_.device, plan_.segments, all);
        uint64_t total = 0;
        for (const Chunk &c : plan_.chunks) {
            total += cost(c);
        }
        plan_.slots = 0;
        if (request_.chunk == 0 && total <= all) {
            return;
        }
        uint64_t slot = request_.chunk;
        if (slot == 0) {
            // Small slots leave more to pin, large ones let the disk read in one go.
            const bool map = plan_.mode == FLOATLLM_MODE_MAP;
            slot = std::min(std::max(all / (map ? 3 : 8), kLeastSlot), map ? 2 * kMostSlot : kMostSlot);
        }
        slot = std::max(slot, smallest_);
        // One slot computes while the others fill; a device with memory of its own is filled in turn.
        plan_.slots = plan_.device.maps_host ? 3 : 1;
        while (plan_.slots > 1 && slots_taken(plan_) * slot > all) {
            --plan_.slots;
            if (plan_.slots == 2) {
                slot = std::max(smallest_, std::min(slot, all / slots_taken(plan_)));
            }
        }
        slot_bytes_ = std::min(slot, all / slots_taken(plan_));
        plan_.chunks = cut_program(*plan_.model, plan_.program, plan_.device, plan_.segments, slot_bytes_);
    }

    // Chooses the chunks that stay, spread evenly so that the disk never waits for a run of them to be
    // computed, and sums up.
    void pin() {
        uint64_t total = 0;
        for (const Chunk &c : plan_.chunks) {
            total += cost(c);
        }
        uint64_t left = plan_.slots == 0 ? total
                        : request_.chunk > 0 || plan_.mode == FLOATLLM_MODE_MAP
                            ? 0
                            : room() - std::min(room(), slots_taken(plan_) * slot_bytes_);
        const double share = total == 0 ? 0 : static_cast<double>(left) / static_cast<double>(total);
        double due = 0;
        for (Chunk &c : plan_.chunks) {
            const uint64_t bytes = cost(c);
            due += share * static_cast<double>(bytes);
            c.pinned = plan_.slots == 0 || (bytes <= left && due >= static_cast<double>(bytes));
            if (c.pinned) {
                due -= static_cast<double>(bytes);
                left -= bytes;
                plan_.memory.pinned += bytes;
            }
        }
        for (Chunk &c : plan_.chunks) {
            const uint64_t bytes = cost(c);
            if (!c.pinned && bytes <= left) {
                c.pinned = true;
                left -= bytes;
                plan_.memory.pinned += bytes;
            }
        }
        plan_.memory.ring = slots_taken(plan_) * ring_slot_bytes(plan_);
        // Uploads go through mapped windows.
        const bool chosen = plan_.device.maps_host && (request_.explicit_io || plan_.slots > 0);
        plan_.io = chosen ? request_.io : IoMode::Mmap;
    }

    // Computes every share but those of the chunks.
    void share(uint32_t ctx, bool sliced) {
        const Program &program = plan_.program;
        plan_.cells = static_cast<uint32_t>(round_up(ctx, kKvGrain));
        plan_.layout =
            lay_out(program, {plan_.width, plan_.outputs, plan_.cells, sliced, attention_scratch(plan_)});
        plan_.graph_tensors = 0;
        for (const Op &op : program.ops) {
            plan_.graph_tensors += graph_tensors(op.kind, plan_.segments);
        }
        plan_.graph_tensors = std::min<uint64_t>(plan_.graph_tensors, kMostGraphTensors) + 64;
        MemoryShares &m = plan_.memory;
        m.metadata = kSearchBytes + plan_.model->heap_bytes() + plan_.graph_tensors * kGraphTensorBytes +
                     2 * program.ops.size() * (sizeof(Op) + sizeof(Step) + sizeof(Part) + 2 * sizeof(Extent));
        m.kv = kv_bytes();
        // Embedding rows are decoded on the host, the mask is filled there.
        m.activations = plan_.layout.bytes + uint64_t{program.rows[0]} * plan_.width * sizeof(float) +
                        plan_.layout.mask.size;
        // Logits are looked at one position at a time where the host does not reach them.
        m.activations +=
            plan_.device.maps_host ? 0 : program.rows[static_cast<size_t>(Act::Logits)] * sizeof(float);
        m.graph = kernel_scratch(program, plan_.width, plan_.threads);
        m.staging = plan_.device.maps_host ? kReaders * plan_.repack_block : kStagingWindow;
        m.pinned = m.ring = 0;
    }

    // Larger blocks read faster; all of them together take a small share of what is to spare.
    void enlarge_repack_block() {
        if (plan_.repack_block > 0) {
            const uint64_t spare = (room() - std::min(room(), least())) / (8 * kReaders);
            plan_.repack_block =
                std::max(plan_.repack_block, std::min(kMostRepackBlock, plan_.repack_block + spare) /
                                                 os::kDirectAlignment * os::kDirectAlignment);
        }
    }

    // The bound on everything together, and the part of it that is spoken for.
    uint64_t limit() const {
        if (plan_.device.maps_host) {
            return plan_.budget.bytes;
        }
        const uint64_t device = plan_.device.memory_free - plan_.device.memory_free / 20;
        return request_.explicit_budget ? std::min(plan_.budget.bytes, device) : device;
    }

    uint64_t fixed() const {
        const MemoryShares &m = plan_.memory;
        const bool host_too = plan_.device.maps_host || request_.explicit_budget;
        return m.kv + m.activations + (host_too ? m.metadata + m.graph + m.staging : 0);
    }

    // A device with memory of its own still needs the host for what is not on it.
    bool host_fits() const {
        const MemoryShares &m = plan_.memory;
        return plan_.device.maps_host ||
               m.metadata + m.graph + m.staging + m.activations <= plan_.budget.bytes;
    }

    uint64_t room() const { return limit() > fixed() ? limit() - fixed() : 0; }

    uint64_t cost(const Chunk &chunk) const { return chunk_cost(plan_.device, chunk); }

    bool cuts_rows() const {
        for (const Chunk &c : plan_.chunks) {
            for (const Step &s : c.steps) {
                const Op &op = plan_.program.ops[static_cast<size_t>(s.op)];
                if (op.kind == OpKind::MatMul && s.row_end - s.row_begin < op.rows) {
                    return true;
                }
            }
        }
        return false;
    }

    const PlanRequest &request_;
    Plan plan_{};
    uint64_t weights_ = 0;
    uint64_t smallest_ = 0;
    uint64_t slot_bytes_ = 0;
};

}  // namespace

uint64_t kv_layer_bytes(const Plan &plan, bool value) {
    const Dims &d = plan.program.dims;
    const uint64_t row = ggml_row_size(plan.kv_type, value ? d.v_rows() : d.k_rows());
    // CUDA writes zeros behind a quantised tensor; no other may lie there.
    const bool padded = ggml_is_quantized(plan.kv_type) && !plan.device.maps_host;
    return row * plan.cells * plan.sequences +
           (padded ? round_up(plan.device.tensor_slack, kLayoutAlign) : 0);
}

Plan make_plan(std::shared_ptr<const GgufFile> model, const DeviceFacts &device, const PlanRequest &request) {
    return Planner(std::move(model), device, request).make();
}

uint64_t ring_slot_bytes(const Plan &plan) {
    uint64_t widest = 0;
    for (const Chunk &c : plan.chunks) {
        widest = std::max(widest, chunk_cost(plan.device, c));
    }
    return widest;
}

Plan plan_over(const Plan &plan, std::vector<Chunk> chunks, uint32_t slots) {
    Plan small = plan;
    small.ctx = small.cells = kKvGrain;
    small.width = small.sequences = small.outputs = small.position_grain = small.output_grain = 1;
    small.slots = slots;
    small.trial = true;
    small.layout = lay_out(plan.program, {1, 1, kKvGrain, true, attention_scratch(small)});
    uint32_t layers = 1;
    for (const Chunk &chunk : chunks) {
        for (const Step &step : chunk.steps) {
            const Op &op = plan.program.ops[static_cast<size_t>(step.op)];
            layers = std::max(layers, static_cast<uint32_t>(op.layer + 1));
        }
    }
    small.memory.kv = layers * (kv_layer_bytes(small, false) + kv_layer_bytes(small, true));
    small.chunks = std::move(chunks);
    return small;
}

}  // namespace floatllm

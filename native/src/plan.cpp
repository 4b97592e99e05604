#include "plan.h"

#include <algorithm>
#include <stdexcept>

#include "bounds.h"
#include "cut.h"
#include "damage.h"
#include "error.h"
#include "tiers.h"

namespace floatllm {

namespace {

constexpr uint64_t kGraphTensorBytes = 512;
constexpr uint32_t kDefaultCtx = 4096;
constexpr uint64_t kLeastSlot = uint64_t{1} << 20;
constexpr uint64_t kMostSlot = uint64_t{32} << 20;
// Of a ring on a device: a half of a layer should fit, and many make the start of a pass slow.
constexpr uint64_t kMostDeviceSlot = uint64_t{256} << 20;
constexpr uint64_t kMostRepackBlock = uint64_t{4} << 20;

// CUDA puts what attention sees of a quantised cache behind its result, as F16 and aligned.
uint64_t attention_scratch(const Plan &plan) {
    const Dims &d = plan.program.dims;
    const bool copied =
        plan.program.arch != nullptr && !plan.device.maps_host && ggml_is_quantized(plan.kv_type);
    return copied ? sizeof(ggml_fp16_t) * plan.cells * (uint64_t{d.k_rows()} + d.v_rows()) + 2 * kLayoutAlign
                  : 0;
}

class Planner {
  public:
    Planner(std::shared_ptr<const GgufFile> model, const DeviceFacts &device, const PlanRequest &request)
        : request_(request) {
        plan_.model = std::move(model);
        plan_.device = device;
        plan_.mode = request.mode;
        plan_.budget = request.budget;
        plan_.device_limit = device.maps_host ? plan_.budget.bytes : bounds_.device_limit();
        plan_.threads = request.threads;

        plan_.program =
            request.mode == FLOATLLM_MODE_MAP ? map_program(*plan_.model) : forward_program(*plan_.model);
        keep_own_part();
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
        const bool blocks = device.cpu || request.attention_blocks;
        plan_.attention_block = blocks ? kAttentionBlock : 0;
        plan_.segments = plan_.sequences + (blocks ? plan_.width / kAttentionBlock : 0);
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
                    "A chunk of %s is too small for the largest piece of this model that cannot be cut: give "
                    "--chunk %lluK or more.",
                    human_size(request_.chunk).c_str(),
                    static_cast<unsigned long long>(round_up(smallest_, 1024) / 1024)));
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
        choose_tiers(plan_, request_, slot_bytes_);
        plan_.device_limit = bounds_.most();
        plan_.host_bytes = plan_.device.maps_host || bounds_.joint()
                               ? plan_.memory.total()
                               : bounds_.host_fixed() + plan_.memory.host;
        return std::move(plan_);
    }

  private:
    void keep_own_part() {
        std::vector<Op> &ops = plan_.program.ops;
        const size_t end = std::min(request_.end_op, ops.size());
        ops.erase(ops.begin() + static_cast<ptrdiff_t>(end), ops.end());
        ops.erase(ops.begin(), ops.begin() + static_cast<ptrdiff_t>(std::min(request_.first_op, end)));
        uint32_t end_layer = 0;
        plan_.first_layer = UINT32_MAX;
        for (const Op &op : ops) {
            if (op.layer >= 0) {
                plan_.first_layer = std::min(plan_.first_layer, static_cast<uint32_t>(op.layer));
                end_layer = std::max(end_layer, static_cast<uint32_t>(op.layer) + 1);
            }
        }
        plan_.first_layer = std::min(plan_.first_layer, end_layer);
        plan_.layers = end_layer - plan_.first_layer;
    }

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
            if (!fits()) {
                bounds_.refuse(least(), smallest_);
            }
            return;
        }
        uint64_t ctx = request_.ctx;
        if (ctx == 0) {
            plan_.cells = kKvGrain;
            const uint64_t quarter = bounds_.most() / 4 / std::max<uint64_t>(kv_bytes() / kKvGrain, 1);
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
            if (fits()) {
                break;
            }
            if (request_.ctx > 0 || ctx <= kKvGrain) {
                bounds_.refuse(least(), smallest_);
            }
        }
        plan_.ctx = static_cast<uint32_t>(ctx);
    }

    // Bytes that the largest piece takes where nothing else is held: beside itself repacked, or in the
    // host's memory too where one number bounds both.
    uint64_t least() const { return (plan_.repack_block > 0 || bounds_.joint() ? 2 : 1) * smallest_; }

    bool fits() const {
        const uint64_t piece = std::max({plan_.memory.kv, plan_.layout.bytes, smallest_});
        return piece <= plan_.device.max_buffer && bounds_.hold() && bounds_.room() >= least() &&
               bounds_.host_room() >= (plan_.device.maps_host ? 0 : smallest_);
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
                   : plan_.layers * (kv_layer_bytes(plan_, false) + kv_layer_bytes(plan_, true));
    }

    // Chunks of the whole model at once where it fits, else of the size of a ring's slot.
    void cut() {
        const uint64_t all = bounds_.room();
        plan_.chunks = cut_program(*plan_.model, plan_.program, plan_.device, plan_.segments,
                                   std::min(all, plan_.device.max_buffer));
        uint64_t total = 0;
        for (const Chunk &c : plan_.chunks) {
            total += cost(c);
        }
        plan_.slots = plan_.staging_slots = 0;
        if (request_.chunk > 0 || total > all) {
            plan_.device.maps_host ? cut_for_host(all) : cut_for_device(all);
        }
    }

    void cut_for_host(uint64_t all) {
        uint64_t slot = request_.chunk;
        if (slot == 0) {
            // Small slots leave more to pin, large ones let the disk read in one go.
            const bool map = plan_.mode == FLOATLLM_MODE_MAP;
            slot = std::min(std::max(all / (map ? 3 : 8), kLeastSlot), map ? 2 * kMostSlot : kMostSlot);
        }
        slot = std::max(slot, smallest_);
        // One slot computes while the others fill.
        plan_.slots = 3;
        while (plan_.slots > 1 && slots_taken(plan_) * slot > all) {
            --plan_.slots;
            if (plan_.slots == 2) {
                slot = std::max(smallest_, std::min(slot, all / slots_taken(plan_)));
            }
        }
        slot_bytes_ = std::min(slot, all / slots_taken(plan_));
        plan_.chunks = cut_program(*plan_.model, plan_.program, plan_.device, plan_.segments, slot_bytes_);
    }

    // Slots of the device's memory, and as many of the host's that what comes from the disk passes through.
    void cut_for_device(uint64_t all) {
        const bool overlaps = plan_.device.overlaps;
        uint64_t slot = request_.chunk;
        if (slot == 0) {
            const uint64_t part = overlaps ? all / 16 : all / 8;
            slot = std::min(std::max(part, kLeastSlot), overlaps ? kMostDeviceSlot : kMostSlot);
        }
        // Where nothing overlaps a device is filled in turn, and the disk is still read ahead.
        plan_.slots = overlaps ? 3 : 1;
        plan_.staging_slots = overlaps ? 3 : 2;
        // GPUs divide the work on a matrix by its rows, so some of them alone get other numbers.
        const uint64_t whole = largest_operation(*plan_.model, plan_.program, plan_.device);
        if (request_.chunk == 0 && whole <= all / (2 * plan_.slots)) {
            slot = std::max(slot, whole);
        }
        slot = std::min(slot, plan_.device.max_buffer);
        const uint64_t host = bounds_.host_room();
        const auto most = [&] {
            return std::min(all / (plan_.slots + (bounds_.joint() ? plan_.staging_slots : 0)),
                            bounds_.joint() ? UINT64_MAX : host / plan_.staging_slots);
        };
        if (std::min(slot, most()) < smallest_) {
            plan_.slots = plan_.staging_slots = 1;
        }
        slot_bytes_ = std::max(smallest_, std::min(slot, most()));
        plan_.chunks = cut_program(*plan_.model, plan_.program, plan_.device, plan_.segments, slot_bytes_,
                                   shares_halves() ? Halves::Apart : Halves::Together);
        slot_bytes_ = std::min(slot_bytes_, ring_slot_bytes(plan_));
    }

    bool shares_halves() const {
        return plan_.device.overlaps && plan_.program.arch != nullptr && request_.chunk == 0 &&
               !(request_.cpu_share >= 0 && request_.cpu_share <= 0);
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
        // On a device with memory of its own all chunks that stay keep their graphs.
        const uint64_t kept = plan_.device.maps_host ? 0 : plan_.graph_tensors;
        plan_.graph_tensors = std::min<uint64_t>(plan_.graph_tensors, kMostGraphTensors) + 64;
        MemoryShares &m = plan_.memory;
        m.metadata = kSearchBytes + plan_.model->heap_bytes() +
                     (kept + plan_.graph_tensors) * kGraphTensorBytes +
                     2 * program.ops.size() * (sizeof(Op) + sizeof(Step) + sizeof(Part) + 2 * sizeof(Extent));
        m.kv = kv_bytes();
        // Embedding rows are decoded on the host, the mask is filled there.
        m.activations = plan_.layout.bytes + uint64_t{program.rows[0]} * plan_.width * sizeof(float) +
                        plan_.layout.mask.size;
        // Logits are looked at one position at a time where the host does not reach them.
        m.activations +=
            plan_.device.maps_host ? 0 : program.rows[static_cast<size_t>(Act::Logits)] * sizeof(float);
        // So are the activations of what the CPU may compute for the device.
        if (shares_halves()) {
            m.activations += plan_of_share(plan_, plan_.device).layout.bytes;
        }
        m.graph = kernel_scratch(program, plan_.width, plan_.threads);
        m.staging = plan_.device.maps_host ? kReaders * plan_.repack_block : kStagingWindow;
        m.pinned = m.host = m.ring = 0;
    }

    // Larger blocks read faster; all of them together take a small share of what is to spare.
    void enlarge_repack_block() {
        if (plan_.repack_block > 0) {
            const uint64_t spare = (bounds_.room() - std::min(bounds_.room(), least())) / (8 * kReaders);
            plan_.repack_block =
                std::max(plan_.repack_block, std::min(kMostRepackBlock, plan_.repack_block + spare) /
                                                 os::kDirectAlignment * os::kDirectAlignment);
        }
    }

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
    const Bounds bounds_{request_, plan_};
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

Plan plan_over(const Plan &plan, std::vector<Chunk> chunks, uint32_t slots) {
    Plan small = plan;
    small.ctx = small.cells = kKvGrain;
    small.width = small.sequences = small.outputs = small.position_grain = small.output_grain = 1;
    small.slots = slots;
    small.staging_slots = 0;
    small.trial = true;
    small.layout = lay_out(plan.program, {1, 1, kKvGrain, true, attention_scratch(small)});
    uint32_t layers = 1;
    for (const Chunk &chunk : chunks) {
        for (const Step &step : chunk.steps) {
            const Op &op = plan.program.ops[static_cast<size_t>(step.op)];
            if (op.layer >= 0) {
                layers = std::max(layers, static_cast<uint32_t>(op.layer) + 1 - plan.first_layer);
            }
        }
    }
    small.memory.kv = layers * (kv_layer_bytes(small, false) + kv_layer_bytes(small, true));
    small.chunks = std::move(chunks);
    return small;
}

}  // namespace floatllm

#include "plan.h"

#include <algorithm>
#include <stdexcept>

#include "cut.h"
#include "error.h"

namespace floatllm {

namespace {

constexpr uint64_t kAlign = 256;  // at least the tensor alignment of every backend
constexpr uint64_t kGraphTensorBytes = 512;
constexpr uint32_t kDefaultCtx = 4096;
constexpr uint64_t kLeastSlot = uint64_t{1} << 20;
constexpr uint64_t kMostSlot = uint64_t{32} << 20;

unsigned long long ull(uint64_t value) { return value; }

Layout lay_out(const Program &program, uint32_t width, uint32_t outputs, uint32_t cells, bool sliced) {
    Layout layout{};
    const auto take = [&layout](Region &region, uint64_t size) {
        region = {layout.bytes, size};
        layout.bytes += round_up(size, kAlign);
    };
    uint64_t widest = 0;
    for (size_t act = 0; act < kActs; ++act) {
        const uint64_t rows = program.rows[act];
        const bool logits = act == static_cast<size_t>(Act::Logits);
        take(layout.act[act], rows * sizeof(float) * (logits ? outputs : width));
        widest = std::max(widest, logits ? rows * outputs : rows * width);
    }
    if (program.arch != nullptr) {
        take(layout.slice, sliced && width > 1 ? widest * sizeof(float) : 0);
        take(layout.positions, width * sizeof(int32_t));
        take(layout.cells, width * sizeof(int64_t));
        take(layout.wanted, outputs * sizeof(int32_t));
        take(layout.mask, uint64_t{2} * cells * width);
        take(layout.near, program.dims.window > 0 ? uint64_t{2} * cells * width : 0);
    }
    take(layout.ones, static_cast<uint64_t>(program.touch_width) * sizeof(float));
    take(layout.sums, static_cast<uint64_t>(program.touch_rows) * sizeof(float));
    return layout;
}

// Scratch that ggml's CPU kernels take: the other side of a product in the weight's own dot type (at most
// four bytes an element), and the tiles of flash attention, which are 64 positions wide.
uint64_t kernel_scratch(const Program &program, uint32_t width, uint32_t threads) {
    uint64_t longest = static_cast<uint64_t>(program.touch_width);
    for (size_t act = 0; act < kActs; ++act) {
        if (act != static_cast<size_t>(Act::Logits)) {
            longest = std::max<uint64_t>(longest, uint64_t{program.rows[act]} * width);
        }
    }
    const Dims &d = program.dims;
    const uint64_t tiles = sizeof(float) * (64 * 2 * (uint64_t{d.head_k} + d.head_v) + 2 * 64 * 64) * threads;
    const uint64_t split =
        sizeof(float) * threads * (uint64_t{d.heads} * (2 + d.head_v) + d.head_k + 2 * d.head_v);
    return std::max(longest * sizeof(float), program.arch != nullptr ? std::max(tiles, split) : 0) +
           uint64_t{256} * threads;
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
        plan_.width = !forward ? 1 : request.width > 0 ? request.width : pass_width(plan_.program, weights_);
        set_grains(request.uniform && forward);
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
            if (room() < smallest_ || !host_fits()) {
                too_small();
            }
            return;
        }
        uint64_t ctx = request_.ctx;
        if (ctx == 0) {
            const uint64_t quarter = limit() / 4 / kv_bytes(1);
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
            if (room() >= smallest_ && host_fits()) {
                break;
            }
            if (request_.ctx > 0 || ctx <= kKvGrain) {
                too_small();
            }
        }
        plan_.ctx = static_cast<uint32_t>(ctx);
    }

    [[noreturn]] void too_small() {
        const uint64_t kib = 1024;
        const uint64_t least = round_up(fixed() + smallest_, kib);
        const bool device_binds = fixed() + smallest_ > plan_.device.memory_free && !plan_.device.maps_host;
        throw Error(
            FLOATLLM_ERROR_ENGINE,
            format(
                "%s of memory (%s) is too small for %s: the smallest that works is %lluK (%s). It takes %s of KV "
                "cache for %u positions, %s of activations, %s of bookkeeping and scratch, and %s for the largest "
                "piece of a weight. %s%s.",
                human_size(limit()).c_str(),
                device_binds ? (plan_.device.name + "'s free memory").c_str() : plan_.budget.source.c_str(),
                plan_.model->path().c_str(), static_cast<unsigned long long>(least / kib),
                human_size(least).c_str(), human_size(plan_.memory.kv).c_str(), plan_.cells,
                human_size(plan_.memory.activations).c_str(),
                human_size(plan_.memory.metadata + plan_.memory.graph + plan_.memory.staging).c_str(),
                human_size(smallest_).c_str(),
                request_.explicit_budget ? "Give more memory" : "Close other programs, or raise the limit",
                request_.ctx > kKvGrain ? ", or take a smaller context" : ""));
    }

    // Whether the size of the cache can be told in 64 bits, with room to add to it.
    bool kv_fits(uint32_t ctx) const {
        const Dims &d = plan_.program.dims;
        const double rows = static_cast<double>(d.k_rows()) + d.v_rows();
        return 2.0 * (static_cast<double>(ctx) + kKvGrain) * plan_.sequences * d.layers * rows < 1e18;
    }

    uint64_t kv_bytes(uint32_t cells) const {
        const Dims &d = plan_.program.dims;
        return plan_.program.arch == nullptr
                   ? 0
                   : uint64_t{2} * cells * plan_.sequences * d.layers * (d.k_rows() + d.v_rows());
    }

    // Chunks of the whole model at once where it fits, else of the size of a ring's slot.
    void cut() {
        const uint64_t all = room();
        plan_.chunks = cut_program(*plan_.model, plan_.program, plan_.device, plan_.sequences, all);
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
        while (plan_.slots > 1 && plan_.slots * slot > all) {
            --plan_.slots;
            if (plan_.slots == 2) {
                slot = std::max(smallest_, std::min(slot, all / 2));
            }
        }
        slot_bytes_ = std::min(slot, all);
        plan_.chunks = cut_program(*plan_.model, plan_.program, plan_.device, plan_.sequences, slot_bytes_);
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
                            : room() - plan_.slots * slot_bytes_;
        const double share = total == 0 ? 0 : static_cast<double>(left) / static_cast<double>(total);
        double due = 0;
        uint64_t widest = 0;
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
            widest = c.pinned ? widest : std::max(widest, bytes);
        }
        plan_.memory.ring = plan_.slots * widest;
        // Uploads go through mapped windows.
        const bool chosen = plan_.device.maps_host && (request_.explicit_io || plan_.slots > 0);
        plan_.io = chosen ? request_.io : IoMode::Mmap;
    }

    // Computes every share but those of the chunks.
    void share(uint32_t ctx, bool sliced) {
        const Program &program = plan_.program;
        plan_.cells = static_cast<uint32_t>(round_up(ctx, kKvGrain));
        plan_.layout = lay_out(program, plan_.width, plan_.outputs, plan_.cells, sliced);
        plan_.graph_tensors = 0;
        for (const Op &op : program.ops) {
            plan_.graph_tensors += graph_tensors(op.kind, plan_.sequences);
        }
        plan_.graph_tensors = std::min<uint64_t>(plan_.graph_tensors, kMostGraphTensors) + 64;
        MemoryShares &m = plan_.memory;
        m.metadata = plan_.model->heap_bytes() + plan_.graph_tensors * kGraphTensorBytes +
                     2 * program.ops.size() * (sizeof(Op) + sizeof(Step) + sizeof(Part) + sizeof(Extent));
        m.kv = kv_bytes(plan_.cells);
        // Embedding rows are decoded on the host, the mask is filled there.
        m.activations = plan_.layout.bytes + uint64_t{program.rows[0]} * plan_.width * sizeof(float) +
                        plan_.layout.mask.size;
        m.graph = kernel_scratch(program, plan_.width, plan_.threads);
        m.staging = plan_.device.maps_host ? 0 : kStagingWindow;
        m.pinned = m.ring = 0;
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

std::string quoted(const std::string &text) {
    std::string out = "\"";
    for (const char c : text) {
        const unsigned char byte = static_cast<unsigned char>(c);
        if (c == '"' || c == '\\') {
            out += '\\';
            out += c;
        } else if (byte < 0x20) {
            out += format("\\u%04x", byte);
        } else {
            out += c;
        }
    }
    return out + "\"";
}

}  // namespace

uint32_t pass_width(const Program &program, uint64_t weight_bytes) {
    uint64_t per_position = 0;
    for (size_t act = 0; act < kActs; ++act) {
        per_position +=
            act == static_cast<size_t>(Act::Logits) ? 0 : sizeof(float) * uint64_t{program.rows[act]};
    }
    const uint64_t mib = uint64_t{1} << 20;
    const uint64_t allowed = std::min(std::max(64 * mib, weight_bytes / 32), 256 * mib);
    uint32_t width = 512;
    while (width > 1 && width * per_position > allowed) {
        width /= 2;
    }
    return width;
}

Plan make_plan(std::shared_ptr<const GgufFile> model, const DeviceFacts &device, const PlanRequest &request) {
    return Planner(std::move(model), device, request).make();
}

std::string plan_json(const Plan &plan) {
    uint64_t weights = 0;
    for (const Tensor &t : plan.model->tensors()) {
        weights += t.size;
    }
    const MemoryShares &m = plan.memory;
    // In mode map anything may stand there.
    const Meta *named = plan.model->meta("general.architecture");
    const std::string architecture = named != nullptr && named->type == ValueType::String
                                         ? plan.model->text("general.architecture", "")
                                         : "";
    std::string out = format(
        "{\"schema_version\":1,\"mode\":\"%s\",\"device\":%s,\"architecture\":%s,"
        "\"memory\":{\"limit\":%llu,\"source\":%s,\"total\":%llu,\"metadata\":%llu,\"kv\":%llu,\"activations\":%llu,"
        "\"graph\":%llu,\"staging\":%llu,\"pinned\":%llu,\"ring\":%llu},\"io\":\"%s\",\"io_note\":%s,\"slots\":%u,\"ctx\":%u,\"width\":%u,"
        "\"sequences\":%u,\"outputs\":%u,\"uniform\":%s,\"threads\":%u,"
        "\"weights\":{\"tensors\":%zu,\"bytes\":%llu},\"chunks\":[",
        plan.mode == FLOATLLM_MODE_MAP ? "map" : "run", quoted(plan.device.name).c_str(),
        quoted(architecture).c_str(), ull(plan.budget.bytes), quoted(plan.budget.source).c_str(),
        ull(m.total()), ull(m.metadata), ull(m.kv), ull(m.activations), ull(m.graph), ull(m.staging),
        ull(m.pinned), ull(m.ring), plan.io == IoMode::Direct ? "direct" : "mmap",
        quoted(plan.io == IoMode::Direct && !plan.model->no_direct().empty()
                   ? "reading through the page cache: " + plan.model->no_direct()
                   : "")
            .c_str(),
        plan.slots, plan.ctx, plan.width, plan.sequences, plan.outputs,
        plan.position_grain > 1 ? "true" : "false", plan.threads, plan.model->tensors().size(), ull(weights));
    for (size_t i = 0; i < plan.chunks.size(); ++i) {
        const Chunk &chunk = plan.chunks[i];
        out += format("%s{\"index\":%zu,\"bytes\":%llu,\"mapped\":%llu,\"pinned\":%s,\"parts\":[",
                      i == 0 ? "" : ",", i, ull(chunk.weight_bytes), ull(chunk.mapped_bytes),
                      chunk.pinned ? "true" : "false");
        for (size_t p = 0; p < chunk.parts.size(); ++p) {
            const Part &part = chunk.parts[p];
            const Tensor &tensor = plan.model->tensors()[static_cast<size_t>(part.tensor)];
            out += format(
                "%s{\"tensor\":%s,\"row_begin\":%lld,\"row_end\":%lld,\"rows\":%lld,\"bytes\":%llu}",
                p == 0 ? "" : ",", quoted(tensor.name).c_str(), static_cast<long long>(part.row_begin),
                static_cast<long long>(part.row_end), static_cast<long long>(tensor.rows()), ull(part.size));
        }
        out += "]}";
    }
    return out + "]}";
}

}  // namespace floatllm

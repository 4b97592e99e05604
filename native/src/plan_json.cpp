#include "error.h"
#include "plan.h"

namespace floatllm {

namespace {

unsigned long long ull(uint64_t value) { return value; }

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

std::string plan_json(const Plan &plan) {
    uint64_t weights = 0;
    for (const Tensor &t : plan.model->tensors()) {
        weights += t.size;
    }
    uint64_t repacked = 0;
    for (const Chunk &chunk : plan.chunks) {
        for (const Part &part : chunk.parts) {
            repacked += part.repacked ? part.size : 0;
        }
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
        "\"sequences\":%u,\"outputs\":%u,\"uniform\":%s,\"grain\":%u,\"kv\":\"%s\",\"threads\":%u,"
        "\"weights\":{\"tensors\":%zu,\"bytes\":%llu,\"repacked\":%llu},\"chunks\":[",
        plan.mode == FLOATLLM_MODE_MAP ? "map" : "run", quoted(plan.device.name).c_str(),
        quoted(architecture).c_str(), ull(plan.budget.bytes), quoted(plan.budget.source).c_str(),
        ull(m.total()), ull(m.metadata), ull(m.kv), ull(m.activations), ull(m.graph), ull(m.staging),
        ull(m.pinned), ull(m.ring), plan.io == IoMode::Direct ? "direct" : "mmap",
        quoted(plan.io == IoMode::Direct && !plan.model->no_direct().empty()
                   ? "reading through the page cache: " + plan.model->no_direct()
                   : "")
            .c_str(),
        plan.slots, plan.ctx, plan.width, plan.sequences, plan.outputs,
        plan.position_grain > 1 ? "true" : "false", plan.position_grain, ggml_type_name(plan.kv_type),
        plan.threads, plan.model->tensors().size(), ull(weights), ull(repacked));
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

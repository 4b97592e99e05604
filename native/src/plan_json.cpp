#include <algorithm>

#include "error.h"
#include "plan.h"

namespace floatllm {

namespace {

const char *truth(bool value) { return value ? "true" : "false"; }

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

std::string plan_json(const Plans &plans) {
    const Plan &plan = plans.front();
    // Of several devices, the first that streams.
    const auto found =
        std::find_if(plans.begin(), plans.end(), [](const Plan &each) { return each.slots > 0; });
    const Plan &streams = found == plans.end() ? plan : *found;
    uint64_t weights = 0;
    for (const Tensor &t : plan.model->tensors()) {
        weights += t.size;
    }
    uint64_t repacked = 0;
    MemoryShares m{};
    std::string names;
    std::string devices;
    std::string chunks;
    size_t count = 0;
    for (const Plan &each : plans) {
        m += each.memory;
        names += (names.empty() ? "" : ",") + each.device.name;
        devices += format(
            "%s{\"name\":%s,\"own_memory\":%s,\"overlaps\":%s,\"limit\":%llu,\"kv\":%llu,\"activations\":%llu,"
            "\"pinned\":%llu,\"ring\":%llu,\"host\":%llu,\"chunks\":%zu,\"cpu_share\":%g}",
            devices.empty() ? "" : ",", quoted(each.device.name).c_str(), truth(!each.device.maps_host),
            truth(each.device.overlaps), ull(each.device_limit), ull(each.memory.kv), ull(each.layout.bytes),
            ull(each.memory.pinned), ull(each.memory.ring), ull(each.host_bytes), each.chunks.size(),
            each.cpu_share);
        for (const Chunk &chunk : each.chunks) {
            chunks += format(
                "%s{\"index\":%zu,\"device\":%s,\"bytes\":%llu,\"mapped\":%llu,\"pinned\":%s,\"hosted\":%s,"
                "\"shared\":%s,\"parts\":[",
                count == 0 ? "" : ",", count, quoted(each.device.name).c_str(), ull(chunk.weight_bytes),
                ull(chunk.mapped_bytes), truth(chunk.pinned), truth(chunk.hosted), truth(chunk.shared));
            ++count;
            for (size_t p = 0; p < chunk.parts.size(); ++p) {
                const Part &part = chunk.parts[p];
                const Tensor &tensor = plan.model->tensors()[static_cast<size_t>(part.tensor)];
                repacked += part.repacked ? part.size : 0;
                chunks += format(
                    "%s{\"tensor\":%s,\"row_begin\":%lld,\"row_end\":%lld,\"rows\":%lld,\"bytes\":%llu}",
                    p == 0 ? "" : ",", quoted(tensor.name).c_str(), static_cast<long long>(part.row_begin),
                    static_cast<long long>(part.row_end), static_cast<long long>(tensor.rows()),
                    ull(part.size));
            }
            chunks += "]}";
        }
    }
    // In mode map anything may stand there.
    const Meta *named = plan.model->meta("general.architecture");
    const std::string architecture = named != nullptr && named->type == ValueType::String
                                         ? plan.model->text("general.architecture", "")
                                         : "";
    const std::string note = streams.io == IoMode::Direct && !plan.model->no_direct().empty()
                                 ? "reading through the page cache: " + plan.model->no_direct()
                                 : "";
    return format(
               "{\"schema_version\":1,\"mode\":\"%s\",\"device\":%s,\"device_note\":%s,\"devices\":[%s],\"architecture\":%s,"
               "\"memory\":{\"limit\":%llu,\"source\":%s,\"total\":%llu,\"metadata\":%llu,\"kv\":%llu,\"activations\":"
               "%llu,"
               "\"graph\":%llu,\"staging\":%llu,\"pinned\":%llu,\"host\":%llu,\"ring\":%llu},\"io\":\"%s\",\"io_note\":%"
               "s,\"slots\":%u,\"ctx\":%u,\"width\":%u,"
               "\"sequences\":%u,\"outputs\":%u,\"uniform\":%s,\"grain\":%u,\"kv\":\"%s\",\"threads\":%u,"
               "\"weights\":{\"tensors\":%zu,\"bytes\":%llu,\"repacked\":%llu},\"chunks\":[",
               plan.mode == FLOATLLM_MODE_MAP ? "map" : "run", quoted(names).c_str(),
               quoted(plan.device_note).c_str(), devices.c_str(), quoted(architecture).c_str(),
               ull(plan.budget.bytes), quoted(plan.budget.source).c_str(), ull(m.total()), ull(m.metadata),
               ull(m.kv), ull(m.activations), ull(m.graph), ull(m.staging), ull(m.pinned), ull(m.host),
               ull(m.ring), streams.io == IoMode::Direct ? "direct" : "mmap", quoted(note).c_str(),
               plan.slots, plan.ctx, plan.width, plan.sequences, plan.outputs, truth(plan.position_grain > 1),
               plan.position_grain, ggml_type_name(plan.kv_type), plan.threads, plan.model->tensors().size(),
               ull(weights), ull(repacked)) +
           chunks + "]}";
}

}  // namespace floatllm

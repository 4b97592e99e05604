#include "bounds.h"

#include <algorithm>

#include "error.h"

namespace floatllm {

namespace {

uint64_t rest(uint64_t of, uint64_t taken) { return of - std::min(of, taken); }

}  // namespace

bool Bounds::joint() const {
    return !plan_.device.maps_host && request_.device_memory == 0 &&
           ((request_.explicit_budget && !request_.several) || plan_.device.integrated);
}

uint64_t Bounds::device_limit() const {
    // CUDA takes some for itself when it begins to compute.
    const uint64_t reserve =
        std::max(plan_.device.memory_free / 20, plan_.device.overlaps ? uint64_t{256} << 20 : 0);
    const uint64_t free = rest(plan_.device.memory_free, reserve);
    if (request_.device_memory > plan_.device.memory_free) {
        throw Error(FLOATLLM_ERROR_ENGINE,
                    format("%s has %s of free memory, less than the %s of --device-memory. Free memory "
                           "there, or give a smaller --device-memory.",
                           plan_.device.name.c_str(), human_size(plan_.device.memory_free).c_str(),
                           human_size(request_.device_memory).c_str()));
    }
    return request_.device_memory > 0 ? request_.device_memory : free;
}

uint64_t Bounds::most() const {
    return joint() ? std::min(plan_.budget.bytes, plan_.device_limit) : plan_.device_limit;
}

uint64_t Bounds::host_fixed() const {
    const MemoryShares &m = plan_.memory;
    return m.metadata + m.graph + m.staging + (m.activations - plan_.layout.bytes);
}

bool Bounds::hold() const {
    if (plan_.device.maps_host || joint()) {
        return fixed() <= plan_.budget.bytes &&
               (plan_.device.maps_host || device_fixed() <= plan_.device_limit);
    }
    return device_fixed() <= plan_.device_limit && host_fixed() <= plan_.budget.bytes;
}

uint64_t Bounds::room() const {
    if (plan_.device.maps_host) {
        return rest(plan_.budget.bytes, fixed());
    }
    const uint64_t device = rest(plan_.device_limit, device_fixed());
    return joint() ? std::min(device, rest(plan_.budget.bytes, fixed())) : device;
}

uint64_t Bounds::host_room() const { return rest(plan_.budget.bytes, joint() ? fixed() : host_fixed()); }

void Bounds::refuse(uint64_t least, uint64_t smallest) const {
    if (plan_.memory.kv > plan_.device.max_buffer && !plan_.device.maps_host) {
        throw Error(FLOATLLM_ERROR_ENGINE,
                    format("%s gives no more than %s in one piece, and a KV cache of %u positions takes %s. "
                           "Take a smaller context.",
                           plan_.device.name.c_str(), human_size(plan_.device.max_buffer).c_str(),
                           plan_.cells, human_size(plan_.memory.kv).c_str()));
    }
    const uint64_t kib = 1024;
    const bool device = !plan_.device.maps_host && !joint() && room() < least;
    const bool host = !plan_.device.maps_host && !joint() && !device;
    const uint64_t piece = host ? smallest : least;
    const MemoryShares &m = plan_.memory;
    const uint64_t kv = host ? 0 : m.kv;
    const uint64_t activations = device ? plan_.layout.bytes
                                 : host ? m.activations - plan_.layout.bytes
                                        : m.activations;
    const uint64_t scratch = device ? 0 : m.metadata + m.graph + m.staging;
    const uint64_t others = device ? 0 : request_.others;
    const uint64_t needed = round_up(kv + activations + scratch + piece + others, kib);
    const std::string what =
        device ? plan_.device.name + (request_.device_memory > 0 ? ", --device-memory" : "'s free memory")
               : plan_.budget.source;
    throw Error(
        FLOATLLM_ERROR_ENGINE,
        format(
            "%s of memory (%s) is too small for %s: the smallest that works is %lluK (%s). It takes %s of KV "
            "cache for %u positions, %s of activations, %s of bookkeeping and scratch, and %s for the largest "
            "piece of a weight. %s%s.",
            human_size(device ? plan_.device_limit : plan_.budget.bytes + others).c_str(), what.c_str(),
            plan_.model->path().c_str(), ull(needed / kib), human_size(needed).c_str(),
            human_size(kv).c_str(), plan_.cells, human_size(activations).c_str(), human_size(scratch).c_str(),
            human_size(piece).c_str(),
            (device ? request_.device_memory > 0 : request_.explicit_budget)
                ? "Give more memory"
                : "Close other programs, or raise the limit",
            request_.ctx > kKvGrain ? ", or take a smaller context" : ""));
}

}  // namespace floatllm

#include "budget.h"

#include <algorithm>

namespace floatllm {

namespace {

// The usual stack, and room for what the allocator sets aside for a thread that allocates.
constexpr uint64_t kThreadAddresses = uint64_t{16} << 20;

}  // namespace

const os::MemoryBound *tightest(const std::vector<os::MemoryBound> &bounds) {
    const auto found = std::min_element(
        bounds.begin(), bounds.end(),
        [](const os::MemoryBound &a, const os::MemoryBound &b) { return a.bytes < b.bytes; });
    return found == bounds.end() ? nullptr : &*found;
}

Budget safe_budget(std::vector<os::MemoryBound> bounds, unsigned threads) {
    for (os::MemoryBound &bound : bounds) {
        const uint64_t taken = bound.addresses ? threads * kThreadAddresses : 0;
        bound.bytes -= std::min(bound.bytes, taken);
    }
    const os::MemoryBound *bound = tightest(bounds);
    if (bound == nullptr) {
        return {uint64_t{1} << 30, "no limit is known on this system"};
    }
    const uint64_t slack = std::max<uint64_t>(bound->bytes / 20, uint64_t{32} << 20);
    return {bound->bytes > slack ? bound->bytes - slack : 0, bound->source};
}

}  // namespace floatllm

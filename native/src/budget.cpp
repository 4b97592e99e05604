#include "budget.h"

#include <algorithm>

namespace floatllm {

namespace {

// The usual stack, and room for what the allocator sets aside for a thread that allocates.
constexpr uint64_t kThreadAddresses = uint64_t{16} << 20;

}  // namespace

Budget safe_budget(std::vector<os::MemoryBound> bounds, unsigned threads) {
    for (os::MemoryBound &bound : bounds) {
        const uint64_t taken = bound.addresses ? threads * kThreadAddresses : 0;
        bound.bytes -= std::min(bound.bytes, taken);
    }
    if (bounds.empty()) {
        return {uint64_t{1} << 30, "no limit is known on this system"};
    }
    const auto tightest = std::min_element(
        bounds.begin(), bounds.end(),
        [](const os::MemoryBound &a, const os::MemoryBound &b) { return a.bytes < b.bytes; });
    const uint64_t slack = std::max<uint64_t>(tightest->bytes / 20, uint64_t{32} << 20);
    return {tightest->bytes > slack ? tightest->bytes - slack : 0, tightest->source};
}

}  // namespace floatllm

#include "budget.h"

#include <algorithm>

namespace floatllm {

Budget safe_budget(const std::vector<os::MemoryBound> &bounds) {
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

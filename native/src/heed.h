// When what is kept in memory is given back to others, and when it is taken again. Looked at between passes.
#pragma once

#include <algorithm>
#include <cstdint>

#include "os/os.h"

namespace floatllm {

// Half of the least slack of a budget is the sign that others need memory; they get the whole of it, and more
// than that must be free before it is taken again.
constexpr uint64_t kShort = uint64_t{16} << 20;
constexpr uint64_t kEnough = uint64_t{64} << 20;
constexpr uint64_t kPlenty = uint64_t{192} << 20;
constexpr double kHeedSeconds = 0.1;

// What the system has left: bytes.
struct Left {
    uint64_t free = UINT64_MAX;
    uint64_t room = UINT64_MAX;  // addresses too, which others do not take
};

inline Left memory_left() {
    Left left;
    for (const os::MemoryBound &bound : os::memory_bounds()) {
        left.free = bound.addresses ? left.free : std::min(left.free, bound.bytes);
        left.room = std::min(left.room, bound.bytes);
    }
    return left;
}

}  // namespace floatllm

// How much memory the engine may take. Pure: facts in, number out.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "os/os.h"

namespace floatllm {

struct Budget {
    uint64_t bytes;
    std::string source;  // what binds, for people
};

// The bound with the fewest bytes, or nullptr if there are no bounds.
const os::MemoryBound *tightest(const std::vector<os::MemoryBound> &bounds);

// The tightest of `bounds`, less a slack of 5 % and at least 32 MiB: other processes grow too, and the
// interpreter around the engine (64 MiB in DESIGN.md) has its memory already when this is asked.
// Without any bound (a system that states none) it is 1 GiB.
// `threads` are still to be started: their stacks come out of the bounds that count addresses.
Budget safe_budget(std::vector<os::MemoryBound> bounds, unsigned threads);

}  // namespace floatllm

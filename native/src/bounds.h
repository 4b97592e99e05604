// What a plan may take of memory, and what of it is spoken for.
#pragma once

#include "plan.h"

namespace floatllm {

// Of a plan in the making, which must outlive it.
class Bounds {
  public:
    Bounds(const PlanRequest &request, const Plan &plan) : request_(request), plan_(plan) {}

    // Whether one number bounds the memory of device and host together.
    bool joint() const;
    // Of a device with memory of its own, by what is free there and --device-memory. Throws
    // Error(FLOATLLM_ERROR_ENGINE) where the one is less than the other.
    uint64_t device_limit() const;
    // The most that may be taken of the memory that is computed in.
    uint64_t most() const;

    // What is spoken for: on the device, in the host's memory beside it, and both or all that there is.
    uint64_t device_fixed() const { return plan_.memory.kv + plan_.layout.bytes; }
    uint64_t host_fixed() const;
    uint64_t fixed() const { return device_fixed() + host_fixed(); }

    // Whether that is within the bounds.
    bool hold() const;

    // For chunks in the memory that is computed in, and on their way to it.
    uint64_t room() const;
    uint64_t host_room() const;

    // Throws Error(FLOATLLM_ERROR_ENGINE) naming the smallest memory that works where the largest piece of a
    // weight takes `least` bytes where it is computed, and `smallest` by itself.
    [[noreturn]] void refuse(uint64_t least, uint64_t smallest) const;

  private:
    const PlanRequest &request_;
    const Plan &plan_;
};

}  // namespace floatllm

// How many threads can compute at a time. Threads that wait for each other are as fast as the slowest of
// them, so one that shares its CPU with another program costs more than it brings.
#pragma once

#include <chrono>
#include <optional>

#include "os/os.h"

namespace floatllm {

// Threads to compute with, of those `wanted`, if others keep so many of the `cpus` busy that this process may
// run on. At half a CPU another thread brings as much as it costs.
unsigned threads_beside(double others, unsigned cpus, unsigned wanted);

class FreeCpus {
  public:
    explicit FreeCpus(unsigned wanted);

    // At most as many as there were CPUs at first. Looks again, if it is long enough ago. Whatever the system
    // does not tell is taken for free.
    unsigned threads();
    unsigned most() const { return wanted_; }

  private:
    std::optional<os::CpuUse> before_;
    unsigned wanted_;
    unsigned threads_;
    std::chrono::steady_clock::time_point looked_ = std::chrono::steady_clock::now();
};

}  // namespace floatllm

#include "free_cpus.h"

#include <algorithm>
#include <cmath>

namespace floatllm {

namespace {

// The system counts in hundredths of a second.
constexpr double kLook = 0.2;

}  // namespace

unsigned threads_beside(double others, unsigned cpus, unsigned wanted) {
    const double free = std::max(1.0, std::floor(static_cast<double>(cpus) - std::max(0.0, others) + 0.5));
    return std::max(1u, std::min({wanted, cpus, static_cast<unsigned>(free)}));
}

FreeCpus::FreeCpus(unsigned wanted) : before_(os::cpu_use()), wanted_(wanted) {
    if (before_) {
        wanted_ = threads_beside(0, std::min(before_->cpus, os::usable_cpus()), wanted);
    }
    threads_ = wanted_;
}

unsigned FreeCpus::threads() {
    const auto now = std::chrono::steady_clock::now();
    const double seconds = std::chrono::duration<double>(now - looked_).count();
    if (!before_ || seconds < kLook) {
        return threads_;
    }
    const std::optional<os::CpuUse> use = os::cpu_use();
    if (!use) {
        threads_ = wanted_;
        return threads_;
    }
    // If there are more or fewer CPUs than before, what was counted is not of the same ones.
    if (use->cpus == before_->cpus) {
        const double others = (use->busy - before_->busy) - (use->own - before_->own);
        // A quota is ours, whatever others do on the rest of the CPUs.
        threads_ = threads_beside(others / seconds, use->cpus, std::min(wanted_, os::usable_cpus()));
    }
    before_ = use;
    looked_ = now;
    return threads_;
}

}  // namespace floatllm

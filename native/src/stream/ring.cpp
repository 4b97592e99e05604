#include "stream/ring.h"

namespace floatllm::stream {

Ring::Ring(Io io, unsigned slots, uint64_t slot_bytes) {
    for (unsigned i = 0; i < slots; ++i) {
        slots_.push_back(std::make_unique<Landing>(io, slot_bytes));
    }
}

void Ring::begin(const Files &files, std::shared_ptr<const Cycle> cycle, ReadPool &pool) {
    const bool same = cycle_ != nullptr && (cycle_ == cycle || *cycle_ == *cycle);
    if (!same || (!cycle->empty() && taken_ % cycle->size() != 0)) {
        restart();
    }
    cycle_ = std::move(cycle);
    fill(files, pool);
}

void Ring::fill(const Files &files, ReadPool &pool) {
    if (cycle_->empty()) {
        return;
    }
    while (ahead_ < taken_ + slots_.size()) {
        slots_[ahead_ % slots_.size()]->load(files, (*cycle_)[ahead_ % cycle_->size()], pool);
        ++ahead_;
    }
}

Landing &Ring::take() {
    Landing &slot = *slots_[taken_ % slots_.size()];
    slot.wait();
    return slot;
}

void Ring::give_back(const Files &files, ReadPool &pool) {
    ++taken_;
    fill(files, pool);
}

void Ring::restart() {
    for (const auto &slot : slots_) {
        slot->release();
    }
    cycle_.reset();
    taken_ = ahead_ = 0;
}

}  // namespace floatllm::stream

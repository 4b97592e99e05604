// The slots that weights pass through, filled ahead by readers.
#pragma once

#include <memory>
#include <vector>

#include "stream/landing.h"

namespace floatllm::stream {

// What a pass reads, slot by slot, in order. The next pass reads the same as a rule.
using Cycle = std::vector<std::vector<Range>>;

class Ring {
  public:
    Ring(Io io, unsigned slots, uint64_t slot_bytes);

    // A pass begins that reads `cycle`, from its start. What was read ahead stays if it is the same as
    // before.
    void begin(const Files &files, std::shared_ptr<const Cycle> cycle, ReadPool &pool);
    // The slot with the next entry of the cycle. Throws what Landing::wait() does.
    Landing &take();
    // The slot of the last take() is free, and filled with what comes.
    void give_back(const Files &files, ReadPool &pool);
    // Forgets what was read ahead, after a pass that did not reach its end.
    void restart();

  private:
    void fill(const Files &files, ReadPool &pool);

    std::vector<std::unique_ptr<Landing>> slots_;
    std::shared_ptr<const Cycle> cycle_;
    // Entries counted over all passes since the cycle was new: those taken, and those that a slot was given.
    uint64_t taken_ = 0;
    uint64_t ahead_ = 0;
};

}  // namespace floatllm::stream

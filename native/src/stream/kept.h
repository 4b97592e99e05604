// Which weights stay in memory, and where.
#pragma once

#include <memory>
#include <vector>

#include "gguf_table.h"
#include "stopwatch.h"
#include "stream/landing.h"

namespace floatllm::stream {

// Weights up to this size are always kept: norms, biases, routers, state matrices. The kernels that take them
// want them whole, and reading them alone would cost a disk access each.
constexpr uint64_t kSmallWeight = uint64_t{128} << 10;

// Of a model whose passes read every weight once, in order: any part that stays saves just its own reading,
// and a cache of what was read last would save nothing. So the part is spread evenly, and the readers have as
// much to do in each stretch of a pass. `budget`: bytes that they may take, as they are read. Pure.
std::vector<Range> choose_kept(const std::vector<Tensor> &tensors, uint64_t budget);

class Kept {
  public:
    // Reads these now, into memory of our own: what is to stay must not live in the page cache, which keeps
    // nothing for long beside a stream. Throws as Landing::wait().
    void add(const Files &files, const std::vector<Range> &ranges, ReadPool &pool);
    // Where a range is, or nullptr.
    char *find(const Range &range) const;
    uint64_t bytes() const;
    // Between passes: others may have taken what was free. Gives weights back if memory is short, and reads
    // them again if there is plenty. True if what is there is not what it was.
    bool heed_memory(const Files &files, ReadPool &pool);

  private:
    struct Item {
        Range range;
        std::unique_ptr<Landing> landing;  // nullptr: given back
    };
    size_t give_back(uint64_t bytes);
    size_t take_again(const Files &files, uint64_t bytes, ReadPool &pool);
    size_t missing() const;

    std::vector<Item> items_;
    Stopwatch heeded_;
};

}  // namespace floatllm::stream

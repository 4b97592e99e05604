// Ranges of files in memory.
#pragma once

#include <memory>
#include <vector>

#include "gguf_file.h"
#include "os/os.h"
#include "reader.h"
#include "stream/cutting.h"

namespace floatllm::stream {

// The files of a model, by the number that ranges name them with.
using Files = std::vector<std::shared_ptr<const os::File>>;
// Those of a model, open for as long as any of them is read.
Files files_of(const std::shared_ptr<const GgufFile> &model);

// How bytes come from a file.
enum class Io : uint8_t {
    Direct,   // large reads past the page cache, into memory of our own
    Windows,  // mapped windows of the file, through the page cache
};

class Landing {
  public:
    // For ranges that take `capacity` bytes together.
    Landing(Io io, uint64_t capacity);
    // Readers still write into it until then.
    ~Landing() { release(); }
    Landing(const Landing &) = delete;
    Landing &operator=(const Landing &) = delete;

    // Begins to bring the ranges in; wait() waits for them.
    void load(const Files &files, const std::vector<Range> &ranges, ReadPool &pool);
    // Throws Error(FLOATLLM_ERROR_ENGINE) if they could not be read.
    void wait();
    // Of a byte that was loaded.
    char *address(uint32_t file, uint64_t offset) const;
    // Throws Error(FLOATLLM_ERROR_ENGINE) if bytes were lost since they were loaded: the file was cut.
    void check() const;
    // Waits for what is still being read, and gives windows back.
    void release();

  private:
    struct Extent {
        Range range;
        char *data;
    };

    const Io io_;
    os::Pages pages_;
    std::vector<os::Mapping> windows_;
    std::vector<Extent> extents_;
    std::shared_ptr<ReadPool::Batch> reading_;
};

}  // namespace floatllm::stream

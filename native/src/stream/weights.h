// The weights of a model, by where libllama believes them to be in memory.
//
// libllama maps a model's files and hands the mapped addresses to the device. Nothing is ever read there: the
// address says which bytes of which file a tensor is.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "ggml.h"
#include "stream/landing.h"

namespace floatllm::stream {

struct Weight {
    std::string name;
    ggml_type type;
    Range range;
    uint64_t sound = 0;    // bytes from its start that were found to be numbers
    char *kept = nullptr;  // where it is in memory for good
};

class Weights {
  public:
    explicit Weights(Files files) : files_(std::move(files)) {}

    const Files &files() const { return files_; }

    // Addresses from `begin` on stand for so many bytes of a file, or no longer.
    void map(const void *begin, uint64_t size, uint32_t file, uint64_t offset);
    void unmap(const void *begin);
    // The weight that a tensor is, or nullptr. Throws Error(FLOATLLM_ERROR_MODEL) if it reaches beyond its
    // file.
    Weight *find(const ggml_tensor *tensor);

    // None of them is kept any longer, as far as is known.
    void forget_kept();

    // Bytes of the file at a mapped address, through the page cache. Throws Error(FLOATLLM_ERROR_ENGINE).
    void read(const void *address, void *to, size_t size) const;

  private:
    struct Region {
        uint64_t size;
        uint32_t file;
        uint64_t offset;
    };
    const std::pair<const uintptr_t, Region> *region_of(const void *address) const;

    const Files files_;
    std::map<uintptr_t, Region> regions_;  // by their first address
    std::unordered_map<const void *, std::unique_ptr<Weight>> weights_;
};

// Looks for weights that are no numbers in `size` bytes of whole blocks, which begin `from` bytes behind the
// start of the weight and are at `data`. Throws Error(FLOATLLM_ERROR_MODEL).
void require_sound(const os::File &file, const Weight &weight, uint64_t from, const char *data,
                   uint64_t size);

}  // namespace floatllm::stream

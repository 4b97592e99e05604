// A model's GGUF file, or files: one table of tensors, and the metadata of the first.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "gguf_table.h"
#include "os/os.h"

namespace floatllm {

class GgufFile {
  public:
    // A model split into files (NAME-00001-of-00003.gguf) is opened by its first. Throws
    // Error(FLOATLLM_ERROR_MODEL), naming the byte where a file goes wrong, and Error(FLOATLLM_ERROR_ENGINE)
    // where one cannot be read.
    explicit GgufFile(const std::string &path);
    // Names of the table lie in it.
    GgufFile(const GgufFile &) = delete;
    GgufFile &operator=(const GgufFile &) = delete;

    // The first file, whose metadata is the model's.
    const std::string &path() const { return files_[0]->path(); }
    const os::File &file(uint32_t index) const { return *files_[index]; }
    uint32_t files() const { return static_cast<uint32_t>(files_.size()); }
    // The file that holds most of the model's bytes.
    const os::File &largest_file() const;
    // Empty where every file is read past the page cache on request, else why one is not.
    const std::string &no_direct() const { return no_direct_; }
    const std::vector<Meta> &metas() const { return table_.metas; }
    // Of all files, in their order.
    const std::vector<Tensor> &tensors() const { return table_.tensors; }

    const Meta *meta(const std::string &key) const { return table_.meta(key); }
    // Index of a tensor, or -1.
    int tensor_index(const std::string &name) const { return static_cast<int>(by_name_.find(name)); }

    // A number of any integer or float type, or `fallback` when the key is absent. Throws
    // Error(FLOATLLM_ERROR_MODEL) for text, arrays, values that are not finite, and integers that are
    // negative where `number_u32` asks for one.
    uint32_t number_u32(const std::string &key, uint32_t fallback) const;
    float number_f32(const std::string &key, float fallback) const;
    // Text of at most 64 KiB, or `fallback`.
    std::string text(const std::string &key, const std::string &fallback) const;

    // Throw Error(FLOATLLM_ERROR_MODEL), naming the byte where the key's value or the tensor's entry stands,
    // or no byte where the file has no such key.
    [[noreturn]] void refuse_key(const std::string &key, const std::string &what) const;
    [[noreturn]] void refuse_tensor(const Tensor &tensor, const std::string &what) const;

    // Bytes that this object holds on the heap, for the budget.
    uint64_t heap_bytes() const { return heap_bytes_; }

  private:
    void add_shards();
    void index_tensors();
    void count_heap();

    std::vector<std::unique_ptr<os::File>> files_;
    std::string no_direct_;
    uint64_t heap_bytes_ = 0;
    GgufTable table_;
    NameIndex by_name_;
};

}  // namespace floatllm

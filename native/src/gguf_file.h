// A GGUF file: its metadata and tensor table, checked before anything else looks at them.
//
// The table is read by this file alone, through a small window, so that a hostile or enormous header
// costs neither memory nor a crash; ggml only ever sees tensors whose shape, type and place in the file
// are proven. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "ggml.h"
#include "os/os.h"

namespace floatllm {

enum class ValueType : int32_t {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
};

struct Meta {
    std::string key;
    ValueType type;
    ValueType element;  // of an array, else equal to type
    uint64_t count;     // elements of an array, else 1
    uint64_t offset;    // of the encoded elements in the file
    uint64_t size;      // of the encoded elements
};

struct Tensor {
    std::string name;
    ggml_type type;
    int64_t ne[4];
    uint32_t file;    // which of the model's files holds it
    uint64_t offset;  // from the start of that file
    uint64_t size;

    // Rows of ne[0] elements, all other dimensions flattened: tensors are contiguous in GGUF.
    int64_t rows() const { return ne[1] * ne[2] * ne[3]; }
    uint64_t row_bytes() const { return size / static_cast<uint64_t>(rows()); }
};

class GgufFile {
  public:
    // A model split into files (NAME-00001-of-00003.gguf) is opened by its first. Throws
    // Error(FLOATLLM_ERROR_MODEL), naming the byte where a file goes wrong.
    explicit GgufFile(const std::string &path);

    // The first file, whose metadata is the model's.
    const std::string &path() const { return files_[0]->path(); }
    const os::File &file(uint32_t index) const { return *files_[index]; }
    // Empty where the file is read past the page cache on request, else why it is not.
    const std::string &no_direct() const { return no_direct_; }
    const std::vector<Meta> &metas() const { return metas_; }
    const std::vector<Tensor> &tensors() const { return tensors_; }

    const Meta *meta(const std::string &key) const;
    // Index of a tensor, or -1.
    int tensor_index(const std::string &name) const;

    // A number of any integer or float type, or `fallback` when the key is absent. Throws
    // Error(FLOATLLM_ERROR_MODEL) for text, arrays, values that are not finite, and integers that are
    // negative where `number_u32` asks for one.
    uint32_t number_u32(const std::string &key, uint32_t fallback) const;
    float number_f32(const std::string &key, float fallback) const;
    // Text of at most 64 KiB, or `fallback`.
    std::string text(const std::string &key, const std::string &fallback) const;

    // Bytes that this object holds on the heap, for the budget.
    uint64_t heap_bytes() const { return heap_bytes_; }

  private:
    void parse(const std::string &path);
    void parse_shards();
    void check_data(size_t first_tensor, uint64_t data_offset);
    double number(const Meta &meta) const;

    std::vector<std::unique_ptr<os::File>> files_;
    std::string no_direct_;
    uint32_t alignment_ = 32;
    uint64_t heap_bytes_ = 0;
    std::vector<Meta> metas_;
    std::vector<Tensor> tensors_;
    std::unordered_map<std::string, size_t> meta_by_key_;
    std::unordered_map<std::string, size_t> tensor_by_name_;
};

}  // namespace floatllm

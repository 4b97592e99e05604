// The header of one GGUF file: metadata and tensor table, checked before anything else looks at them.
//
// It is read by this file alone, through a small window, so that a hostile or enormous header costs neither
// memory nor a crash; ggml only ever sees tensors whose shape, type and place in the file are proven.
// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ggml.h"
#include "name_index.h"
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
    uint64_t entry;   // where that file's table describes it
    uint64_t offset;  // of its data, from the start of that file
    uint64_t size;

    // Rows of ne[0] elements, all other dimensions flattened: tensors are contiguous in GGUF.
    int64_t rows() const { return ne[1] * ne[2] * ne[3]; }
    uint64_t row_bytes() const { return size / static_cast<uint64_t>(rows()); }
};

// Tensors of one model, in all its files: a table made of nothing but entries stays within 64 MiB.
constexpr uint64_t kMaxTensors = 65536;

struct GgufTable {
    std::vector<Meta> metas;
    NameIndex by_key;             // no key appears twice
    std::vector<Tensor> tensors;  // in the table's order; each lies inside the file and overlaps no other

    // nullptr where there is no such key.
    const Meta *meta(const std::string &key) const;
};

// Reads the header of the model's file number `index`, whose table may name `room` tensors at most. Throws
// Error(FLOATLLM_ERROR_MODEL), naming the byte where the file goes wrong, and Error(FLOATLLM_ERROR_ENGINE)
// where it cannot be read.
GgufTable read_table(const os::File &file, uint32_t index, uint64_t room);

// The value of a scalar. Text, arrays and, of read_u32(), all but the whole numbers from 0 to 2^32 - 1 throw
// Error(FLOATLLM_ERROR_MODEL).
double read_number(const os::File &file, const Meta &meta);
uint32_t read_u32(const os::File &file, const Meta &meta);

// "FILE is not a usable GGUF file: at byte N, WHAT." as Error(FLOATLLM_ERROR_MODEL).
[[noreturn]] void refuse_at(const os::File &file, uint64_t offset, const std::string &what);

}  // namespace floatllm

#include "gguf_table.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "error.h"

namespace floatllm {

namespace {

constexpr uint64_t kMaxHeader = uint64_t{256} << 20;  // ten times the largest vocabulary known
constexpr uint64_t kMaxKey = 65535;                   // the format's own bound
constexpr uint64_t kMaxKeys = 131072;
constexpr uint64_t kMaxKeyBytes = uint64_t{8} << 20;
constexpr uint32_t kDefaultAlignment = 32;

// Bytes of one value, 0 for the types of variable length.
uint64_t fixed_size(ValueType type) {
    switch (type) {
        case ValueType::U8:
        case ValueType::I8:
        case ValueType::Bool:
            return 1;
        case ValueType::U16:
        case ValueType::I16:
            return 2;
        case ValueType::U32:
        case ValueType::I32:
        case ValueType::F32:
            return 4;
        case ValueType::U64:
        case ValueType::I64:
        case ValueType::F64:
            return 8;
        case ValueType::String:
        case ValueType::Array:
            break;
    }
    return 0;
}

// Reads a file forwards through a window, never past its end.
class Cursor {
  public:
    explicit Cursor(const os::File &file) : file_(file), window_(size_t{64} << 10) {}

    uint64_t offset() const { return offset_; }

    [[noreturn]] void fail(const std::string &what) const { refuse_at(file_, offset_, what); }

    void need(uint64_t count, const char *what) const {
        if (count > file_.size() - offset_) {
            fail(format("%s needs %llu more bytes but the file ends after %llu; it is cut short or damaged",
                        what, ull(count), ull(file_.size() - offset_)));
        }
        if (offset_ + count > kMaxHeader) {
            fail(format("the metadata grows beyond %s", human_size(kMaxHeader).c_str()));
        }
    }

    void skip(uint64_t count, const char *what) {
        need(count, what);
        offset_ += count;
    }

    void read(void *out, uint64_t count, const char *what) {
        need(count, what);
        char *to = static_cast<char *>(out);
        while (count > 0) {
            if (offset_ < begin_ || offset_ >= end_) {
                begin_ = offset_;
                end_ = std::min<uint64_t>(file_.size(), begin_ + window_.size());
                file_.read_at(begin_, window_.data(), static_cast<size_t>(end_ - begin_));
            }
            const uint64_t step = std::min(count, end_ - offset_);
            std::memcpy(to, window_.data() + (offset_ - begin_), static_cast<size_t>(step));
            to += step;
            offset_ += step;
            count -= step;
        }
    }

    template <typename T>
    T value(const char *what) {
        T out;
        read(&out, sizeof(out), what);
        return out;
    }

    std::string text(uint64_t most, const char *what) {
        const uint64_t length = value<uint64_t>(what);
        if (length > most) {
            fail(format("%s is %llu bytes long, more than %llu", what, ull(length), ull(most)));
        }
        std::string out(static_cast<size_t>(length), '\0');
        read(&out[0], length, what);
        if (out.find('\0') != std::string::npos) {
            fail(format("%s contains a NUL byte", what));
        }
        return out;
    }

  private:
    const os::File &file_;
    std::vector<char> window_;
    uint64_t begin_ = 0;
    uint64_t end_ = 0;
    uint64_t offset_ = 0;
};

ValueType read_type(Cursor &in) {
    const int32_t type = in.value<int32_t>("a value type");
    if (type < 0 || type > 12) {
        in.fail(format("value type %d does not exist", type));
    }
    return static_cast<ValueType>(type);
}

Meta read_meta(Cursor &in) {
    Meta meta;
    meta.key = in.text(kMaxKey, "a key");
    if (meta.key.empty()) {
        in.fail("a key is empty");
    }
    meta.type = meta.element = read_type(in);
    meta.count = 1;
    if (meta.type == ValueType::Array) {
        meta.element = read_type(in);
        if (meta.element == ValueType::Array) {
            in.fail(format("%s is an array of arrays", meta.key.c_str()));
        }
        meta.count = in.value<uint64_t>("an array length");
    }
    meta.offset = in.offset();
    if (meta.element == ValueType::String) {
        // Every string takes 8 bytes at least, so a count that the file cannot hold ends here at once.
        if (meta.count > kMaxHeader / 8) {
            in.fail(format("%s has %llu strings", meta.key.c_str(), ull(meta.count)));
        }
        for (uint64_t i = 0; i < meta.count; ++i) {
            in.skip(in.value<uint64_t>("a string"), "a string");
        }
    } else {
        const uint64_t each = fixed_size(meta.element);
        if (meta.count > kMaxHeader / each) {
            in.fail(format("%s has %llu elements", meta.key.c_str(), ull(meta.count)));
        }
        in.skip(meta.count * each, "an array");
    }
    meta.size = in.offset() - meta.offset;
    return meta;
}

// Elements and bytes of a tensor, with every product checked.
void check_shape(const Cursor &in, Tensor &tensor) {
    const ggml_type_traits *traits = ggml_get_type_traits(tensor.type);
    if (traits->blck_size <= 0 || traits->type_size == 0) {
        in.fail(
            format("tensor %s has type %d, which ggml no longer reads", tensor.name.c_str(), tensor.type));
    }
    uint64_t elements = 1;
    for (int64_t n : tensor.ne) {
        if (n <= 0) {
            in.fail(
                format("tensor %s has a dimension of %lld", tensor.name.c_str(), static_cast<long long>(n)));
        }
        if (static_cast<uint64_t>(n) > static_cast<uint64_t>(INT64_MAX) / elements) {
            in.fail(format("tensor %s has more elements than 2^63", tensor.name.c_str()));
        }
        elements *= static_cast<uint64_t>(n);
    }
    const uint64_t block = static_cast<uint64_t>(traits->blck_size);
    if (static_cast<uint64_t>(tensor.ne[0]) % block != 0) {
        in.fail(format("tensor %s has rows of %lld elements, not a multiple of the %llu of type %s",
                       tensor.name.c_str(), static_cast<long long>(tensor.ne[0]), ull(block),
                       traits->type_name));
    }
    if (elements / block > static_cast<uint64_t>(INT64_MAX) / traits->type_size) {
        in.fail(format("tensor %s is larger than 2^63 bytes", tensor.name.c_str()));
    }
    tensor.size = elements / block * traits->type_size;
}

Tensor read_tensor(Cursor &in, uint32_t file) {
    Tensor tensor;
    tensor.file = file;
    tensor.entry = in.offset();
    tensor.name = in.text(GGML_MAX_NAME - 1, "a tensor name");
    if (tensor.name.empty()) {
        in.fail("a tensor name is empty");
    }
    const uint32_t dimensions = in.value<uint32_t>("a tensor's dimensions");
    if (dimensions < 1 || dimensions > GGML_MAX_DIMS) {
        in.fail(format("tensor %s has %u dimensions; 1 to 4 are possible", tensor.name.c_str(), dimensions));
    }
    std::fill(std::begin(tensor.ne), std::end(tensor.ne), 1);
    for (uint32_t i = 0; i < dimensions; ++i) {
        tensor.ne[i] = in.value<int64_t>("a tensor's shape");
    }
    const int32_t type = in.value<int32_t>("a tensor type");
    if (type < 0 || type >= GGML_TYPE_COUNT) {
        in.fail(format("tensor %s has type %d, which this engine's ggml does not know", tensor.name.c_str(),
                       type));
    }
    tensor.type = static_cast<ggml_type>(type);
    tensor.offset = in.value<uint64_t>("a tensor offset");
    check_shape(in, tensor);
    return tensor;
}

// Every tensor lies inside the file, aligned, and overlaps no other. Makes offsets count from the file's
// start.
void check_data(const os::File &file, std::vector<Tensor> &tensors, uint64_t begin, uint32_t alignment) {
    const uint64_t room = file.size() > begin ? file.size() - begin : 0;
    for (Tensor &tensor : tensors) {
        if (tensor.offset % alignment != 0) {
            refuse_at(file, tensor.entry,
                      format("tensor %s begins at data byte %llu, which is not a multiple of %u",
                             tensor.name.c_str(), ull(tensor.offset), alignment));
        }
        if (tensor.offset > room || tensor.size > room - tensor.offset) {
            refuse_at(file, tensor.entry,
                      format("tensor %s has its data up to byte %.0f but the file has %llu bytes; it is cut "
                             "short or damaged, download it again",
                             tensor.name.c_str(),
                             static_cast<double>(begin) + static_cast<double>(tensor.offset) +
                                 static_cast<double>(tensor.size),
                             ull(file.size())));
        }
        tensor.offset += begin;
    }
    std::vector<uint32_t> order(tensors.size());
    std::iota(order.begin(), order.end(), 0u);
    std::sort(order.begin(), order.end(),
              [&tensors](uint32_t a, uint32_t b) { return tensors[a].offset < tensors[b].offset; });
    for (size_t i = 1; i < order.size(); ++i) {
        const Tensor &before = tensors[order[i - 1]];
        const Tensor &after = tensors[order[i]];
        if (after.offset < before.offset + before.size) {
            refuse_at(file, after.entry,
                      format("tensors %s and %s overlap in the data at byte %llu", before.name.c_str(),
                             after.name.c_str(), ull(after.offset)));
        }
    }
}

void read_start(Cursor &in, const os::File &file) {
    char magic[4] = {};
    if (file.size() >= sizeof(magic)) {
        in.read(magic, sizeof(magic), "the magic");
    }
    if (std::memcmp(magic, "GGUF", 4) != 0) {
        throw Error(
            FLOATLLM_ERROR_MODEL,
            format("%s is not a GGUF file: at byte 0, it does not begin with the letters GGUF. Convert "
                   "the model to GGUF first, or check that the download is complete.",
                   file.path().c_str()));
    }
    const uint32_t version = in.value<uint32_t>("the version");
    if (version != 2 && version != 3) {
        in.fail(version & 0xffff ? format("version %u is not one of 2 and 3", version)
                                 : "the byte order is not this machine's");
    }
}

std::vector<Meta> read_metas(Cursor &in, uint64_t count) {
    // No reserve() by this count: it is the file's claim. The table grows as entries really come.
    std::vector<Meta> metas;
    uint64_t key_bytes = 0;
    for (uint64_t i = 0; i < count; ++i) {
        metas.push_back(read_meta(in));
        key_bytes += metas.back().key.size();
        if (key_bytes > kMaxKeyBytes) {
            in.fail(format("the keys alone take more than %s", human_size(kMaxKeyBytes).c_str()));
        }
    }
    return metas;
}

uint32_t read_alignment(const os::File &file, const Meta *meta) {
    if (meta == nullptr) {
        return kDefaultAlignment;
    }
    if (meta->type != ValueType::U32) {
        refuse_at(file, meta->offset, "general.alignment is not an unsigned 32-bit number");
    }
    const uint32_t alignment = read_u32(file, *meta);
    if (alignment < 8 || (alignment & (alignment - 1)) != 0) {
        refuse_at(file, meta->offset,
                  format("general.alignment is %u, not a power of two from 8 on", alignment));
    }
    return alignment;
}

}  // namespace

const Meta *GgufTable::meta(const std::string &key) const {
    const int64_t place = by_key.find(key);
    return place < 0 ? nullptr : &metas[static_cast<size_t>(place)];
}

GgufTable read_table(const os::File &file, uint32_t index, uint64_t room) {
    Cursor in(file);
    read_start(in, file);
    const uint64_t tensor_count = in.value<uint64_t>("the tensor count");
    const uint64_t meta_count = in.value<uint64_t>("the metadata count");
    if (meta_count > kMaxKeys || tensor_count > room) {
        in.fail(
            format("%llu keys and %llu tensors are claimed; at most %llu keys of a file and %llu tensors of "
                   "a model are read",
                   ull(meta_count), ull(tensor_count), ull(kMaxKeys), ull(kMaxTensors)));
    }
    GgufTable table;
    table.metas = read_metas(in, meta_count);
    table.by_key.reserve(table.metas.size());
    for (const Meta &meta : table.metas) {
        table.by_key.add(meta.key);
    }
    const int64_t twice = table.by_key.sort();
    if (twice >= 0) {
        const Meta &meta = table.metas[static_cast<size_t>(twice)];
        refuse_at(file, meta.offset, format("the key %s appears twice", meta.key.c_str()));
    }
    const uint32_t alignment = read_alignment(file, table.meta("general.alignment"));
    for (uint64_t i = 0; i < tensor_count; ++i) {
        table.tensors.push_back(read_tensor(in, index));
    }
    check_data(file, table.tensors, (in.offset() + alignment - 1) / alignment * alignment, alignment);
    return table;
}

double read_number(const os::File &file, const Meta &meta) {
    unsigned char bytes[8] = {};
    const uint64_t size = fixed_size(meta.type);
    if (size == 0) {
        refuse_at(file, meta.offset, format("the key %s is not a number", meta.key.c_str()));
    }
    file.read_at(meta.offset, bytes, static_cast<size_t>(size));
    const auto as = [&bytes](auto value) {
        std::memcpy(&value, bytes, sizeof(value));
        return static_cast<double>(value);
    };
    switch (meta.type) {
        case ValueType::U8:
        case ValueType::Bool:
            return as(uint8_t{});
        case ValueType::I8:
            return as(int8_t{});
        case ValueType::U16:
            return as(uint16_t{});
        case ValueType::I16:
            return as(int16_t{});
        case ValueType::U32:
            return as(uint32_t{});
        case ValueType::I32:
            return as(int32_t{});
        case ValueType::F32:
            return as(float{});
        case ValueType::U64:
            return as(uint64_t{});
        case ValueType::I64:
            return as(int64_t{});
        case ValueType::F64:
            return as(double{});
        case ValueType::String:
        case ValueType::Array:
            break;
    }
    return 0;
}

uint32_t read_u32(const os::File &file, const Meta &meta) {
    const double value = read_number(file, meta);
    if (!(value >= 0) || value > 4294967295.0 || value != std::floor(value)) {
        refuse_at(
            file, meta.offset,
            format("the key %s is %g, not a whole number from 0 to 4294967295", meta.key.c_str(), value));
    }
    return static_cast<uint32_t>(value);
}

void refuse_at(const os::File &file, uint64_t offset, const std::string &what) {
    throw Error(FLOATLLM_ERROR_MODEL, format("%s is not a usable GGUF file: at byte %llu, %s.",
                                             file.path().c_str(), ull(offset), what.c_str()));
}

}  // namespace floatllm

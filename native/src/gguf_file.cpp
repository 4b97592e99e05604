#include "gguf_file.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "error.h"

namespace floatllm {

namespace {

constexpr uint64_t kMaxHeader = uint64_t{256} << 20;  // ten times the largest vocabulary known
constexpr uint64_t kMaxKey = 65535;                   // the format's own bound
constexpr uint64_t kMaxText = 65536;
// What the tables may hold, so that a header made of nothing but entries stays within 64 MiB.
constexpr uint64_t kMaxKeys = 131072;
constexpr uint64_t kMaxKeyBytes = uint64_t{8} << 20;
constexpr uint64_t kMaxTensors = 65536;

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

    [[noreturn]] void fail(const std::string &what) const {
        throw Error(FLOATLLM_ERROR_MODEL,
                    format("%s is not a usable GGUF file: at byte %llu, %s.", file_.path().c_str(),
                           static_cast<unsigned long long>(offset_), what.c_str()));
    }

    void need(uint64_t count, const char *what) const {
        if (count > file_.size() - offset_) {
            fail(format("%s needs %llu more bytes but the file ends after %llu; it is cut short or damaged",
                        what, static_cast<unsigned long long>(count),
                        static_cast<unsigned long long>(file_.size() - offset_)));
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
            fail(format("%s is %llu bytes long, more than %llu", what,
                        static_cast<unsigned long long>(length), static_cast<unsigned long long>(most)));
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
            in.fail(
                format("%s has %llu strings", meta.key.c_str(), static_cast<unsigned long long>(meta.count)));
        }
        for (uint64_t i = 0; i < meta.count; ++i) {
            in.skip(in.value<uint64_t>("a string"), "a string");
        }
    } else {
        const uint64_t each = fixed_size(meta.element);
        if (meta.count > kMaxHeader / each) {
            in.fail(format("%s has %llu elements", meta.key.c_str(),
                           static_cast<unsigned long long>(meta.count)));
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
                       tensor.name.c_str(), static_cast<long long>(tensor.ne[0]),
                       static_cast<unsigned long long>(block), traits->type_name));
    }
    if (elements / block > static_cast<uint64_t>(INT64_MAX) / traits->type_size) {
        in.fail(format("tensor %s is larger than 2^63 bytes", tensor.name.c_str()));
    }
    tensor.size = elements / block * traits->type_size;
}

Tensor read_tensor(Cursor &in) {
    Tensor tensor;
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

}  // namespace

GgufFile::GgufFile(const std::string &path) {
    parse(path);
    parse_shards();
    for (const auto &file : files_) {
        file->open_direct(no_direct_);
    }
    for (const Meta &meta : metas_) {
        heap_bytes_ += 2 * meta.key.size() + sizeof(Meta) + 96;
    }
    heap_bytes_ += tensors_.size() * (sizeof(Tensor) + 2 * GGML_MAX_NAME + 96);
}

// The other files of a split model: NAME-00001-of-00003.gguf names them all.
void GgufFile::parse_shards() {
    const uint32_t count = number_u32("split.count", 1);
    if (count <= 1) {
        return;
    }
    const std::string first = path();
    const auto refuse = [&first](const std::string &what) {
        throw Error(FLOATLLM_ERROR_MODEL,
                    format("%s is a part of a model split into files: %s.", first.c_str(), what.c_str()));
    };
    const std::string ending = format("-00001-of-%05u.gguf", count);
    if (number_u32("split.no", 0) != 0) {
        refuse("it is not the first; name the one that ends in " + ending);
    }
    if (count > 99999 || first.size() < ending.size() ||
        first.compare(first.size() - ending.size(), ending.size(), ending) != 0) {
        refuse("its name must end in " + ending + " for the others to be found");
    }
    const uint32_t total = number_u32("split.tensors.count", 0);
    for (uint32_t i = 1; i < count; ++i) {
        parse(first.substr(0, first.size() - ending.size()) + format("-%05u-of-%05u.gguf", i + 1, count));
    }
    if (total != 0 && total != tensors_.size()) {
        refuse(format("its files hold %zu tensors, not the %u that it names; a file is of another model",
                      tensors_.size(), total));
    }
}

// Appends one file: the first with its metadata and tensors, the others with their tensors.
void GgufFile::parse(const std::string &path) {
    files_.push_back(std::make_unique<os::File>(path));
    const os::File &file = *files_.back();
    const bool main = files_.size() == 1;
    const size_t first_tensor = tensors_.size();
    Cursor in(file);
    char magic[4] = {};
    if (file.size() >= sizeof(magic)) {
        in.read(magic, sizeof(magic), "the magic");
    }
    if (std::memcmp(magic, "GGUF", 4) != 0) {
        throw Error(
            FLOATLLM_ERROR_MODEL,
            format(
                "%s is not a GGUF file: it does not begin with the letters GGUF. Convert the model to GGUF "
                "first, or check that the download is complete.",
                path.c_str()));
    }
    const uint32_t version = in.value<uint32_t>("the version");
    if (version != 2 && version != 3) {
        in.fail(version & 0xffff ? format("version %u is not one of 2 and 3", version)
                                 : "the byte order is not this machine's");
    }
    const uint64_t tensor_count = in.value<uint64_t>("the tensor count");
    const uint64_t meta_count = in.value<uint64_t>("the metadata count");
    // No reserve() by these counts: they are the file's claim. The tables grow as entries really come.
    if (meta_count > kMaxKeys || tensor_count > kMaxTensors) {
        in.fail(
            format("%llu keys and %llu tensors are claimed; at most %llu and %llu are read",
                   static_cast<unsigned long long>(meta_count), static_cast<unsigned long long>(tensor_count),
                   static_cast<unsigned long long>(kMaxKeys), static_cast<unsigned long long>(kMaxTensors)));
    }
    uint64_t key_bytes = 0;
    alignment_ = 32;
    for (uint64_t i = 0; i < meta_count; ++i) {
        Meta meta = read_meta(in);
        key_bytes += meta.key.size();
        if (key_bytes > kMaxKeyBytes) {
            in.fail(format("the keys alone take more than %s", human_size(kMaxKeyBytes).c_str()));
        }
        if (!main) {
            if (meta.key == "general.alignment") {
                in.fail("general.alignment stands in a file that is not the model's first");
            }
            continue;
        }
        if (!meta_by_key_.emplace(meta.key, metas_.size()).second) {
            in.fail(format("the key %s appears twice", meta.key.c_str()));
        }
        metas_.push_back(std::move(meta));
    }
    const Meta *alignment = main ? meta("general.alignment") : nullptr;
    if (alignment != nullptr) {
        if (alignment->type != ValueType::U32) {
            in.fail("general.alignment is not an unsigned 32-bit number");
        }
        alignment_ = number_u32("general.alignment", 32);
        if (alignment_ == 0 || (alignment_ & (alignment_ - 1)) != 0 || alignment_ < 8) {
            in.fail(format("general.alignment is %u, not a power of two from 8 on", alignment_));
        }
    }
    for (uint64_t i = 0; i < tensor_count; ++i) {
        Tensor tensor = read_tensor(in);
        tensor.file = static_cast<uint32_t>(files_.size() - 1);
        if (!tensor_by_name_.emplace(tensor.name, tensors_.size()).second) {
            in.fail(format("the tensor %s appears twice", tensor.name.c_str()));
        }
        tensors_.push_back(std::move(tensor));
    }
    check_data(first_tensor, (in.offset() + alignment_ - 1) / alignment_ * alignment_);
}

// Every tensor of the last file lies inside it, aligned, and overlaps no other.
void GgufFile::check_data(size_t first_tensor, uint64_t data_offset) {
    const os::File &file = *files_.back();
    const auto refuse = [&file](const std::string &what) {
        throw Error(FLOATLLM_ERROR_MODEL,
                    format("%s is not a usable GGUF file: %s.", file.path().c_str(), what.c_str()));
    };
    for (size_t i = first_tensor; i < tensors_.size(); ++i) {
        Tensor &tensor = tensors_[i];
        if (tensor.offset % alignment_ != 0) {
            refuse(format("tensor %s begins at data byte %llu, which is not a multiple of %u",
                          tensor.name.c_str(), static_cast<unsigned long long>(tensor.offset), alignment_));
        }
        const uint64_t room = file.size() > data_offset ? file.size() - data_offset : 0;
        if (tensor.offset > room || tensor.size > room - tensor.offset) {
            refuse(
                format("tensor %s ends at byte %.0f but the file has %llu bytes; it is cut short or damaged, "
                       "download it again",
                       tensor.name.c_str(),
                       static_cast<double>(data_offset) + static_cast<double>(tensor.offset) +
                           static_cast<double>(tensor.size),
                       static_cast<unsigned long long>(file.size())));
        }
        tensor.offset += data_offset;
    }
    std::vector<size_t> order(tensors_.size() - first_tensor);
    std::iota(order.begin(), order.end(), first_tensor);
    std::sort(order.begin(), order.end(),
              [this](size_t a, size_t b) { return tensors_[a].offset < tensors_[b].offset; });
    for (size_t i = 1; i < order.size(); ++i) {
        const Tensor &before = tensors_[order[i - 1]];
        const Tensor &after = tensors_[order[i]];
        if (after.offset < before.offset + before.size) {
            refuse(format("tensors %s and %s overlap at byte %llu", before.name.c_str(), after.name.c_str(),
                          static_cast<unsigned long long>(after.offset)));
        }
    }
}

const Meta *GgufFile::meta(const std::string &key) const {
    const auto found = meta_by_key_.find(key);
    return found == meta_by_key_.end() ? nullptr : &metas_[found->second];
}

int GgufFile::tensor_index(const std::string &name) const {
    const auto found = tensor_by_name_.find(name);
    return found == tensor_by_name_.end() ? -1 : static_cast<int>(found->second);
}

double GgufFile::number(const Meta &meta) const {
    unsigned char bytes[8] = {};
    const uint64_t size = fixed_size(meta.type);
    if (size == 0) {
        throw Error(FLOATLLM_ERROR_MODEL,
                    format("%s: the key %s is not a number.", path().c_str(), meta.key.c_str()));
    }
    files_[0]->read_at(meta.offset, bytes, static_cast<size_t>(size));
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

uint32_t GgufFile::number_u32(const std::string &key, uint32_t fallback) const {
    const Meta *found = meta(key);
    if (found == nullptr) {
        return fallback;
    }
    const double value = number(*found);
    if (!(value >= 0) || value > 4294967295.0 || value != std::floor(value)) {
        throw Error(FLOATLLM_ERROR_MODEL,
                    format("%s: the key %s is %g, not a whole number from 0 to 4294967295.", path().c_str(),
                           key.c_str(), value));
    }
    return static_cast<uint32_t>(value);
}

float GgufFile::number_f32(const std::string &key, float fallback) const {
    const Meta *found = meta(key);
    if (found == nullptr) {
        return fallback;
    }
    const double value = number(*found);
    if (!std::isfinite(value)) {
        throw Error(FLOATLLM_ERROR_MODEL,
                    format("%s: the key %s is not finite.", path().c_str(), key.c_str()));
    }
    return static_cast<float>(value);
}

std::string GgufFile::text(const std::string &key, const std::string &fallback) const {
    const Meta *found = meta(key);
    if (found == nullptr) {
        return fallback;
    }
    if (found->type != ValueType::String || found->size - 8 > kMaxText) {
        throw Error(FLOATLLM_ERROR_MODEL,
                    format("%s: the key %s is not a text of at most 64 KiB.", path().c_str(), key.c_str()));
    }
    std::string out(static_cast<size_t>(found->size - 8), '\0');
    files_[0]->read_at(found->offset + 8, &out[0], out.size());
    return out;
}

}  // namespace floatllm

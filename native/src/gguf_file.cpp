#include "gguf_file.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "error.h"

namespace floatllm {

namespace {

constexpr uint64_t kMaxText = 65536;
// Each is two open files.
constexpr uint32_t kMaxShards = 1000;

}  // namespace

GgufFile::GgufFile(const std::string &path) {
    files_.push_back(std::make_unique<os::File>(path));
    table_ = read_table(*files_[0], 0, kMaxTensors);
    add_shards();
    index_tensors();
    for (const auto &file : files_) {
        std::string why;
        if (!file->open_direct(why)) {
            no_direct_ = why;
        }
    }
    count_heap();
}

// The other files of a split model: NAME-00001-of-00003.gguf names them all.
void GgufFile::add_shards() {
    const uint32_t count = number_u32("split.count", 1);
    if (count <= 1) {
        return;
    }
    const std::string first = path();
    const auto name_end = [count](uint32_t index) { return format("-%05u-of-%05u.gguf", index + 1, count); };
    if (count > kMaxShards) {
        refuse_key("split.count", format("the model is split into %u files; at most %u are opened together",
                                         count, kMaxShards));
    }
    if (number_u32("split.no", 0) != 0) {
        refuse_key(
            "split.no",
            "this is a part of a split model, but not the first; name the file that ends in " + name_end(0));
    }
    const std::string ending = name_end(0);
    if (first.size() < ending.size() ||
        first.compare(first.size() - ending.size(), ending.size(), ending) != 0) {
        refuse_key("split.count",
                   format("this is the first part of a model split into %u files; its name must "
                          "end in %s for the others to be found",
                          count, ending.c_str()));
    }
    const Meta *total = meta("split.tensors.count");
    for (uint32_t i = 1; i < count; ++i) {
        try {
            files_.push_back(
                std::make_unique<os::File>(first.substr(0, first.size() - ending.size()) + name_end(i)));
        } catch (const Error &reason) {
            throw Error(reason.status(),
                        format("Part %u of the %u of %s is not there: %s All of them belong in "
                               "one folder.",
                               i + 1, count, first.c_str(), reason.what()));
        }
        const os::File &file = *files_.back();
        GgufTable part = read_table(file, i, kMaxTensors - table_.tensors.size());
        // A file of another model, or the same one twice under two names, would be computed on without a
        // word.
        const auto agree = [&](const char *key, uint32_t wanted) {
            const Meta *found = part.meta(key);
            const uint32_t value = found == nullptr ? 0 : read_u32(file, *found);
            if (found == nullptr || value != wanted) {
                refuse_at(file, found == nullptr ? 0 : found->offset,
                          format("%s is %s where part %u of %s must have %u; it is a part of another model",
                                 key, found == nullptr ? "missing" : format("%u", value).c_str(), i + 1,
                                 first.c_str(), wanted));
            }
        };
        agree("split.count", count);
        agree("split.no", i);
        if (total != nullptr) {
            agree("split.tensors.count", number_u32("split.tensors.count", 0));
        }
        table_.tensors.insert(table_.tensors.end(), std::make_move_iterator(part.tensors.begin()),
                              std::make_move_iterator(part.tensors.end()));
    }
    if (total != nullptr && number_u32("split.tensors.count", 0) != table_.tensors.size()) {
        refuse_key(
            "split.tensors.count",
            format("split.tensors.count is %u, but the %u files hold %zu tensors; one is damaged or of "
                   "another model",
                   number_u32("split.tensors.count", 0), count, table_.tensors.size()));
    }
}

void GgufFile::index_tensors() {
    by_name_.reserve(table_.tensors.size());
    for (const Tensor &tensor : table_.tensors) {
        by_name_.add(tensor.name);
    }
    const int64_t twice = by_name_.sort();
    if (twice >= 0) {
        const Tensor &tensor = table_.tensors[static_cast<size_t>(twice)];
        refuse_tensor(tensor, format("the tensor %s appears twice", tensor.name.c_str()));
    }
}

void GgufFile::count_heap() {
    heap_bytes_ = by_name_.heap_bytes() + table_.by_key.heap_bytes() +
                  table_.metas.capacity() * sizeof(Meta) + table_.tensors.capacity() * sizeof(Tensor) +
                  table_.tensors.size() * 2 * GGML_MAX_NAME;
    for (const Meta &meta : table_.metas) {
        heap_bytes_ += meta.key.capacity() + 16;
    }
}

const os::File &GgufFile::largest_file() const {
    return **std::max_element(files_.begin(), files_.end(),
                              [](const auto &a, const auto &b) { return a->size() < b->size(); });
}

uint32_t GgufFile::number_u32(const std::string &key, uint32_t fallback) const {
    const Meta *found = meta(key);
    return found == nullptr ? fallback : read_u32(*files_[0], *found);
}

float GgufFile::number_f32(const std::string &key, float fallback) const {
    const Meta *found = meta(key);
    if (found == nullptr) {
        return fallback;
    }
    const double value = read_number(*files_[0], *found);
    // A double may be finite and still be more than a float holds.
    if (!(std::fabs(value) <= 3.4028234663852886e38)) {
        refuse_key(key, format("the key %s is not finite", key.c_str()));
    }
    return static_cast<float>(value);
}

std::string GgufFile::text(const std::string &key, const std::string &fallback) const {
    const Meta *found = meta(key);
    if (found == nullptr) {
        return fallback;
    }
    if (found->type != ValueType::String || found->size - 8 > kMaxText) {
        refuse_key(key, format("the key %s is not a text of at most 64 KiB", key.c_str()));
    }
    std::string out(static_cast<size_t>(found->size - 8), '\0');
    files_[0]->read_at(found->offset + 8, &out[0], out.size());
    return out;
}

void GgufFile::refuse_key(const std::string &key, const std::string &what) const {
    const Meta *found = meta(key);
    const std::string where =
        found == nullptr ? "" : format("at byte %llu, ", static_cast<unsigned long long>(found->offset));
    throw Error(FLOATLLM_ERROR_MODEL, format("%s: %s%s.", path().c_str(), where.c_str(), what.c_str()));
}

void GgufFile::refuse_tensor(const Tensor &tensor, const std::string &what) const {
    throw Error(FLOATLLM_ERROR_MODEL, format("%s: at byte %llu, %s.", files_[tensor.file]->path().c_str(),
                                             static_cast<unsigned long long>(tensor.entry), what.c_str()));
}

}  // namespace floatllm

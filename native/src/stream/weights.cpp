#include "stream/weights.h"

#include <stdexcept>

#include "damage.h"
#include "error.h"

namespace floatllm::stream {

void Weights::map(const void *begin, uint64_t size, uint32_t file, uint64_t offset) {
    regions_[reinterpret_cast<uintptr_t>(begin)] = {size, file, offset};
}

void Weights::unmap(const void *begin) {
    const auto region = regions_.find(reinterpret_cast<uintptr_t>(begin));
    if (region == regions_.end()) {
        return;
    }
    const uintptr_t end = region->first + region->second.size;
    for (auto weight = weights_.begin(); weight != weights_.end();) {
        const uintptr_t at = reinterpret_cast<uintptr_t>(weight->first);
        weight = at >= region->first && at < end ? weights_.erase(weight) : std::next(weight);
    }
    regions_.erase(region);
}

const std::pair<const uintptr_t, Weights::Region> *Weights::region_of(const void *address) const {
    const uintptr_t at = reinterpret_cast<uintptr_t>(address);
    auto region = regions_.upper_bound(at);
    if (region == regions_.begin()) {
        return nullptr;
    }
    --region;
    return at < region->first + region->second.size ? &*region : nullptr;
}

Weight *Weights::find(const ggml_tensor *tensor) {
    const auto known = weights_.find(tensor->data);
    if (known != weights_.end()) {
        return known->second.get();
    }
    const auto *region = region_of(tensor->data);
    if (region == nullptr) {
        return nullptr;
    }
    const uint64_t offset =
        region->second.offset + (reinterpret_cast<uintptr_t>(tensor->data) - region->first);
    auto weight = std::make_unique<Weight>();
    weight->name = tensor->name;
    weight->type = tensor->type;
    weight->range = {region->second.file, offset, ggml_nbytes(tensor)};
    if (weight->range.end() > files_[weight->range.file]->size()) {
        throw Error(FLOATLLM_ERROR_MODEL, format("%s: the tensor %s reaches beyond the end of the file.",
                                                 files_[weight->range.file]->path().c_str(), tensor->name));
    }
    return (weights_[tensor->data] = std::move(weight)).get();
}

void Weights::forget_kept() {
    for (const auto &[address, weight] : weights_) {
        weight->kept = nullptr;
    }
}

void Weights::read(const void *address, void *to, size_t size) const {
    const auto *region = region_of(address);
    if (region == nullptr) {
        throw std::logic_error("a weight is read that no file holds; this is a defect of FloatLLM");
    }
    const uint64_t skip = reinterpret_cast<uintptr_t>(address) - region->first;
    files_[region->second.file]->read_at(region->second.offset + skip, to, size);
}

void require_sound(const os::File &file, const Weight &weight, uint64_t from, const char *data,
                   uint64_t size) {
    const int64_t bad = first_damaged(weight.type, data, size);
    if (bad >= 0) {
        refuse_damage(file.path(), weight.name, weight.type,
                      weight.range.offset + from + static_cast<uint64_t>(bad));
    }
}

}  // namespace floatllm::stream

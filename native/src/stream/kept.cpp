#include "stream/kept.h"

#include <algorithm>

#include "stream/device.h"

namespace floatllm::stream {

namespace {

// Of these only some rows are read in a pass: tables of embeddings, where the vocabulary's matrix is not one.
bool is_table(const std::vector<Tensor> &tensors, const Tensor &tensor) {
    const auto named = [](const char *name) {
        return [name](const Tensor &other) { return other.name == name; };
    };
    return tensor.name == "per_layer_token_embd.weight" ||
           (tensor.name == "token_embd.weight" &&
            std::any_of(tensors.begin(), tensors.end(), named("output.weight")));
}

}  // namespace

std::vector<Range> choose_kept(const std::vector<Tensor> &tensors, uint64_t budget) {
    std::vector<Range> wanted;
    uint64_t all = 0;
    for (const Tensor &tensor : tensors) {
        const Range range{tensor.file, tensor.offset, tensor.size};
        if (tensor.size > kSmallWeight && !is_table(tensors, tensor)) {
            wanted.push_back(range);
            all += slot_bytes(range);
        }
    }
    std::vector<Range> kept;
    std::vector<Range> passed;
    uint64_t left = budget;
    uint64_t seen = 0;
    for (const Range &range : wanted) {
        const uint64_t size = slot_bytes(range);
        seen += size;
        // As much of the budget was used as of the weights was seen, or less.
        const double due =
            static_cast<double>(budget) * (static_cast<double>(seen) / static_cast<double>(all));
        if (size <= left && static_cast<double>(budget - left + size) <= due) {
            kept.push_back(range);
            left -= size;
        } else {
            passed.push_back(range);
        }
    }
    for (const Range &range : passed) {
        if (slot_bytes(range) <= left) {
            kept.push_back(range);
            left -= slot_bytes(range);
        }
    }
    return kept;
}

}  // namespace floatllm::stream

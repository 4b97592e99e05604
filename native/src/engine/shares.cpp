#include "engine/shares.h"

#include <algorithm>

#include "error.h"
#include "layout.h"
#include "stream/device.h"

namespace floatllm::engine {

namespace {

constexpr uint64_t kMib = uint64_t{1} << 20;
constexpr uint32_t kWidest = 512;
constexpr uint32_t kShortest = 256;  // positions; libllama rounds up to it
// Readers need a few slots to stay ahead of what computes; larger ones are read no faster.
constexpr unsigned kSlots = 4;
constexpr unsigned kFewestSlots = 2;
constexpr uint64_t kLargestSlot = 12 * kMib;
// Rows of a matrix that is cut, and the edges of what is read for them.
constexpr uint64_t kSmallestSlot = 256 * 1024;

// Whether a matrix may pass through a slot some rows at a time: see stream/cutting.h. Only products may, and
// what is not quantised may be something else: the states of a recurrent layer, the biases of experts.
bool splits(const Tensor &tensor) {
    const bool product =
        tensor.type != GGML_TYPE_F32 || tensor.name == "output.weight" || tensor.name == "token_embd.weight";
    return product && tensor.ne[2] == 1 && tensor.ne[3] == 1 && tensor.ne[1] % 16 == 0;
}

uint64_t smallest_slot(const Weights &weights) { return std::max(weights.largest, kSmallestSlot); }

uint64_t smallest_total(const Weights &weights, const Demand &demand) {
    const uint64_t ring = std::min(kFewestSlots * smallest_slot(weights), weights.dense);
    return demand.total() + weights.small + weights.rows + ring;
}

}  // namespace

Weights weights_of(const std::vector<Tensor> &tensors) {
    Weights weights{0, stream::kRowBytes, 0, 0};
    for (const Tensor &tensor : tensors) {
        const stream::Range range{tensor.file, tensor.offset, tensor.size};
        if (tensor.size <= stream::kSmallWeight) {
            // Each has pages of its own.
            weights.small += stream::slot_bytes(range);
            continue;
        }
        weights.dense += stream::slot_bytes(range);
        const uint64_t rows = splits(tensor) ? stream::kSplitGrain * tensor.row_bytes() : tensor.size;
        weights.largest = std::max(weights.largest, rows + 2 * os::kDirectAlignment);
    }
    return weights;
}

uint64_t work_of(const std::vector<Tensor> &tensors, uint32_t width, unsigned threads) {
    // Activations of a product become numbers of two bytes at most, and tiled kernels have half a megabyte
    // each.
    uint64_t longest = 0;
    for (const Tensor &tensor : tensors) {
        longest =
            std::max(longest, tensor.size > stream::kSmallWeight ? static_cast<uint64_t>(tensor.ne[0]) : 0);
    }
    return 2 * longest * width + threads * (kMib / 2);
}

Shares share_out(uint64_t budget, const Weights &weights, uint32_t positions, uint32_t trained,
                 const Ask &ask) {
    uint32_t chosen = positions;
    if (chosen == 0) {
        chosen = std::max(kShortest, trained / kShortest * kShortest);
        // What does not grow with the positions, as states do not, is left out of the quarter by halving no
        // further than it helps.
        while (chosen > kShortest && ask(chosen, 1).context > budget / 4) {
            chosen = std::max(kShortest, chosen / 2 / kShortest * kShortest);
        }
    }
    uint32_t width = std::min(kWidest, chosen);
    Demand demand = ask(chosen, width);
    while (smallest_total(weights, demand) > budget && width > 1) {
        width /= 2;
        demand = ask(chosen, width);
    }
    const uint64_t least = smallest_total(weights, demand);
    if (least > budget) {
        throw Error(
            FLOATLLM_ERROR_ENGINE,
            format("The model needs %s at least with a context of %u, and the budget is %s. Give --memory "
                   "%lluK or more%s.",
                   human_size(least).c_str(), chosen, human_size(budget).c_str(),
                   ull(round_up(least, 1024) / 1024), chosen > kShortest ? ", or a smaller --ctx" : ""));
    }
    Shares shares{chosen, width, demand, 0, 0, weights.dense};
    const uint64_t left = budget - demand.total() - weights.small - weights.rows;
    shares.slot_bytes = smallest_slot(weights);
    shares.slots = kFewestSlots;
    if (weights.dense <= left) {
        return shares;  // Nothing passes through the ring, so it takes no memory.
    }
    // The ring takes a third at most, if the largest weight leaves the choice.
    shares.slot_bytes = std::max(smallest_slot(weights), std::min(kLargestSlot, left / (3 * kSlots)));
    shares.slots = static_cast<unsigned>(
        std::min<uint64_t>(kSlots, std::max<uint64_t>(kFewestSlots, left / shares.slot_bytes)));
    shares.kept = left - std::min(left, shares.slots * shares.slot_bytes);
    return shares;
}

}  // namespace floatllm::engine

#include "pass.h"

#include <algorithm>
#include <cmath>

#include "plan.h"

namespace floatllm {

namespace {

size_t padded(size_t count, size_t grain, size_t most) {
    return std::min(static_cast<size_t>(round_up(count, grain)), most);
}

Output output(const Addition &addition, size_t index, size_t vocab) {
    return {addition.logits == nullptr ? nullptr : addition.logits + index * vocab,
            addition.top == 0 ? nullptr : addition.ids + index * addition.top, addition.top};
}

}  // namespace

std::vector<Pass> make_passes(const std::vector<Addition> &additions, const std::vector<size_t> &lengths,
                              const PassLimits &limits) {
    std::vector<Pass> passes(1);
    int64_t mask = 0;
    for (const Addition &addition : additions) {
        const size_t first_wanted = addition.count - addition.outputs;
        for (size_t done = 0; done < addition.count;) {
            size_t room = limits.width - passes.back().tokens.size();
            // Beyond the tokens without logits, each takes one of the outputs.
            const size_t silent = first_wanted > done ? first_wanted - done : 0;
            room = std::min(room, silent + limits.outputs - passes.back().wanted.size());
            if (room == 0) {
                passes.emplace_back();
                mask = 0;
                continue;
            }
            Pass &pass = passes.back();
            const size_t count = std::min(room, addition.count - done);
            const size_t begin = lengths[addition.sequence] + done;
            for (size_t from = 0; from < count;) {
                const size_t rest = count - from;
                const size_t block = limits.attention_block;
                const size_t taken = block > 0 && rest >= 2 * block ? block : rest;
                // Where a block is as high as kernels' tiles, what none of its positions sees is left out.
                const uint64_t grain = block > 0 && taken >= block ? kTileCells : kKvGrain;
                const size_t seen = static_cast<size_t>(round_up(begin + from + taken, grain));
                pass.shape.segments.push_back(
                    {addition.sequence, static_cast<int64_t>(pass.tokens.size() + from),
                     static_cast<int64_t>(taken), static_cast<int64_t>(seen), mask});
                mask += static_cast<int64_t>(seen * taken);
                from += taken;
            }
            for (size_t i = 0; i < count; ++i) {
                const size_t index = done + i;
                if (index >= first_wanted) {
                    pass.wanted.push_back(static_cast<int32_t>(pass.tokens.size()));
                    pass.outputs.push_back(output(addition, index - first_wanted, limits.vocab));
                }
                pass.tokens.push_back(addition.tokens[index]);
                pass.positions.push_back(static_cast<int32_t>(begin + i));
                pass.cells.push_back(static_cast<int64_t>(addition.sequence * limits.cells + begin + i));
            }
            done += count;
        }
    }
    for (Pass &pass : passes) {
        pass.shape.tokens = static_cast<int64_t>(pass.tokens.size());
        pass.positions.resize(padded(pass.tokens.size(), limits.position_grain, limits.width), 0);
        pass.wanted.resize(padded(pass.wanted.size(), limits.output_grain, limits.outputs), 0);
        pass.shape.positions = static_cast<int64_t>(pass.positions.size());
        pass.shape.outputs = static_cast<int64_t>(pass.wanted.size());
    }
    return passes;
}

void fill_mask(const Pass &pass, size_t window, std::vector<ggml_fp16_t> &mask) {
    const ggml_fp16_t zero = ggml_fp32_to_fp16(0.0f);
    const ggml_fp16_t hidden = ggml_fp32_to_fp16(-INFINITY);
    mask.clear();
    // As much as the plan counts, and no growing beyond.
    size_t size = 0;
    for (const Segment &segment : pass.shape.segments) {
        size += static_cast<size_t>(segment.count) * static_cast<size_t>(segment.cells);
    }
    mask.reserve(size);
    for (const Segment &segment : pass.shape.segments) {
        for (int64_t i = 0; i < segment.count; ++i) {
            const size_t row = mask.size();
            mask.resize(row + static_cast<size_t>(segment.cells), hidden);
            const size_t end =
                static_cast<size_t>(pass.positions[static_cast<size_t>(segment.first + i)]) + 1;
            const size_t seen = std::min(window, end);
            std::fill_n(mask.begin() + static_cast<std::ptrdiff_t>(row + end - seen), seen, zero);
        }
    }
}

}  // namespace floatllm

#include "layout.h"

#include <algorithm>

namespace floatllm {

Layout lay_out(const Program &program, const PassSize &size) {
    const uint64_t width = size.width;
    const uint64_t outputs = size.outputs;
    Layout layout{};
    const auto take = [&layout](Region &region, uint64_t bytes) {
        region = {layout.bytes, bytes};
        layout.bytes += round_up(bytes, kLayoutAlign);
    };
    uint64_t widest = 0;
    for (size_t act = 0; act < kActs; ++act) {
        const uint64_t rows = program.rows[act];
        const bool logits = act == static_cast<size_t>(Act::Logits);
        const uint64_t behind = act == static_cast<size_t>(Act::Att) ? size.attention_scratch : 0;
        take(layout.act[act], rows * sizeof(float) * (logits ? outputs : width) + behind);
        widest = std::max(widest, logits ? rows * outputs : rows * width);
    }
    if (program.arch != nullptr) {
        take(layout.slice, size.sliced && width > 1 ? widest * sizeof(float) : 0);
        take(layout.positions, width * sizeof(int32_t));
        take(layout.cells, width * sizeof(int64_t));
        take(layout.wanted, outputs * sizeof(int32_t));
        take(layout.mask, uint64_t{2} * size.cells * width);
        take(layout.near, program.dims.window > 0 ? uint64_t{2} * size.cells * width : 0);
    }
    take(layout.ones, static_cast<uint64_t>(program.touch_width) * sizeof(float));
    take(layout.sums, static_cast<uint64_t>(program.touch_rows) * sizeof(float));
    return layout;
}

uint64_t kernel_scratch(const Program &program, uint32_t width, uint32_t threads) {
    uint64_t longest = static_cast<uint64_t>(program.touch_width);
    for (size_t act = 0; act < kActs; ++act) {
        if (act != static_cast<size_t>(Act::Logits)) {
            longest = std::max<uint64_t>(longest, uint64_t{program.rows[act]} * width);
        }
    }
    const Dims &d = program.dims;
    const uint64_t tiles = sizeof(float) * (64 * 2 * (uint64_t{d.head_k} + d.head_v) + 2 * 64 * 64) * threads;
    // ggml/patches/attention-in-fixed-parts.cmake: eight.
    const uint64_t split = sizeof(float) * (8 * uint64_t{d.heads} * (2 + d.head_v) +
                                            threads * (uint64_t{d.head_k} + 2 * d.head_v));
    return std::max(longest * sizeof(float), program.arch != nullptr ? std::max(tiles, split) : 0) +
           uint64_t{256} * threads;
}

uint32_t pass_width(const Program &program, uint64_t weight_bytes) {
    uint64_t per_position = 0;
    for (size_t act = 0; act < kActs; ++act) {
        per_position +=
            act == static_cast<size_t>(Act::Logits) ? 0 : sizeof(float) * uint64_t{program.rows[act]};
    }
    const uint64_t mib = uint64_t{1} << 20;
    const uint64_t allowed = std::min(std::max(64 * mib, weight_bytes / 32), 256 * mib);
    uint32_t width = 512;
    while (width > 1 && width * per_position > allowed) {
        width /= 2;
    }
    return width;
}

}  // namespace floatllm

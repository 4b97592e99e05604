#include "choice.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace floatllm {

bool all_finite(const float *values, size_t count) {
    // All bits of the exponent are set in nothing else; without an early way out this is done many at a time.
    constexpr uint32_t kExponent = 0x7f800000;
    uint32_t found = 0;
    for (size_t i = 0; i < count; ++i) {
        uint32_t bits;
        std::memcpy(&bits, values + i, sizeof bits);
        found |= (bits & kExponent) == kExponent ? 1U : 0U;
    }
    return found == 0;
}

size_t top(const float *values, size_t count, uint32_t k, uint32_t *ids) {
    const size_t wanted = std::min<size_t>(k, count);
    if (wanted == 0) {
        return 0;
    }
    const auto before = [values](uint32_t a, uint32_t b) {
        return values[a] > values[b] || (values[a] == values[b] && a < b);
    };
    for (size_t i = 0; i < count; ++i) {
        // A NaN would leave the heap without an order.
        if (std::isnan(values[i])) {
            return 0;
        }
    }
    // A heap with the last of those taken on top.
    for (size_t i = 0; i < wanted; ++i) {
        ids[i] = static_cast<uint32_t>(i);
    }
    std::make_heap(ids, ids + wanted, before);
    float last = values[ids[0]];
    for (size_t i = wanted; i < count; ++i) {
        // Of equals the first is there already.
        if (values[i] > last) {
            std::pop_heap(ids, ids + wanted, before);
            ids[wanted - 1] = static_cast<uint32_t>(i);
            std::push_heap(ids, ids + wanted, before);
            last = values[ids[0]];
        }
    }
    std::sort_heap(ids, ids + wanted, before);
    return std::isinf(values[ids[0]]) ? 0 : wanted;
}

}  // namespace floatllm

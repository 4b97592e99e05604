// The likeliest tokens of a row of logits. Pure, and without memory of its own.
#pragma once

#include <cstddef>
#include <cstdint>

namespace floatllm {

// Whether none of the values is infinite or NaN.
bool all_finite(const float *values, size_t count);

// Writes the indices of the `k` largest values, or of all where there are fewer, largest first and of equals
// the first first; returns how many. 0, with nothing written that means anything, where a value is NaN or the
// largest is infinite: such values rank nothing. Smaller ones may be -infinity.
size_t top(const float *values, size_t count, uint32_t k, uint32_t *ids);

}  // namespace floatllm

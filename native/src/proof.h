// Proves a device, operation by operation: what the engine's graphs are made of is computed there and on the
// CPU, and the CPU itself is compared with plain sums in double precision.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "floatllm.h"

namespace floatllm {

// Told of every check in turn; false stops.
using CheckListener = std::function<bool(const floatllm_check &)>;

// Takes below 64 MiB of the device. Throws Error(FLOATLLM_ERROR_MISSING) for a device that is not here, and
// Error(FLOATLLM_ERROR_ENGINE) for one that gives no memory, that fails, or where `tell` stops.
void prove(const std::string &device, const CheckListener &tell);

// How far numbers are from those expected: their normalised mean squared error (the sum of squared
// differences over the sum of squares expected, as in ggml's own backend tests), or, where that is more, the
// square of the largest difference over 400 times the mean square. Infinite where nothing can be told from
// it: another count, a number that is not finite, or nothing but zeros expected.
double distance(const std::vector<float> &found, const std::vector<float> &expected);

}  // namespace floatllm

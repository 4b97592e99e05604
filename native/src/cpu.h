// Whether this processor can run the kernels that the engine was compiled with.
#pragma once

#include <string>

namespace floatllm {

// Throws Error(FLOATLLM_ERROR_MISSING) where this processor lacks an extension that the kernels of a CPU
// backend that is part of the engine use. Asks the processor itself, with code that runs on any of its
// architecture.
void require_cpu();

// The processor's own name, or "this processor".
std::string cpu_name();

}  // namespace floatllm

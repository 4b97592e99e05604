// How fast weights go to a device, and how fast the CPU reads them, by short measurements.
#pragma once

#include "plan.h"

namespace floatllm {

// Bytes per second from pinned memory of the host to that of the plan's device.
double link_rate(const Plan &plan);

// Bytes per second of weights of the chunk's types that the CPU multiplies with one position.
double cpu_rate(const Plan &plan, const Chunk &chunk);

// The share of streamed weights that the CPU should compute while the link carries the rest, by a measurement
// of both for a tenth of a second; 0 where nothing can be shared. Throws Error(FLOATLLM_ERROR_ENGINE).
double measured_cpu_share(const Plan &plan);

}  // namespace floatllm

// How long a pass of a plan takes, from a short measurement of its reading and of its computing.
#pragma once

#include "floatllm.h"
#include "plan.h"

namespace floatllm {

// Reads some of the plan's streamed chunks as the plan would, and computes some of its weights, for a
// fraction of a second each and in no more memory than the plan grants to chunks. Needs a plan of
// FLOATLLM_MODE_RUN. Throws Error(FLOATLLM_ERROR_ENGINE) as a session does.
floatllm_prediction predict(const Plans &plans);

}  // namespace floatllm

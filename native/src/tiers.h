// Which chunks stay where they are computed, which in the host's memory, and which come from the disk.
#pragma once

#include "plan.h"

namespace floatllm {

// Slots of a plan's ring, with the one beside it where what is computed in turn is repacked.
uint64_t slots_taken(const Plan &plan);

// Marks the chunks of a plan that were cut for slots of `slot_bytes`, and adds up what they take.
void choose_tiers(Plan &plan, const PlanRequest &request, uint64_t slot_bytes);

}  // namespace floatllm

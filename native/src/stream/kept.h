// Which weights stay in memory. Pure.
#pragma once

#include <vector>

#include "gguf_table.h"
#include "stream/cutting.h"

namespace floatllm::stream {

// Of a model whose passes read every weight once, in order: any part that stays saves just its own reading,
// and a cache of what was read last would save nothing. So the part is spread evenly, and the readers have as
// much to do in each stretch of a pass. `budget`: bytes that they may take, as they are read.
std::vector<Range> choose_kept(const std::vector<Tensor> &tensors, uint64_t budget);

}  // namespace floatllm::stream

// Weights that are infinite or NaN. No file is read when it is opened, so they are looked for in what is read
// for a pass, the first time; and once more, everywhere, where a computation gives no numbers all the same.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "gguf_file.h"

namespace floatllm {

// Where among whole blocks of a type the first with such a weight begins, or -1. Most kernels round what
// comes out of a product to 8 bits before the next, so a NaN seldom reaches the end of a pass.
int64_t first_damaged(ggml_type type, const void *blocks, uint64_t bytes);

// "FILE: at byte N, WHAT" as Error(FLOATLLM_ERROR_MODEL); `at` is a byte of the file.
[[noreturn]] void refuse_damage(const std::string &path, const std::string &tensor, ggml_type type,
                                uint64_t at);
[[noreturn]] void refuse_damage(const GgufFile &model, const Tensor &tensor, uint64_t at);

// Refuses the first damaged one of whole blocks of a tensor; `at` is the first one's byte of the file.
void require_sound(const GgufFile &model, const Tensor &tensor, uint64_t at, const void *blocks,
                   uint64_t bytes);

// Memory that find_damage() takes while it runs; every plan counts it.
constexpr uint64_t kSearchBytes = uint64_t{1} << 20;

// Reads these tensors, a piece at a time, and refuses the first damaged block; returns where there is none.
// `before_piece` is told the index of the tensor and the bytes of it that come next, and may throw to stop.
void find_damage(const GgufFile &model, std::vector<int> tensors,
                 const std::function<void(int tensor, uint64_t bytes)> &before_piece);

}  // namespace floatllm

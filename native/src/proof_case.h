// One thing to prove: inputs, the graph that the engine makes over such, and the same in plain C++.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <vector>

#include "ggml.h"

namespace floatllm {

struct Input {
    ggml_type type;
    std::array<int64_t, 4> ne;
    std::vector<char> bytes;
};

using Numbers = std::vector<float>;

struct Built {
    ggml_tensor *last;    // node of the graph that needs all others
    ggml_tensor *result;  // what is compared
};

struct Case {
    const char *operation;
    ggml_type type;
    int64_t positions;
    double allowed;  // NMSE
    bool needed;     // no model runs without it
    bool repacked;   // the first input lies in a buffer where the CPU rearranges matrices
    std::vector<Input> inputs;
    std::function<Built(ggml_context *, const std::vector<ggml_tensor *> &)> build;
    // Takes the inputs, returns the result; both as plain numbers.
    std::function<Numbers(const std::vector<Numbers> &)> plain;
};

// Gets every case in turn; false stops.
using CaseVisitor = std::function<bool(const Case &)>;

// Products of every type that the engine multiplies; of those in `repacks`, by type, rearranged too. Fewer
// for a `software` device, which compiles each kernel on the CPU.
bool each_product(const std::vector<bool> &repacks, bool software, const CaseVisitor &visit);
// Norms, activations, additions and rows.
bool each_layer_operation(const CaseVisitor &visit);
// Positions turned into angles.
bool each_rotation(const CaseVisitor &visit);
// The KV cache, written and attended to; a software device gets fewer.
bool each_attention(bool software, const CaseVisitor &visit);

// What ggml's own backend tests (tests/test-backend-ops.cpp, max_nmse_err) allow by default, and for products
// and attention, where backends round what they multiply to F16 or to 8 bits, each in its own way.
constexpr double kAllowed = 1e-7;
constexpr double kAllowedRounded = 5e-4;

// Numbers from -1 to 1, the same everywhere.
class Generator {
  public:
    explicit Generator(uint64_t seed) : state_(seed) {}
    uint64_t next();
    // From 0 to below `limit`.
    int64_t index(int64_t limit) { return static_cast<int64_t>(next() % static_cast<uint64_t>(limit)); }
    float number() { return static_cast<float>(next() >> 40) / 8388608.0f - 1.0f; }

  private:
    uint64_t state_;
};

Input random_input(Generator &generator, ggml_type type, std::array<int64_t, 4> ne);
Input number_input(const Numbers &numbers, std::array<int64_t, 4> ne);
Input i32_input(const std::vector<int32_t> &values);
Input i64_input(const std::vector<int64_t> &values);
Input f16_input(const Numbers &numbers, std::array<int64_t, 4> ne);

// Elements of any type as numbers, and numbers as they are once rounded to a type.
Numbers to_numbers(ggml_type type, const std::vector<char> &bytes);
Numbers rounded(ggml_type type, const Numbers &numbers, int64_t row);

}  // namespace floatllm

#include "proof_case.h"

#include <algorithm>
#include <cstring>

namespace floatllm {

namespace {

template <typename T>
Input over(ggml_type type, const std::vector<T> &values, std::array<int64_t, 4> ne) {
    Input input{type, ne, std::vector<char>(values.size() * sizeof(T))};
    std::memcpy(input.bytes.data(), values.data(), input.bytes.size());
    return input;
}

std::vector<char> quantised(ggml_type type, const Numbers &numbers, int64_t row) {
    const int64_t count = static_cast<int64_t>(numbers.size());
    std::vector<char> bytes(ggml_row_size(type, row) * static_cast<size_t>(count / row));
    // Some types are quantised by how much each column matters: all the same here.
    const Numbers weights(static_cast<size_t>(row), 1.0f);
    ggml_quantize_chunk(type, numbers.data(), bytes.data(), 0, count / row, row, weights.data());
    return bytes;
}

// Types whose bits name rows of a grid of numbers.
bool has_grid(ggml_type type) {
    switch (type) {
        case GGML_TYPE_IQ1_S:
        case GGML_TYPE_IQ1_M:
        case GGML_TYPE_IQ2_XXS:
        case GGML_TYPE_IQ2_XS:
        case GGML_TYPE_IQ2_S:
        case GGML_TYPE_IQ3_XXS:
        case GGML_TYPE_IQ3_S:
            return true;
        default:
            return false;
    }
}

// A block of a type with a grid from random bits, all of which are valid but in the scale: to quantise, ggml
// would first make tables for several seconds. The scale, in F16, begins the block, but IQ1_M keeps it in the
// high halves of every other one of its last bytes.
void make_block(Generator &generator, ggml_type type, char *block) {
    const size_t size = ggml_type_size(type);
    for (size_t i = 0; i < size; ++i) {
        block[i] = static_cast<char>(generator.next() >> 56);
    }
    // 0x30 and 0x31 begin numbers from 0.125 to 0.19 in F16.
    char &high = block[type == GGML_TYPE_IQ1_M ? size - 1 : 1];
    if (type == GGML_TYPE_IQ1_M) {
        high = static_cast<char>((high & 0x0f) | 0x30);
    } else {
        high = static_cast<char>(0x30 | (high & 0x01));
    }
}

}  // namespace

// SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
uint64_t Generator::next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

Input random_input(Generator &generator, ggml_type type, std::array<int64_t, 4> ne) {
    const size_t block = ggml_type_size(type);
    const int64_t blocks = ne[0] * ne[1] * ne[2] * ne[3] / ggml_blck_size(type);
    Input input{type, ne, std::vector<char>(static_cast<size_t>(blocks) * block)};
    if (has_grid(type)) {
        for (size_t at = 0; at < input.bytes.size(); at += block) {
            make_block(generator, type, input.bytes.data() + at);
        }
        return input;
    }
    Numbers numbers(static_cast<size_t>(blocks * ggml_blck_size(type)));
    std::generate(numbers.begin(), numbers.end(), [&] { return generator.number(); });
    input.bytes = quantised(type, numbers, ne[0]);
    return input;
}

Input number_input(const Numbers &numbers, std::array<int64_t, 4> ne) {
    return over(GGML_TYPE_F32, numbers, ne);
}

Input i32_input(const std::vector<int32_t> &values) {
    return over(GGML_TYPE_I32, values, {static_cast<int64_t>(values.size()), 1, 1, 1});
}

Input i64_input(const std::vector<int64_t> &values) {
    return over(GGML_TYPE_I64, values, {static_cast<int64_t>(values.size()), 1, 1, 1});
}

Input f16_input(const Numbers &numbers, std::array<int64_t, 4> ne) {
    return {GGML_TYPE_F16, ne, quantised(GGML_TYPE_F16, numbers, ne[0])};
}

Numbers to_numbers(ggml_type type, const std::vector<char> &bytes) {
    const size_t count = bytes.size() / ggml_type_size(type) * static_cast<size_t>(ggml_blck_size(type));
    Numbers numbers(count);
    const auto copy = [&](auto element) {
        for (size_t i = 0; i < count; ++i) {
            std::memcpy(&element, bytes.data() + i * sizeof(element), sizeof(element));
            numbers[i] = static_cast<float>(element);
        }
    };
    switch (type) {
        case GGML_TYPE_F32:
            copy(float{});
            break;
        case GGML_TYPE_I32:
            copy(int32_t{});
            break;
        case GGML_TYPE_I64:
            copy(int64_t{});
            break;
        default:
            ggml_get_type_traits(type)->to_float(bytes.data(), numbers.data(), static_cast<int64_t>(count));
    }
    return numbers;
}

Numbers rounded(ggml_type type, const Numbers &numbers, int64_t row) {
    return to_numbers(type, quantised(type, numbers, row));
}

}  // namespace floatllm

#include "damage.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "choice.h"
#include "error.h"

namespace floatllm {

namespace {

constexpr int64_t kDecoded = 2048;  // elements: whole blocks of every type

}  // namespace

int64_t first_damaged(ggml_type type, const void *blocks, uint64_t bytes) {
    // As fast as memory, for it looks at the blocks' scales alone. It tells stderr what it finds, and finds
    // fault with types that it does not know.
    if (ggml_validate_row_data(type, blocks, static_cast<size_t>(bytes))) {
        return -1;
    }
    const ggml_to_float_t to_float = ggml_get_type_traits(type)->to_float;
    if (to_float == nullptr && type != GGML_TYPE_F32) {
        return -1;
    }
    const char *data = static_cast<const char *>(blocks);
    const uint64_t block = ggml_type_size(type);
    const size_t elements = static_cast<size_t>(ggml_blck_size(type));
    const uint64_t step = kDecoded / elements * block;
    std::array<float, kDecoded> decoded;
    for (uint64_t done = 0; done < bytes; done += step) {
        const uint64_t part = std::min(step, bytes - done);
        const size_t count = static_cast<size_t>(part / block) * elements;
        if (to_float == nullptr) {
            std::memcpy(decoded.data(), data + done, static_cast<size_t>(part));
        } else {
            to_float(data + done, decoded.data(), static_cast<int64_t>(count));
        }
        for (size_t i = 0; i < count; i += elements) {
            if (!all_finite(decoded.data() + i, elements)) {
                return static_cast<int64_t>(done + i / elements * block);
            }
        }
    }
    return -1;
}

void refuse_damage(const std::string &path, const std::string &tensor, ggml_type type, uint64_t at) {
    throw Error(
        FLOATLLM_ERROR_MODEL,
        format("%s: at byte %llu, weights of %s (%s) are not numbers but NaN or infinite; the file is "
               "damaged. Fetch it again.",
               path.c_str(), ull(at), tensor.c_str(), ggml_type_name(type)));
}

void refuse_damage(const GgufFile &model, const Tensor &tensor, uint64_t at) {
    refuse_damage(model.file(tensor.file).path(), tensor.name, tensor.type, at);
}

void require_sound(const GgufFile &model, const Tensor &tensor, uint64_t at, const void *blocks,
                   uint64_t bytes) {
    const int64_t bad = first_damaged(tensor.type, blocks, bytes);
    if (bad >= 0) {
        refuse_damage(model, tensor, at + static_cast<uint64_t>(bad));
    }
}

void find_damage(const GgufFile &model, std::vector<int> tensors,
                 const std::function<void(int tensor, uint64_t bytes)> &before_piece) {
    const auto place = [&model](int index) {
        const Tensor &tensor = model.tensors()[static_cast<size_t>(index)];
        return std::make_pair(tensor.file, tensor.offset);
    };
    // As they lie on the disk, each once.
    std::sort(tensors.begin(), tensors.end(), [&place](int a, int b) { return place(a) < place(b); });
    tensors.erase(std::unique(tensors.begin(), tensors.end()), tensors.end());
    const os::Pages piece(static_cast<size_t>(kSearchBytes));
    for (const int index : tensors) {
        const Tensor &tensor = model.tensors()[static_cast<size_t>(index)];
        const uint64_t block = ggml_type_size(tensor.type);
        for (uint64_t done = 0; done < tensor.size;) {
            // Past the page cache, where reads begin at whole pages.
            const uint64_t at = tensor.offset + done;
            const uint64_t begin = at / os::kDirectAlignment * os::kDirectAlignment;
            const uint64_t skip = at - begin;
            const uint64_t bytes = std::min((piece.size() - skip) / block * block, tensor.size - done);
            before_piece(index, bytes);
            model.file(tensor.file).read_direct(begin, piece.data(), piece.size());
            require_sound(model, tensor, at, static_cast<const char *>(piece.data()) + skip, bytes);
            done += bytes;
        }
    }
}

}  // namespace floatllm

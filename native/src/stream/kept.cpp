#include "stream/kept.h"

#include <algorithm>
#include <iterator>

#include "error.h"
#include "heed.h"
#include "log.h"

namespace floatllm::stream {

namespace {

// Of these only some rows are read in a pass: tables of embeddings, where the vocabulary's matrix is not one.
bool is_table(const std::vector<Tensor> &tensors, const Tensor &tensor) {
    const auto named = [](const char *name) {
        return [name](const Tensor &other) { return other.name == name; };
    };
    return tensor.name == "per_layer_token_embd.weight" ||
           (tensor.name == "token_embd.weight" &&
            std::any_of(tensors.begin(), tensors.end(), named("output.weight")));
}

}  // namespace

std::vector<Range> choose_kept(const std::vector<Tensor> &tensors, uint64_t budget) {
    std::vector<Range> wanted;
    uint64_t all = 0;
    for (const Tensor &tensor : tensors) {
        const Range range{tensor.file, tensor.offset, tensor.size};
        if (tensor.size > kSmallWeight && !is_table(tensors, tensor)) {
            wanted.push_back(range);
            all += slot_bytes(range);
        }
    }
    std::vector<Range> kept;
    std::vector<Range> passed;
    uint64_t left = budget;
    uint64_t seen = 0;
    for (const Range &range : wanted) {
        const uint64_t size = slot_bytes(range);
        seen += size;
        // As much of the budget was used as of the weights was seen, or less.
        const double due =
            static_cast<double>(budget) * (static_cast<double>(seen) / static_cast<double>(all));
        if (size <= left && static_cast<double>(budget - left + size) <= due) {
            kept.push_back(range);
            left -= size;
        } else {
            passed.push_back(range);
        }
    }
    for (const Range &range : passed) {
        if (slot_bytes(range) <= left) {
            kept.push_back(range);
            left -= slot_bytes(range);
        }
    }
    return kept;
}

void Kept::add(const Files &files, const std::vector<Range> &ranges, ReadPool &pool) {
    std::vector<Item> added;
    for (const Range &range : ranges) {
        auto landing = std::make_unique<Landing>(Io::Direct, slot_bytes(range));
        landing->load(files, {range}, pool);
        added.push_back({range, std::move(landing)});
    }
    for (Item &item : added) {
        item.landing->wait();
    }
    std::move(added.begin(), added.end(), std::back_inserter(items_));
}

char *Kept::find(const Range &range) const {
    for (const Item &item : items_) {
        if (item.landing != nullptr && item.range == range) {
            return item.landing->address(range.file, range.offset);
        }
    }
    return nullptr;
}

uint64_t Kept::bytes() const {
    uint64_t bytes = 0;
    for (const Item &item : items_) {
        bytes += item.landing != nullptr ? item.range.size : 0;
    }
    return bytes;
}

size_t Kept::missing() const {
    return static_cast<size_t>(std::count_if(items_.begin(), items_.end(),
                                             [](const Item &item) { return item.landing == nullptr; }));
}

size_t Kept::give_back(uint64_t bytes) {
    size_t count = 0;
    for (Item &item : items_) {
        if (bytes > 0 && item.landing != nullptr && item.range.size > kSmallWeight) {
            item.landing.reset();
            bytes -= std::min(bytes, slot_bytes(item.range));
            ++count;
        }
    }
    return count;
}

size_t Kept::take_again(const Files &files, uint64_t bytes, ReadPool &pool) {
    size_t count = 0;
    for (Item &item : items_) {
        if (item.landing != nullptr || slot_bytes(item.range) > bytes) {
            continue;
        }
        try {
            auto landing = std::make_unique<Landing>(Io::Direct, slot_bytes(item.range));
            landing->load(files, {item.range}, pool);
            landing->wait();
            item.landing = std::move(landing);
        } catch (const Error &) {
            break;  // It was not needed; the ring carries it as before.
        }
        bytes -= slot_bytes(item.range);
        ++count;
    }
    return count;
}

bool Kept::heed_memory(const Files &files, ReadPool &pool) {
    if (heeded_.seconds() < kHeedSeconds) {
        return false;
    }
    heeded_.restart();
    const auto [free, room] = memory_left();
    if (free < kShort && give_back(kEnough - free) > 0) {
        os::trim();
        log_line(GGML_LOG_LEVEL_WARN,
                 format("[FloatLLM] Memory is short: %zu more weights are read in each pass.", missing()));
        return true;
    }
    if (room > kPlenty && missing() > 0 && take_again(files, room - kPlenty, pool) > 0) {
        log_line(GGML_LOG_LEVEL_INFO,
                 format("[FloatLLM] Memory is free again: %zu weights are still read in each "
                        "pass that were to stay.",
                        missing()));
        return true;
    }
    return false;
}

}  // namespace floatllm::stream

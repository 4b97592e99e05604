#include "chunks.h"

#include <algorithm>
#include <stdexcept>

#include "error.h"
#include "heed.h"

namespace floatllm {

ChunkStore::ChunkStore(const Plan &plan, const Device &device, bool inspect) : plan_(plan), device_(device) {
    pinned_.resize(plan.chunks.size());
    sound_.resize(plan.chunks.size(), !inspect);
    uint64_t repacked = 0;
    for (const Chunk &chunk : plan.chunks) {
        repacked = std::max(repacked, chunk.repacked_bytes);
    }
    if (plan.slots > 0 && repacked > 0) {
        repacker_ = {device.allocate_repacked(repacked), std::make_unique<ReadPool>(plan.threads)};
    }
    for (uint32_t i = 0; i < plan.slots; ++i) {
        ring_.push_back(std::make_unique<Slot>(plan, device, ring_slot_bytes(plan), plan.io == IoMode::Direct,
                                               &repacker_));
    }
    pool_ = std::make_unique<ReadPool>(kReaders);
    for (size_t i = 0; i < plan.chunks.size(); ++i) {
        if (plan.chunks[i].pinned) {
            keep(i);
        }
    }
    list_streamed();
    restart();
}

ChunkStore::~ChunkStore() { pool_.reset(); }

void ChunkStore::keep(size_t index) {
    // Beside a stream the page cache keeps nothing for long, so what is to stay must not live there.
    const bool own = plan_.io == IoMode::Direct || plan_.slots > 0;
    pinned_[index] = std::make_unique<Slot>(plan_, device_, plan_.chunks[index], own);
    pinned_[index]->load(plan_.chunks[index], *pool_, !sound_[index]);
}

void ChunkStore::list_streamed() {
    streamed_.clear();
    for (size_t i = 0; i < pinned_.size(); ++i) {
        if (!keeps(i)) {
            streamed_.push_back(i);
        }
    }
}

void ChunkStore::heed_memory() {
    if (ring_.empty() || heeded_.seconds() < kHeedSeconds) {
        return;
    }
    heeded_.restart();
    const auto [free, room] = memory_left();
    if (free < kShort && give_back(kEnough - free) > 0) {
        log_line(GGML_LOG_LEVEL_WARN,
                 format("[FloatLLM] Memory is short: %zu chunks are read in each pass.", streamed_.size()));
    } else if (room > kPlenty && take_again(room - kPlenty) > 0) {
        log_line(
            GGML_LOG_LEVEL_INFO,
            format("[FloatLLM] Memory is free again: %zu chunks are read in each pass.", streamed_.size()));
    }
}

size_t ChunkStore::give_back(uint64_t bytes) {
    size_t count = 0;
    for (size_t i = 0; i < pinned_.size() && bytes > 0 && !ring_.empty(); ++i) {
        if (keeps(i)) {
            bytes -= std::min(bytes, pinned_[i]->own_bytes());
            pinned_[i].reset();
            ++count;
        }
    }
    if (count > 0) {
        os::trim();
        list_streamed();
        restart();
    }
    return count;
}

size_t ChunkStore::take_again(uint64_t bytes) {
    size_t count = 0;
    for (size_t i = 0; i < pinned_.size(); ++i) {
        const Chunk &chunk = plan_.chunks[i];
        const uint64_t cost = chunk_cost(plan_.device, chunk);
        if (chunk.pinned && !keeps(i) && cost <= bytes) {
            try {
                keep(i);
            } catch (const Error &) {
                // It was not needed; the ring carries the chunk as before.
                pinned_[i].reset();
                break;
            }
            bytes -= cost;
            ++count;
        }
    }
    if (count > 0) {
        list_streamed();
        restart();
    }
    return count;
}

void ChunkStore::fill(size_t slot) {
    const size_t index = streamed_[loaded_ % streamed_.size()];
    ring_[slot]->load(plan_.chunks[index], *pool_, !sound_[index]);
    ++loaded_;
}

Slot &ChunkStore::holder(size_t index) const {
    return *(keeps(index) ? pinned_[index] : ring_[taken_ % ring_.size()]);
}

std::vector<ggml_tensor *> ChunkStore::acquire(size_t index, ggml_context *context) {
    Slot &slot = holder(index);
    if (!slot.holds(plan_.chunks[index])) {
        throw std::logic_error("chunks came out of their order; this is a defect of FloatLLM");
    }
    std::vector<ggml_tensor *> tensors = slot.bind(context);
    sound_[index] = true;
    return tensors;
}

void ChunkStore::release(size_t index) {
    holder(index).check();
    if (!keeps(index)) {
        const size_t slot = taken_ % ring_.size();
        ++taken_;
        fill(slot);
    }
}

void ChunkStore::restart() {
    loaded_ = taken_ = 0;
    for (size_t i = 0; i < pinned_.size(); ++i) {
        if (keeps(i) && pinned_[i]->failed()) {
            pinned_[i]->load(plan_.chunks[i], *pool_, !sound_[i]);
        }
    }
    for (size_t slot = 0; slot < ring_.size() && !streamed_.empty(); ++slot) {
        fill(slot);
    }
}

}  // namespace floatllm

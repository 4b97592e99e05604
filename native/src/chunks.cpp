#include "chunks.h"

#include <algorithm>
#include <exception>

#include "error.h"

namespace floatllm {

namespace {

constexpr uint64_t kReadBlock = uint64_t{4} << 20;

// A part as ggml sees it: whole tensors keep their four dimensions, row slices are flattened to two.
ggml_tensor *part_tensor(ggml_context *context, const Tensor &tensor, const Part &part) {
    const int64_t rows = part.row_end - part.row_begin;
    ggml_tensor *t = rows == tensor.rows() ? ggml_new_tensor(context, tensor.type, 4, tensor.ne)
                                           : ggml_new_tensor_2d(context, tensor.type, tensor.ne[0], rows);
    ggml_set_name(t, tensor.name.c_str());
    return t;
}

void place(ggml_backend_buffer_t buffer, ggml_tensor *tensor, void *address) {
    if (ggml_backend_tensor_alloc(buffer, tensor, address) != GGML_STATUS_SUCCESS) {
        throw Error(FLOATLLM_ERROR_ENGINE,
                    format("The device refused the tensor %s.", ggml_get_name(tensor)));
    }
}

}  // namespace

Slot::Slot(const Plan &plan, const Device &device, uint64_t size, bool own) : plan_(plan), device_(device) {
    if (!device.maps_host()) {
        device_memory_ = device.allocate(size, "a chunk of weights");
        ggml_backend_buffer_set_usage(device_memory_.get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    } else if (own) {
        pages_ = os::Pages(static_cast<size_t>(size));
        wrapped_.push_back(device.wrap(pages_.data(), pages_.size()));
        ggml_backend_buffer_set_usage(wrapped_.back().get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    }
}

char *Slot::base_of(size_t extent) const {
    if (pages_.data() == nullptr) {
        return static_cast<char *>(windows_[extent].data());
    }
    uint64_t before = 0;
    for (size_t i = 0; i < extent; ++i) {
        before += chunk_->extents[i].size;
    }
    return static_cast<char *>(pages_.data()) + before;
}

void Slot::load(const Chunk &chunk, ReadPool &pool) {
    release();
    chunk_ = &chunk;
    if (device_memory_ != nullptr) {
        return;
    }
    std::vector<ReadPool::Task> tasks;
    try {
        if (pages_.data() == nullptr) {
            for (const Extent &extent : chunk.extents) {
                windows_.emplace_back(plan_.model->file(extent.file), extent.offset,
                                      static_cast<size_t>(extent.size));
            }
        }
    } catch (const Error &) {
        // Told by bind(), to whoever needs the chunk; this may be called long before.
        tasks.push_back([failure = std::current_exception()] { std::rethrow_exception(failure); });
        reading_ = pool.submit(std::move(tasks));
        return;
    }
    for (size_t i = 0; i < chunk.extents.size(); ++i) {
        const Extent &extent = chunk.extents[i];
        for (uint64_t begin = 0; begin < extent.size; begin += kReadBlock) {
            const size_t count = static_cast<size_t>(std::min(kReadBlock, extent.size - begin));
            tasks.push_back([this, i, begin, count] {
                if (pages_.data() == nullptr) {
                    windows_[i].populate(static_cast<size_t>(begin), count);
                } else {
                    const Extent &from = chunk_->extents[i];
                    plan_.model->file(from.file).read_direct(from.offset + begin, base_of(i) + begin, count);
                }
            });
        }
    }
    reading_ = pool.submit(std::move(tasks));
}

std::vector<ggml_tensor *> Slot::bind(ggml_context *context) {
    std::vector<ggml_tensor *> tensors;
    for (const Part &part : chunk_->parts) {
        tensors.push_back(
            part_tensor(context, plan_.model->tensors()[static_cast<size_t>(part.tensor)], part));
    }
    if (device_memory_ != nullptr) {
        upload(tensors);
        return tensors;
    }
    failed_ = true;
    reading_->wait();
    failed_ = false;
    const bool mapped = pages_.data() == nullptr;
    size_t part = 0;
    for (size_t i = 0; i < chunk_->extents.size(); ++i) {
        const Extent &extent = chunk_->extents[i];
        char *base = base_of(i);
        if (mapped && wrapped_.size() <= i) {
            wrapped_.push_back(device_.wrap(base, static_cast<size_t>(extent.size)));
            ggml_backend_buffer_set_usage(wrapped_.back().get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
        }
        ggml_backend_buffer_t buffer = wrapped_[mapped ? i : 0].get();
        // Parts and extents are both in the order of the file.
        for (; part < chunk_->parts.size() && chunk_->parts[part].file == extent.file &&
               chunk_->parts[part].offset < extent.offset + extent.size;
             ++part) {
            place(buffer, tensors[part], base + (chunk_->parts[part].offset - extent.offset));
        }
    }
    return tensors;
}

void Slot::upload(const std::vector<ggml_tensor *> &tensors) {
    char *address = static_cast<char *>(ggml_backend_buffer_get_base(device_memory_.get()));
    const uint64_t grain = plan_.device.granularity;
    for (size_t i = 0; i < chunk_->parts.size(); ++i) {
        const Part &part = chunk_->parts[i];
        place(device_memory_.get(), tensors[i], address);
        address += round_up(part.size + plan_.device.tensor_slack, plan_.device.alignment);
        // What was brought once stays until release().
        for (uint64_t done = uploaded_ ? part.size : 0; done < part.size;) {
            const uint64_t begin = (part.offset + done) / grain * grain;
            const uint64_t skip = part.offset + done - begin;
            const uint64_t step = std::min(part.size - done, kStagingWindow - skip);
            const os::Mapping staged(plan_.model->file(part.file), begin, static_cast<size_t>(skip + step));
            staged.populate(0, staged.size());
            ggml_backend_tensor_set(tensors[i], static_cast<const char *>(staged.data()) + skip,
                                    static_cast<size_t>(done), static_cast<size_t>(step));
            staged.require_intact();
            done += step;
        }
    }
    uploaded_ = true;
}

void Slot::check() const {
    for (const os::Mapping &window : windows_) {
        window.require_intact();
    }
}

void Slot::release() {
    if (reading_ != nullptr) {
        try {
            reading_->wait();
        } catch (...) {
            // Whoever needs these bytes will ask for them again; here they are given up.
        }
        reading_.reset();
    }
    if (!windows_.empty()) {
        wrapped_.clear();
        windows_.clear();
    }
    chunk_ = nullptr;
    uploaded_ = failed_ = false;
}

ChunkStore::ChunkStore(const Plan &plan, const Device &device) : plan_(plan) {
    pinned_.resize(plan.chunks.size());
    const bool direct = plan.io == IoMode::Direct;
    // Beside a stream the page cache keeps nothing for long, so what is to stay must not live there.
    const bool own_pinned = direct || plan.slots > 0;
    uint64_t widest = 0;
    const auto cost = [&plan](const Chunk &c) { return chunk_cost(plan.device, c); };
    for (size_t i = 0; i < plan.chunks.size(); ++i) {
        if (plan.chunks[i].pinned) {
            pinned_[i] = std::make_unique<Slot>(plan, device, cost(plan.chunks[i]), own_pinned);
        } else {
            streamed_.push_back(i);
            widest = std::max(widest, cost(plan.chunks[i]));
        }
    }
    for (uint32_t i = 0; i < plan.slots; ++i) {
        ring_.push_back(std::make_unique<Slot>(plan, device, widest, direct));
    }
    pool_ = std::make_unique<ReadPool>(kReaders);
    for (size_t i = 0; i < pinned_.size(); ++i) {
        if (pinned_[i] != nullptr) {
            pinned_[i]->load(plan.chunks[i], *pool_);
        }
    }
    restart();
}

ChunkStore::~ChunkStore() { pool_.reset(); }

void ChunkStore::fill(size_t slot) {
    ring_[slot]->load(plan_.chunks[streamed_[loaded_ % streamed_.size()]], *pool_);
    ++loaded_;
}

std::vector<ggml_tensor *> ChunkStore::acquire(size_t index, ggml_context *context) {
    return (pinned_[index] != nullptr ? pinned_[index] : ring_[taken_ % ring_.size()])->bind(context);
}

void ChunkStore::release(size_t index) {
    if (pinned_[index] != nullptr) {
        pinned_[index]->check();
        return;
    }
    const size_t slot = taken_ % ring_.size();
    ring_[slot]->check();
    ++taken_;
    fill(slot);
}

void ChunkStore::restart() {
    loaded_ = taken_ = 0;
    for (size_t i = 0; i < pinned_.size(); ++i) {
        if (pinned_[i] != nullptr && pinned_[i]->failed()) {
            pinned_[i]->load(plan_.chunks[i], *pool_);
        }
    }
    for (size_t slot = 0; slot < ring_.size() && !streamed_.empty(); ++slot) {
        fill(slot);
    }
}

}  // namespace floatllm

#include "slot.h"

#include <algorithm>
#include <exception>

#include "cut.h"
#include "damage.h"
#include "error.h"

namespace floatllm {

namespace {

constexpr uint64_t kReadBlock = uint64_t{4} << 20;
// Enough tasks for the threads to finish together.
constexpr uint64_t kRepackTask = uint64_t{1} << 20;

}  // namespace

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

Slot::Slot(const Plan &plan, const Device &device, uint64_t size, bool own, Repacker *repacker)
    : plan_(plan), device_(&device), repacker_(repacker) {
    if (own) {
        pages_ = os::Pages(static_cast<size_t>(size));
        take_own(static_cast<char *>(pages_.data()), size);
    }
}

Slot::Slot(const Plan &plan, const Device &device, const Chunk &chunk, bool own)
    : plan_(plan), device_(&device), keeps_(true) {
    if (!own) {
        kept_ = chunk.repacked_bytes > 0 ? device.allocate_repacked(chunk.repacked_bytes) : nullptr;
    } else if (chunk.repacked_bytes > 0) {
        kept_ = device.allocate_repacked(chunk.kept_bytes);
        const auto base = reinterpret_cast<uintptr_t>(ggml_backend_buffer_get_base(kept_.get()));
        take_own(reinterpret_cast<char *>(round_up(base, os::kDirectAlignment)),
                 chunk.kept_bytes - os::kDirectAlignment);
    } else {
        pages_ = os::Pages(static_cast<size_t>(chunk.kept_bytes));
        take_own(static_cast<char *>(pages_.data()), chunk.kept_bytes);
    }
}

Slot::Slot(const Plan &plan, const Device *cpu, ggml_backend_buffer_ptr memory)
    : plan_(plan), device_(cpu), kept_(std::move(memory)), foreign_(true) {
    const auto base = reinterpret_cast<uintptr_t>(ggml_backend_buffer_get_base(kept_.get()));
    take_own(reinterpret_cast<char *>(round_up(base, os::kDirectAlignment)),
             ggml_backend_buffer_get_size(kept_.get()) - os::kDirectAlignment);
}

void Slot::take_own(char *memory, uint64_t size) {
    own_ = memory;
    own_bytes_ = size;
}

char *Slot::base_of(size_t extent) const {
    if (own_ == nullptr) {
        return static_cast<char *>(windows_[extent].data());
    }
    uint64_t before = 0;
    for (size_t i = 0; i < extent; ++i) {
        before += extents()[i].size;
    }
    return own_ + before;
}

size_t Slot::extent_of(const Part &part) const {
    const auto found = std::find_if(extents().begin(), extents().end(), [&part](const Extent &extent) {
        return extent.file == part.file && part.offset < extent.offset + extent.size;
    });
    return static_cast<size_t>(found - extents().begin());
}

char *Slot::address(const Part &part) const {
    const size_t extent = extent_of(part);
    return base_of(extent) + (part.offset - extents()[extent].offset);
}

// Behind the plain parts, where they share memory.
char *Slot::repacked_base() const {
    return keeps_ && own_ != nullptr ? base_of(extents().size())
                                     : static_cast<char *>(ggml_backend_buffer_get_base(repacked()));
}

// Looks at whole blocks of a part, whose bytes from `begin` on are these.
void Slot::inspect_rows(const Part &part, uint64_t begin, const char *bytes, uint64_t size) const {
    const Tensor &tensor = plan_.model->tensors()[static_cast<size_t>(part.tensor)];
    if (!inspected_) {
        require_sound(*plan_.model, tensor, part.offset + begin, bytes, size);
    }
}

// Looks at the blocks that lie whole in bytes [begin, end) of an extent, whose bytes are at `base`.
void Slot::inspect(const Extent &extent, const char *base, uint64_t begin, uint64_t end) const {
    begin += extent.offset;
    end += extent.offset;
    for (const Part &part : chunk_->parts) {
        if ((keeps_ && part.repacked) || part.file != extent.file || part.offset >= end ||
            part.offset + part.size <= begin) {
            continue;
        }
        const uint64_t block = ggml_type_size(plan_.model->tensors()[static_cast<size_t>(part.tensor)].type);
        const uint64_t skipped = begin > part.offset ? round_up(begin - part.offset, block) : 0;
        const uint64_t reached = std::min(end - part.offset, part.size) / block * block;
        if (skipped < reached) {
            inspect_rows(part, skipped, base + (part.offset + skipped - extent.offset), reached - skipped);
        }
    }
}

// The blocks that two readings share.
void Slot::inspect_seams(const Extent &extent, const char *base) const {
    constexpr uint64_t kMostBlock = 512;  // bytes
    for (uint64_t seam = kReadBlock; seam < extent.size; seam += kReadBlock) {
        inspect(extent, base, seam - kMostBlock, std::min(seam + kMostBlock, extent.size));
    }
}

void Slot::repack_rows(const Part &part, int64_t rows, const char *from, char *to) const {
    const Tensor &tensor = plan_.model->tensors()[static_cast<size_t>(part.tensor)];
    // ggml tells of each piece.
    const QuietThread quiet;
    ggml_context_ptr context(ggml_init({ggml_tensor_overhead(), nullptr, true}));
    ggml_tensor *target = ggml_new_tensor_2d(context.get(), tensor.type, tensor.ne[0], rows);
    place(repacked(), target, to);
    ggml_backend_tensor_set(target, from, 0, ggml_nbytes(target));
}

void Slot::repack_in_reach(const Part &part, int64_t row_begin, int64_t rows, char *to) const {
    repack_rows(part, rows, address(part) + static_cast<uint64_t>(row_begin) * part.row_bytes(), to);
}

// The file's bytes pass through a little memory that is not the slot's.
void Slot::read_and_repack(const Part &part, int64_t row_begin, int64_t rows, char *to) const {
    const os::File &file = plan_.model->file(part.file);
    const uint64_t first = static_cast<uint64_t>(row_begin) * part.row_bytes();
    const uint64_t offset = part.offset + first;
    const uint64_t bytes = static_cast<uint64_t>(rows) * part.row_bytes();
    const bool direct = plan_.io == IoMode::Direct;
    const uint64_t grain = direct ? os::kDirectAlignment : plan_.device.granularity;
    const uint64_t begin = offset / grain * grain;
    const uint64_t end = round_up(offset + bytes, grain);
    const size_t size = static_cast<size_t>(end - begin);
    if (direct) {
        // Kept by the thread: fresh memory costs as much as reading into it.
        thread_local os::Pages staging;
        if (staging.size() < size) {
            staging = os::Pages(static_cast<size_t>(plan_.repack_block));
        }
        file.read_direct(begin, staging.data(), size);
        const char *read = static_cast<char *>(staging.data()) + (offset - begin);
        inspect_rows(part, first, read, bytes);
        repack_rows(part, rows, read, to);
        return;
    }
    const os::Mapping window(file, begin, size);
    window.populate(0, size);
    const char *mapped = static_cast<char *>(window.data()) + (offset - begin);
    inspect_rows(part, first, mapped, bytes);
    repack_rows(part, rows, mapped, to);
    window.require_intact();
}

std::vector<ReadPool::Task> Slot::repacking(RepackRows repack, uint64_t block) const {
    std::vector<ReadPool::Task> tasks;
    char *to = chunk_->repacked_bytes > 0 ? repacked_base() : nullptr;
    for (const Part &part : chunk_->parts) {
        if (!part.repacked) {
            continue;
        }
        const uint64_t group = part.row_bytes() * kRowGrain;
        const int64_t step = static_cast<int64_t>(std::max<uint64_t>(block / group, 1)) * kRowGrain;
        const int64_t all = part.row_end - part.row_begin;
        for (int64_t begin = 0; begin < all; begin += step) {
            const int64_t rows = std::min(step, all - begin);
            char *target = to + static_cast<uint64_t>(begin) * part.row_bytes();
            tasks.push_back(
                [this, repack, &part, begin, rows, target] { (this->*repack)(part, begin, rows, target); });
        }
        to += round_up(part.size, kRepackAlign);
    }
    return tasks;
}

void Slot::read_extent(size_t index, uint64_t begin, size_t count) const {
    const Extent &extent = extents()[index];
    const os::File &file = plan_.model->file(extent.file);
    if (own_ == nullptr) {
        windows_[index].populate(static_cast<size_t>(begin), count);
    } else if (foreign_ && plan_.io == IoMode::Mmap) {
        const uint64_t there = file.size() - std::min(file.size(), extent.offset + begin);
        file.read_at(extent.offset + begin, base_of(index) + begin,
                     static_cast<size_t>(std::min<uint64_t>(count, there)));
    } else {
        file.read_direct(extent.offset + begin, base_of(index) + begin, count);
    }
    if (!inspected_) {
        inspect(extent, base_of(index), begin, begin + count);
    }
}

void Slot::load(const Chunk &chunk, ReadPool &pool, bool inspect, std::function<void()> before) {
    release();
    chunk_ = &chunk;
    inspected_ = !inspect;
    std::vector<ReadPool::Task> tasks;
    try {
        for (size_t i = 0; own_ == nullptr && i < extents().size(); ++i) {
            const Extent &extent = extents()[i];
            windows_.emplace_back(plan_.model->file(extent.file), extent.offset,
                                  static_cast<size_t>(extent.size));
        }
    } catch (const Error &) {
        // Told by bind(), to whoever needs the chunk; this may be called long before.
        tasks.push_back([failure = std::current_exception()] { std::rethrow_exception(failure); });
        reading_ = pool.submit(std::move(tasks));
        return;
    }
    if (keeps_) {
        tasks = repacking(&Slot::read_and_repack,
                          plan_.repack_block - std::min(plan_.repack_block, repack_edges(plan_.device)));
    }
    for (size_t i = 0; i < extents().size(); ++i) {
        const uint64_t size = extents()[i].size;
        for (uint64_t begin = 0; begin < size; begin += kReadBlock) {
            const size_t count = static_cast<size_t>(std::min(kReadBlock, size - begin));
            tasks.push_back([this, i, begin, count, before] {
                if (before) {
                    before();
                }
                read_extent(i, begin, count);
            });
        }
    }
    reading_ = pool.submit(std::move(tasks));
}

void Slot::wait() {
    failed_ = true;
    reading_->wait();
    for (size_t i = 0; i < extents().size() && !inspected_; ++i) {
        inspect_seams(extents()[i], base_of(i));
    }
    inspected_ = true;
    failed_ = false;
}

std::vector<ggml_tensor *> Slot::bind(ggml_context *context) {
    wait();
    if (!keeps_ && chunk_->repacked_bytes > 0) {
        repacker_->workers->submit(repacking(&Slot::repack_in_reach, kRepackTask))->wait();
    }
    while (own_ == nullptr && wrapped_.size() < windows_.size()) {
        const os::Mapping &window = windows_[wrapped_.size()];
        wrapped_.push_back(device_->wrap(window.data(), window.size()));
    }
    if (own_ != nullptr && wrapped_.empty()) {
        wrapped_.push_back(device_->wrap(own_, static_cast<size_t>(own_bytes_)));
    }
    std::vector<ggml_tensor *> tensors;
    char *to = chunk_->repacked_bytes > 0 ? repacked_base() : nullptr;
    for (const Part &part : chunk_->parts) {
        tensors.push_back(
            part_tensor(context, plan_.model->tensors()[static_cast<size_t>(part.tensor)], part));
        if (part.repacked) {
            place(repacked(), tensors.back(), to);
            to += round_up(part.size, kRepackAlign);
        } else {
            place(wrapped_[own_ == nullptr ? extent_of(part) : 0].get(), tensors.back(), address(part));
        }
    }
    came_.reset();
    if (!bound_) {
        came_ = reading_->span();
    }
    bound_ = true;
    return tensors;
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
    bound_ = failed_ = false;
}

}  // namespace floatllm

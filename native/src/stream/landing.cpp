#include "stream/landing.h"

#include <algorithm>
#include <exception>
#include <stdexcept>

namespace floatllm::stream {

namespace {

// Large enough for a disk to be fast, small enough for the readers to share an extent.
constexpr uint64_t kReadBlock = uint64_t{4} << 20;

}  // namespace

Files files_of(const std::shared_ptr<const GgufFile> &model) {
    Files files;
    for (uint32_t i = 0; i < model->files(); ++i) {
        files.emplace_back(model, &model->file(i));
    }
    return files;
}

Landing::Landing(Io io, uint64_t capacity) : io_(io) {
    if (io == Io::Direct) {
        pages_ = os::Pages(static_cast<size_t>(capacity));
        os::prefer_huge_pages(pages_.data(), pages_.size());
    }
}

void Landing::load(const Files &files, const std::vector<Range> &ranges, ReadPool &pool) {
    release();
    std::vector<ReadPool::Task> tasks;
    char *next = static_cast<char *>(pages_.data());
    for (const Range &extent : extents_of(ranges)) {
        const os::File &file = *files[extent.file];
        try {
            if (io_ == Io::Windows) {
                // Systems with larger pages map from these on.
                const uint64_t from = extent.offset / os::map_granularity() * os::map_granularity();
                windows_.emplace_back(file, from, static_cast<size_t>(extent.end() - from));
                next = static_cast<char *>(windows_.back().data()) + (extent.offset - from);
            }
        } catch (...) {
            // Told by wait(), to whoever needs the bytes; this may be called long before.
            tasks.assign(1, [failure = std::current_exception()] { std::rethrow_exception(failure); });
            break;
        }
        extents_.push_back({extent, next});
        for (uint64_t begin = 0; begin < extent.size; begin += kReadBlock) {
            const size_t count = static_cast<size_t>(std::min(kReadBlock, extent.size - begin));
            if (io_ == Io::Windows) {
                const size_t window = windows_.size() - 1;
                const size_t skip = static_cast<size_t>(next - static_cast<char *>(windows_.back().data()));
                tasks.push_back([this, window, at = skip + static_cast<size_t>(begin), count] {
                    windows_[window].populate(at, count);
                });
            } else {
                tasks.push_back([&file, at = extent.offset + begin, to = next + begin, count] {
                    file.read_direct(at, to, count);
                });
            }
        }
        if (io_ == Io::Direct) {
            next += extent.size;
        }
    }
    reading_ = pool.submit(std::move(tasks));
}

void Landing::wait() { reading_->wait(); }

char *Landing::address(uint32_t file, uint64_t offset) const {
    for (const Extent &extent : extents_) {
        if (extent.range.file == file && offset >= extent.range.offset && offset < extent.range.end()) {
            return extent.data + (offset - extent.range.offset);
        }
    }
    throw std::logic_error("a weight was not loaded before it was used; this is a defect of FloatLLM");
}

void Landing::check() const {
    for (const os::Mapping &window : windows_) {
        window.require_intact();
    }
}

void Landing::release() {
    if (reading_ != nullptr) {
        try {
            reading_->wait();
        } catch (...) {
            // Whoever needs these bytes will ask for them again; here they are given up.
        }
        reading_.reset();
    }
    windows_.clear();
    extents_.clear();
}

}  // namespace floatllm::stream

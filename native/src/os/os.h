// Everything that differs by operating system. posix.cpp and windows.cpp are its two halves.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace floatllm::os {

// A regular file open for reading. Not copyable; closing it leaves its mappings in place.
class File {
  public:
    // Throws Error(FLOATLLM_ERROR_MODEL) for a missing file, a folder, or anything but a regular file.
    explicit File(const std::string &path);
    ~File();
    File(const File &) = delete;
    File &operator=(const File &) = delete;

    const std::string &path() const { return path_; }
    uint64_t size() const { return size_; }
    // Reads exactly `count` bytes at `offset`. Throws Error(FLOATLLM_ERROR_ENGINE) when the file ends
    // earlier (it shrank since it was opened) or the read fails.
    void read_at(uint64_t offset, void *buffer, size_t count) const;

    // Of the file itself, whatever its path: equal for two handles of one file.
    std::pair<uint64_t, uint64_t> identity() const { return identity_; }

    // Throws Error(FLOATLLM_ERROR_ENGINE) if it was written to since it was opened.
    void require_unchanged() const;

    // Opens a second handle that reads past the system's page cache. False, with the reason in `why`,
    // where the file system has no such reads; read_direct() then reads through the cache.
    bool open_direct(std::string &why);
    // Like read_at(), past the page cache. Offset, buffer and count must be multiples of kDirectAlignment;
    // the part of `count` beyond the end of the file is left alone.
    void read_direct(uint64_t offset, void *buffer, size_t count) const;

  private:
    friend class Mapping;
    std::string path_;
    uint64_t size_ = 0;
    std::pair<uint64_t, uint64_t> identity_;  // device and number of the file
    int64_t written_ = 0;                     // when, by the file system's own clock
    intptr_t handle_ = -1;
    intptr_t direct_ = -1;
};

// At least the sector size of every disk in use, and a page.
constexpr size_t kDirectAlignment = 4096;

struct Guard;

// A read-only window of a file in memory. `offset` must be a multiple of map_granularity(); the File must
// outlive it.
//
// A file that becomes shorter, or a disk that fails, while it is mapped does not end the process: the lost
// bytes read as zero and require_intact() tells.
class Mapping {
  public:
    Mapping() = default;
    // Maps the window; populate() reads it in. Throws Error(FLOATLLM_ERROR_ENGINE).
    Mapping(const File &file, uint64_t offset, size_t size);
    ~Mapping();
    Mapping(Mapping &&other) noexcept
        : file_(other.file_),
          data_(std::exchange(other.data_, nullptr)),
          size_(std::exchange(other.size_, 0)),
          guard_(std::exchange(other.guard_, nullptr)) {}
    Mapping &operator=(Mapping &&other) noexcept {
        std::swap(file_, other.file_);
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        std::swap(guard_, other.guard_);
        return *this;
    }

    void *data() const { return data_; }
    size_t size() const { return size_; }
    // Reads a part of the window in. Different parts may be read from different threads at once.
    // Throws Error(FLOATLLM_ERROR_ENGINE) when the disk fails or the file became shorter.
    void populate(size_t begin, size_t count) const;
    // Throws Error(FLOATLLM_ERROR_ENGINE) when bytes that were looked at since could not be read.
    void require_intact() const;

  private:
    [[noreturn]] void fail(int reason) const;

    const File *file_ = nullptr;
    void *data_ = nullptr;
    size_t size_ = 0;
    Guard *guard_ = nullptr;
};

// What this process has mapped at an address: a byte of a file, or nothing (then `file` is 0).
struct Mapped {
    uint64_t device;
    uint64_t file;
    uint64_t offset;

    std::pair<uint64_t, uint64_t> identity() const { return {device, file}; }
};
Mapped mapped_at(const void *address);

// A shared library of the system's loader, closed again unless somebody else opened it too. Its names are not
// given to other libraries.
class Library {
  public:
    // False, with what the system says in `why`, where it cannot be loaded.
    Library(const std::string &path, std::string &why);
    ~Library();
    Library(const Library &) = delete;
    Library &operator=(const Library &) = delete;

    explicit operator bool() const { return handle_ != nullptr; }
    // A function by name, or nullptr.
    void *symbol(const char *name) const;

  private:
    void *handle_ = nullptr;
};

// Memory of its own, in whole pages, zero at first.
class Pages {
  public:
    Pages() = default;
    // Throws Error(FLOATLLM_ERROR_ENGINE).
    explicit Pages(size_t size);
    ~Pages();
    Pages(Pages &&other) noexcept
        : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
    Pages &operator=(Pages &&other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        return *this;
    }

    void *data() const { return data_; }
    size_t size() const { return size_; }

  private:
    void *data_ = nullptr;
    size_t size_ = 0;
};

// Asks for large pages, which are found faster, in a range of memory; only whole pages inside it.
void prefer_huge_pages(void *data, size_t size);

// Gives freed memory that the allocator holds back to the system.
void trim();

// Share of the file that is in the page cache, 0 to 1, by a sample; 0 where the system does not tell.
double cached_share(const File &file);

// Size of a memory page, and the finest multiple at which a file can be mapped.
size_t page_size();
size_t map_granularity();

// CPUs this process may run on: affinity, and a cgroup's CPU quota rounded up. At least 1.
unsigned usable_cpus();

// Memory that is this process's alone, in bytes; 0 where the system does not tell.
uint64_t private_bytes();

// Seconds that the CPUs that this process may run on were busy since the system began to count, without what
// gives way to it, and those of this process itself.
struct CpuUse {
    double busy;
    double own;
    unsigned cpus;
};
// Nothing where the system does not tell.
std::optional<CpuUse> cpu_use();

// One bound on memory: how many more bytes this process can take before `source` refuses.
struct MemoryBound {
    uint64_t bytes;
    std::string source;
    bool addresses = false;  // counts address space, stacks of threads included, not memory in use
};

// Every bound that this system states: free memory, each ancestor cgroup, address space, ...
std::vector<MemoryBound> memory_bounds();

}  // namespace floatllm::os

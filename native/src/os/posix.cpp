#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "error.h"
#include "os/os.h"

namespace floatllm::os {

Library::Library(const std::string &path, std::string &why)
    : handle_(::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) {
    if (handle_ == nullptr) {
        const char *said = ::dlerror();
        why = said != nullptr ? said : "the system does not say why";
    }
}

Library::~Library() {
    if (handle_ != nullptr) {
        ::dlclose(handle_);
    }
}

void *Library::symbol(const char *name) const { return ::dlsym(handle_, name); }

namespace {

int64_t written_at(const struct stat &info) {
#if defined(__APPLE__)
    return int64_t{info.st_mtimespec.tv_sec} * 1000000000 + info.st_mtimespec.tv_nsec;
#else
    return int64_t{info.st_mtim.tv_sec} * 1000000000 + info.st_mtim.tv_nsec;
#endif
}

}  // namespace

File::File(const std::string &path) : path_(path) {
    // O_NONBLOCK: opening a FIFO must not wait for a writer; it is refused just below.
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        const int reason = errno;
        if (reason == ENOENT) {
            throw Error(FLOATLLM_ERROR_MODEL, format("There is no file %s. Check the path.", path.c_str()));
        }
        if (reason == EMFILE || reason == ENFILE) {
            throw Error(FLOATLLM_ERROR_ENGINE,
                        format("Cannot open %s: %s. Raise the limit on open files (ulimit -n).", path.c_str(),
                               std::strerror(reason)));
        }
        throw Error(FLOATLLM_ERROR_MODEL, format("Cannot open %s: %s.", path.c_str(), std::strerror(reason)));
    }
    struct stat info;
    if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        const bool folder = S_ISDIR(info.st_mode);
        ::close(fd);
        throw Error(FLOATLLM_ERROR_MODEL,
                    format("%s is %s. Name the GGUF file itself.", path.c_str(),
                           folder ? "a folder, not a model file" : "not a regular file"));
    }
    handle_ = fd;
    size_ = static_cast<uint64_t>(info.st_size);
    identity_ = {static_cast<uint64_t>(info.st_dev), static_cast<uint64_t>(info.st_ino)};
    written_ = written_at(info);
}

void File::require_unchanged() const {
    struct stat info;
    if (::fstat(static_cast<int>(handle_), &info) != 0) {
        return;  // What is read next will say why.
    }
    if (static_cast<uint64_t>(info.st_size) < size_) {
        became_shorter(path_);
    }
    if (static_cast<uint64_t>(info.st_size) != size_ || written_at(info) != written_) {
        throw Error(FLOATLLM_ERROR_ENGINE,
                    format("%s was changed while the model ran, so its numbers would be of two models. Open "
                           "it again.",
                           path_.c_str()));
    }
}

File::~File() {
    for (const intptr_t handle : {handle_, direct_}) {
        if (handle >= 0) {
            ::close(static_cast<int>(handle));
        }
    }
}

namespace {

[[noreturn]] void read_failed(const std::string &path, uint64_t offset, int reason) {
    throw Error(
        FLOATLLM_ERROR_ENGINE,
        format("Reading %s at byte %llu failed: %s. Check the disk that holds it (dmesg), or fetch the "
               "file again.",
               path.c_str(), static_cast<unsigned long long>(offset), std::strerror(reason)));
}

// Reads up to `count` bytes, until `enough` are there or the file ends; returns what is there. A read past
// the cache must not be repeated from where a file's odd end left it.
size_t read_some(int fd, const std::string &path, uint64_t offset, void *buffer, size_t count,
                 size_t enough) {
    size_t done = 0;
    while (done < enough) {
        // Linux transfers at most 2 GiB - 4 KiB a call.
        const size_t step = std::min<size_t>(count - done, size_t{1} << 30);
        const ssize_t got =
            ::pread(fd, static_cast<char *>(buffer) + done, step, static_cast<off_t>(offset + done));
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            read_failed(path, offset + done, errno);
        }
        if (got == 0) {
            break;
        }
        done += static_cast<size_t>(got);
    }
    return done;
}

}  // namespace

void File::read_at(uint64_t offset, void *buffer, size_t count) const {
    if (read_some(static_cast<int>(handle_), path_, offset, buffer, count, count) < count) {
        became_shorter(path_);
    }
}

bool File::open_direct(std::string &why) {
#if defined(O_DIRECT)
    const int fd = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT);
    if (fd < 0) {
        why = std::strerror(errno);
        return false;
    }
    // Some file systems take the flag and refuse the reads.
    const Pages probe(kDirectAlignment);
    if (::pread(fd, probe.data(), kDirectAlignment, 0) < 0) {
        why = std::strerror(errno);
        ::close(fd);
        return false;
    }
    direct_ = fd;
    return true;
#elif defined(F_NOCACHE)
    const int fd = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0 || ::fcntl(fd, F_NOCACHE, 1) != 0) {
        why = std::strerror(errno);
        if (fd >= 0) {
            ::close(fd);
        }
        return false;
    }
    direct_ = fd;
    return true;
#else
    why = "this system has no reads past the page cache";
    return false;
#endif
}

void File::read_direct(uint64_t offset, void *buffer, size_t count) const {
    const uint64_t rest = size_ > offset ? size_ - offset : 0;
    const size_t wanted = static_cast<size_t>(std::min<uint64_t>(count, rest));
    if (direct_ < 0) {
        read_at(offset, buffer, wanted);
#if defined(POSIX_FADV_DONTNEED)
        // Streamed bytes must not push everything else out of memory.
        ::posix_fadvise(static_cast<int>(handle_), static_cast<off_t>(offset), static_cast<off_t>(wanted),
                        POSIX_FADV_DONTNEED);
#endif
        return;
    }
    if (read_some(static_cast<int>(direct_), path_, offset, buffer, count, wanted) < wanted) {
        became_shorter(path_);
    }
}

Pages::Pages(size_t size) : size_(size) {
    void *data = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) {
        throw Error(FLOATLLM_ERROR_ENGINE,
                    format("Cannot get %s of memory: %s.", human_size(size).c_str(), std::strerror(errno)));
    }
    data_ = data;
    prefer_huge_pages(data, size);
}

void prefer_huge_pages(void *data, size_t size) {
#if defined(MADV_HUGEPAGE)
    const uintptr_t page = page_size();
    const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + page - 1) / page * page;
    const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + size) / page * page;
    if (end > begin) {
        ::madvise(reinterpret_cast<void *>(begin), end - begin, MADV_HUGEPAGE);
    }
#else
    (void)data;
    (void)size;
#endif
}

void trim() {
#if defined(__GLIBC__)
    ::malloc_trim(0);
#endif
}

Pages::~Pages() {
    if (data_ != nullptr) {
        ::munmap(data_, size_);
    }
}

size_t page_size() {
    static const size_t size = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
    return size;
}

size_t map_granularity() { return page_size(); }

}  // namespace floatllm::os

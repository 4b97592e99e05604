#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>

#include "error.h"
#include "os/os.h"

namespace floatllm::os {

File::File(const std::string &path) : path_(path) {
    // O_NONBLOCK: opening a FIFO must not wait for a writer; it is refused just below.
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        const int reason = errno;
        if (reason == ENOENT) {
            throw Error(FLOATLLM_ERROR_MODEL, format("There is no file %s. Check the path.", path.c_str()));
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
    throw Error(FLOATLLM_ERROR_ENGINE,
                format("Reading %s at byte %llu failed: %s.", path.c_str(),
                       static_cast<unsigned long long>(offset), std::strerror(reason)));
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

// Windows that a SIGBUS may come from. The handler may run at any moment on any thread, so this is a fixed
// table of atomics, and what it does is a system call.
namespace {

struct Guard {
    std::atomic<uintptr_t> begin{0};
    std::atomic<uintptr_t> end{0};
    std::atomic<bool> broken{false};
};

constexpr int kGuards = 1024;
Guard g_guards[kGuards];
struct sigaction g_former;

void on_sigbus(int signal, siginfo_t *info, void *context) {
    const uintptr_t address = reinterpret_cast<uintptr_t>(info->si_addr);
    for (Guard &guard : g_guards) {
        const uintptr_t begin = guard.begin.load();
        if (begin != 0 && address >= begin && address < guard.end.load()) {
            const uintptr_t page = address & ~(static_cast<uintptr_t>(page_size()) - 1);
            ::mmap(reinterpret_cast<void *>(page), page_size(), PROT_READ,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
            guard.broken.store(true);
            return;
        }
    }
    // Not ours: the former handler decides, and by default the process ends as it would have.
    if ((g_former.sa_flags & SA_SIGINFO) != 0 && g_former.sa_sigaction != nullptr) {
        g_former.sa_sigaction(signal, info, context);
    } else if (g_former.sa_handler != SIG_DFL && g_former.sa_handler != SIG_IGN) {
        g_former.sa_handler(signal);
    } else {
        ::signal(signal, SIG_DFL);
    }
}

int add_guard(void *data, size_t size) {
    static std::once_flag once;
    std::call_once(once, [] {
        page_size();  // sysconf() now, not in the handler
        struct sigaction action = {};
        action.sa_sigaction = on_sigbus;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        ::sigaction(SIGBUS, &action, &g_former);
    });
    static std::mutex lock;
    const std::lock_guard<std::mutex> held(lock);
    for (int i = 0; i < kGuards; ++i) {
        if (g_guards[i].begin.load() == 0) {
            g_guards[i].broken.store(false);
            g_guards[i].end.store(reinterpret_cast<uintptr_t>(data) + size);
            g_guards[i].begin.store(reinterpret_cast<uintptr_t>(data));
            return i;
        }
    }
    return -1;
}

}  // namespace

Mapping::Mapping(const File &file, uint64_t offset, size_t size) : size_(size) {
    struct stat info;
    if (::fstat(static_cast<int>(file.handle_), &info) != 0 ||
        static_cast<uint64_t>(info.st_size) < file.size()) {
        became_shorter(file.path());
    }
    void *data = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, static_cast<int>(file.handle_),
                        static_cast<off_t>(offset));
    if (data == MAP_FAILED) {
        throw Error(
            FLOATLLM_ERROR_ENGINE,
            format(
                "Cannot map %s of %s: %s. Give a smaller --memory, or raise the limit on address space (ulimit -v).",
                human_size(size).c_str(), file.path().c_str(), std::strerror(errno)));
    }
    data_ = data;
    guard_ = add_guard(data, size);
}

void Mapping::populate(size_t begin, size_t count) const {
    char *at = static_cast<char *>(data_) + begin;
    // Asks for the whole range at once; populating alone would go by the disk's small read-ahead.
    ::madvise(at, count, MADV_WILLNEED);
#if defined(MADV_POPULATE_READ)
    // Unlike a page fault, this reports a failing disk and a shortened file as an error.
    if (::madvise(at, count, MADV_POPULATE_READ) == 0) {
        return;
    }
    if (errno != EINVAL && errno != ENOSYS) {
        throw Error(FLOATLLM_ERROR_ENGINE,
                    format("Reading the model file failed: %s. It became shorter, or its disk fails.",
                           std::strerror(errno)));
    }
#endif
}

bool Mapping::intact() const { return guard_ < 0 || !g_guards[guard_].broken.load(); }

Mapping::~Mapping() {
    if (data_ != nullptr) {
        if (guard_ >= 0) {
            g_guards[guard_].begin.store(0);
        }
        ::munmap(data_, size_);
    }
}

Pages::Pages(size_t size) : size_(size) {
    void *data = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) {
        throw Error(FLOATLLM_ERROR_ENGINE,
                    format("Cannot get %s of memory: %s.", human_size(size).c_str(), std::strerror(errno)));
    }
    data_ = data;
#if defined(MADV_HUGEPAGE)
    ::madvise(data, size, MADV_HUGEPAGE);
#endif
}

Pages::~Pages() {
    if (data_ != nullptr) {
        ::munmap(data_, size_);
    }
}

double cached_share(const File &file) {
#if defined(__linux__)
    const size_t pages = static_cast<size_t>((file.size() + page_size() - 1) / page_size());
    // Look at 64 places of 64 pages: enough to tell a cached file from a cold one.
    constexpr size_t kPlaces = 64;
    constexpr size_t kRun = 64;
    size_t seen = 0;
    size_t cached = 0;
    for (size_t place = 0; place < kPlaces && pages > 0; ++place) {
        const size_t first = pages / kPlaces * place;
        const size_t count = std::min(kRun, pages - first);
        const Mapping window(file, uint64_t{first} * page_size(), count * page_size());
        unsigned char in_core[kRun] = {};
        if (::mincore(window.data(), count * page_size(), in_core) != 0) {
            return 0;
        }
        seen += count;
        for (size_t i = 0; i < count; ++i) {
            cached += in_core[i] & 1u;
        }
    }
    return seen == 0 ? 0 : static_cast<double>(cached) / static_cast<double>(seen);
#else
    (void)file;
    return 0;
#endif
}

size_t page_size() {
    static const size_t size = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
    return size;
}

size_t map_granularity() { return page_size(); }

}  // namespace floatllm::os

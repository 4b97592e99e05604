#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#if defined(__APPLE__)
#include <libproc.h>
#include <unistd.h>
#endif

#include "error.h"
#include "os/os.h"

namespace floatllm::os {

// A window that a SIGBUS may come from.
struct Guard {
    std::atomic<uintptr_t> begin{0};  // 0: free
    std::atomic<uintptr_t> end{0};
    std::atomic<bool> broken{false};
};

namespace {

// The handler may run at any moment on any thread: it walks blocks of atomics that are never freed, and what
// it does is a system call.
struct GuardBlock {
    Guard guards[256];
    std::atomic<GuardBlock *> next{nullptr};
};

GuardBlock g_blocks;
std::mutex g_lock;
std::vector<Guard *> g_free;  // under g_lock
struct sigaction g_former;

Guard *guard_at(uintptr_t address) {
    for (GuardBlock *block = &g_blocks; block != nullptr; block = block->next.load()) {
        for (Guard &guard : block->guards) {
            const uintptr_t begin = guard.begin.load();
            if (begin != 0 && address >= begin && address < guard.end.load()) {
                return &guard;
            }
        }
    }
    return nullptr;
}

void on_sigbus(int signal, siginfo_t *info, void *context) {
    const uintptr_t address = reinterpret_cast<uintptr_t>(info->si_addr);
    Guard *guard = guard_at(address);
    if (guard != nullptr) {
        // What was computed so far is lost already, so the rest of the window may read as zero too: one
        // fault, not one for each of its pages.
        const uintptr_t page = address & ~(static_cast<uintptr_t>(page_size()) - 1);
        guard->broken.store(true);
        if (::mmap(reinterpret_cast<void *>(page), guard->end.load() - page, PROT_READ,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED) {
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
        return;
    }
    // One that raises the signal again means it for whoever was there before it; that may be us.
    sigset_t pending;
    if (::sigpending(&pending) == 0 && ::sigismember(&pending, signal) == 1) {
        ::signal(signal, SIG_DFL);
    }
}

// Others (Python's faulthandler) may have put their own handler in since the last window was mapped.
void stand_guard() {
    struct sigaction current = {};
    ::sigaction(SIGBUS, nullptr, &current);
    if ((current.sa_flags & SA_SIGINFO) != 0 && current.sa_sigaction == on_sigbus) {
        return;
    }
    g_former = current;
    struct sigaction action = {};
    action.sa_sigaction = on_sigbus;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    ::sigaction(SIGBUS, &action, nullptr);
}

void offer(GuardBlock &block) {
    for (Guard &guard : block.guards) {
        g_free.push_back(&guard);
    }
}

Guard *add_guard(void *data, size_t size) {
    const std::lock_guard<std::mutex> held(g_lock);
    static bool first = true;
    if (first) {
        page_size();  // sysconf() now, not in the handler
        offer(g_blocks);
        first = false;
    }
    stand_guard();
    if (g_free.empty()) {
        GuardBlock *last = &g_blocks;
        while (last->next.load() != nullptr) {
            last = last->next.load();
        }
        auto more = std::make_unique<GuardBlock>();
        offer(*more);
        last->next.store(more.release());
    }
    Guard *guard = g_free.back();
    g_free.pop_back();
    guard->broken.store(false);
    guard->end.store(reinterpret_cast<uintptr_t>(data) + size);
    guard->begin.store(reinterpret_cast<uintptr_t>(data));
    return guard;
}

void remove_guard(Guard *guard) {
    const std::lock_guard<std::mutex> held(g_lock);
    guard->begin.store(0);
    g_free.push_back(guard);
}

bool shrank(int fd, const File &file) {
    struct stat info;
    return ::fstat(fd, &info) != 0 || static_cast<uint64_t>(info.st_size) < file.size();
}

}  // namespace

Mapping::Mapping(const File &file, uint64_t offset, size_t size) : file_(&file), size_(size) {
    if (shrank(static_cast<int>(file.handle_), file)) {
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

void Mapping::fail(int reason) const {
    if (shrank(static_cast<int>(file_->handle_), *file_)) {
        became_shorter(file_->path());
    }
    throw Error(
        FLOATLLM_ERROR_ENGINE,
        format("Reading %s failed: %s. Check the disk that holds it (dmesg), or fetch the file again.",
               file_->path().c_str(), std::strerror(reason)));
}

void Mapping::populate(size_t begin, size_t count) const {
    char *at = static_cast<char *>(data_) + begin;
    // Asks for the whole range at once; populating alone would go by the disk's small read-ahead.
    ::madvise(at, count, MADV_WILLNEED);
#if defined(MADV_POPULATE_READ)
    // Unlike a page fault, this reports a failing disk and a shortened file as an error.
    if (::madvise(at, count, MADV_POPULATE_READ) != 0 && errno != EINVAL && errno != ENOSYS) {
        // EFAULT is what a SIGBUS would have told: the disk did not give the page.
        fail(errno == EFAULT ? EIO : errno);
    }
#endif
}

void Mapping::require_intact() const {
    if (guard_ != nullptr && guard_->broken.load()) {
        fail(EIO);
    }
}

Mapping::~Mapping() {
    if (data_ != nullptr) {
        if (guard_ != nullptr) {
            remove_guard(guard_);
        }
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

namespace {

// The path and the file's byte of what is mapped at an address; false if no file is.
bool mapped_path(uintptr_t at, std::string &path, uint64_t &offset) {
#if defined(__APPLE__)
    proc_regionwithpathinfo info;
    if (proc_pidinfo(getpid(), PROC_PIDREGIONPATHINFO, at, &info, sizeof info) != sizeof info ||
        info.prp_vip.vip_path[0] == '\0' || at < info.prp_prinfo.pri_address) {
        return false;
    }
    path = info.prp_vip.vip_path;
    offset = info.prp_prinfo.pri_offset + (at - info.prp_prinfo.pri_address);
    return true;
#else
    // "7f00-7f80 r--s 00000000 08:01 123   /path": see proc(5).
    std::ifstream maps("/proc/self/maps");
    std::string line;
    while (std::getline(maps, line)) {
        unsigned long long begin = 0;
        unsigned long long end = 0;
        unsigned long long from = 0;
        int name = 0;
        if (std::sscanf(line.c_str(), "%llx-%llx %*s %llx %*s %*s %n", &begin, &end, &from, &name) == 3 &&
            at >= begin && at < end) {
            path = line.substr(static_cast<size_t>(name));
            offset = from + (at - begin);
            return !path.empty() && path[0] == '/';
        }
    }
    return false;
#endif
}

}  // namespace

Mapped mapped_at(const void *address) {
    std::string path;
    uint64_t offset = 0;
    struct stat info;
    // Overlays and subvolumes give a mapping another device number than the file: its path is asked instead.
    if (!mapped_path(reinterpret_cast<uintptr_t>(address), path, offset) ||
        ::stat(path.c_str(), &info) != 0) {
        return {0, 0, 0};
    }
    return {static_cast<uint64_t>(info.st_dev), static_cast<uint64_t>(info.st_ino), offset};
}

}  // namespace floatllm::os

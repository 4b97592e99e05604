// What Linux, Android and macOS say of memory and CPUs.
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

#include "error.h"
#include "os/os.h"

#if defined(__APPLE__)
#include <mach/mach.h>
#include <sys/sysctl.h>
#else
#include <sched.h>
#endif

namespace floatllm::os {

namespace {

#if !defined(__APPLE__)

constexpr uint64_t kUnlimited = UINT64_MAX;

std::string read_text(const std::string &path) {
    std::ifstream in(path);
    std::stringstream text;
    text << in.rdbuf();
    return text.str();
}

// A number alone in a file; "max", absence or an error means no limit.
uint64_t read_limit(const std::string &path) {
    const std::string text = read_text(path);
    char *end = nullptr;
    const unsigned long long value = std::strtoull(text.c_str(), &end, 10);
    return end == text.c_str() ? kUnlimited : value;
}

// The value after `name` in "name value" lines; 0 when absent.
uint64_t field(const std::string &text, const std::string &name) {
    std::istringstream lines(text);
    std::string line;
    while (std::getline(lines, line)) {
        if (line.compare(0, name.size(), name) == 0 && line.size() > name.size() &&
            std::strchr(" :\t", line[name.size()]) != nullptr) {
            return std::strtoull(line.c_str() + name.size() + 1, nullptr, 10);
        }
    }
    return 0;
}

struct CgroupMount {
    bool v2;
    std::string folder;  // of this process's own group
    std::string root;    // where the walk upwards ends
};

// Folders of this process's cgroups, for `controller` (v1) and the unified hierarchy (v2).
std::vector<CgroupMount> cgroup_folders(const std::string &controller) {
    std::string v1_path;
    std::string v2_path;
    std::istringstream groups(read_text("/proc/self/cgroup"));
    std::string line;
    while (std::getline(groups, line)) {
        const size_t first = line.find(':');
        const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
        if (second == std::string::npos) {
            continue;
        }
        const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
        if (controllers == ",,") {
            v2_path = line.substr(second + 1);
        } else if (controllers.find("," + controller + ",") != std::string::npos) {
            v1_path = line.substr(second + 1);
        }
    }
    std::vector<CgroupMount> found;
    std::istringstream mounts(read_text("/proc/self/mountinfo"));
    while (std::getline(mounts, line)) {
        std::istringstream words(line);
        std::string skip;
        std::string root;
        std::string point;
        words >> skip >> skip >> skip >> root >> point;
        const size_t dash = line.find(" - ");
        if (dash == std::string::npos) {
            continue;
        }
        std::istringstream tail(line.substr(dash + 3));
        std::string type;
        std::string source;
        std::string options;
        tail >> type >> source >> options;
        const bool v2 = type == "cgroup2";
        const bool v1 =
            type == "cgroup" && ("," + options + ",").find("," + controller + ",") != std::string::npos;
        const std::string &path = v2 ? v2_path : v1_path;
        if ((!v1 && !v2) || path.empty()) {
            continue;
        }
        // In a container the mount shows a subtree: strip the part that lies above it.
        std::string below = path;
        if (root != "/" && below.compare(0, root.size(), root) == 0) {
            below = below.substr(root.size());
        }
        if (below == "/") {
            below.clear();
        }
        found.push_back({v2, point + below, point});
    }
    return found;
}

template <typename Visit>
void walk_up(const CgroupMount &mount, Visit visit) {
    std::string folder = mount.folder;
    while (true) {
        visit(folder);
        if (folder.size() <= mount.root.size()) {
            return;
        }
        folder.resize(folder.rfind('/'));
    }
}

// Usage counts page cache that the kernel gives back on demand, so the clean part of it is free.
uint64_t cgroup_free(uint64_t limit, uint64_t usage, const std::string &stat, const std::string &prefix,
                     bool v2) {
    const uint64_t file = field(stat, prefix + "inactive_file") + field(stat, prefix + "active_file");
    const uint64_t unclean = field(stat, prefix + (v2 ? "file_dirty" : "dirty")) +
                             field(stat, prefix + (v2 ? "file_writeback" : "writeback"));
    const uint64_t reclaimable = std::min(usage, file - std::min(file, unclean));
    const uint64_t held = usage - reclaimable;
    return limit > held ? limit - held : 0;
}

void add_cgroups(std::vector<MemoryBound> &bounds) {
    for (const CgroupMount &mount : cgroup_folders("memory")) {
        walk_up(mount, [&](const std::string &folder) {
            const uint64_t limit =
                mount.v2 ? std::min(read_limit(folder + "/memory.max"), read_limit(folder + "/memory.high"))
                         : read_limit(folder + "/memory.limit_in_bytes");
            // v1 writes "no limit" as the largest multiple of a page.
            if (limit >= uint64_t{1} << 62) {
                return;
            }
            const uint64_t usage =
                read_limit(folder + (mount.v2 ? "/memory.current" : "/memory.usage_in_bytes"));
            const std::string stat = read_text(folder + "/memory.stat");
            const uint64_t used = usage == kUnlimited ? 0 : usage;
            bounds.push_back({cgroup_free(limit, used, stat, mount.v2 ? "" : "total_", mount.v2),
                              format("cgroup %s (limit %s)", folder.c_str(), human_size(limit).c_str())});
        });
    }
}

unsigned quota_cpus() {
    double cpus = 1e9;
    for (const CgroupMount &mount : cgroup_folders("cpu")) {
        walk_up(mount, [&](const std::string &folder) {
            long long quota = -1;
            long long period = 0;
            if (mount.v2) {
                std::istringstream text(read_text(folder + "/cpu.max"));
                std::string first;
                text >> first >> period;
                quota = first == "max" || first.empty() ? -1 : std::atoll(first.c_str());
            } else {
                quota = std::atoll(read_text(folder + "/cpu.cfs_quota_us").c_str());
                period = std::atoll(read_text(folder + "/cpu.cfs_period_us").c_str());
            }
            if (quota > 0 && period > 0) {
                cpus = std::min(cpus, static_cast<double>(quota) / static_cast<double>(period));
            }
        });
    }
    const double whole = cpus >= 1e6 ? 1e6 : cpus;
    const unsigned down = static_cast<unsigned>(whole);
    return down < whole ? down + 1 : down;
}

#endif

}  // namespace

unsigned usable_cpus() {
#if defined(__APPLE__)
    int count = 0;
    size_t size = sizeof(count);
    // Performance cores only: one pass ends with its slowest thread.
    if (sysctlbyname("hw.perflevel0.logicalcpu", &count, &size, nullptr, 0) != 0 || count < 1) {
        size = sizeof(count);
        sysctlbyname("hw.logicalcpu", &count, &size, nullptr, 0);
    }
    return count < 1 ? 1 : static_cast<unsigned>(count);
#else
    cpu_set_t set;
    CPU_ZERO(&set);
    unsigned count = 0;
    if (sched_getaffinity(0, sizeof(set), &set) == 0) {
        count = static_cast<unsigned>(CPU_COUNT(&set));
    } else {
        const long online = ::sysconf(_SC_NPROCESSORS_ONLN);
        count = online < 1 ? 1 : static_cast<unsigned>(online);
    }
    return std::max(1u, std::min(count, quota_cpus()));
#endif
}

uint64_t private_bytes() {
#if defined(__APPLE__)
    task_vm_info_data_t info;
    mach_msg_type_number_t count = TASK_VM_INFO_COUNT;
    const bool told = task_info(mach_task_self(), TASK_VM_INFO, reinterpret_cast<task_info_t>(&info),
                                &count) == KERN_SUCCESS;
    return told ? info.phys_footprint : 0;
#else
    unsigned long long resident = 0;
    unsigned long long shared = 0;
    const std::string text = read_text("/proc/self/statm");
    if (std::sscanf(text.c_str(), "%*u %llu %llu", &resident, &shared) != 2 || resident < shared) {
        return 0;
    }
    return (resident - shared) * page_size();
#endif
}

std::optional<CpuUse> cpu_use() {
#if defined(__APPLE__)
    return std::nullopt;
#else
    cpu_set_t set;
    CPU_ZERO(&set);
    struct rusage own;
    if (sched_getaffinity(0, sizeof(set), &set) != 0 || ::getrusage(RUSAGE_SELF, &own) != 0) {
        return std::nullopt;
    }
    // What runs at a lower priority than others gives way to us, unless we do so ourselves.
    const bool nice = ::getpriority(PRIO_PROCESS, 0) > 0;
    const double tick = static_cast<double>(::sysconf(_SC_CLK_TCK));
    const auto seconds = [](const timeval &time) {
        return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
    };
    CpuUse use{0, seconds(own.ru_utime) + seconds(own.ru_stime), 0};
    std::istringstream lines(read_text("/proc/stat"));
    std::string line;
    while (std::getline(lines, line)) {
        unsigned cpu = 0;
        // user, nice, system, idle, waiting for disks, interrupts (2), stolen by the machine's host: proc(5).
        unsigned long long spent[8] = {};
        if (std::sscanf(line.c_str(), "cpu%u %llu %llu %llu %llu %llu %llu %llu %llu", &cpu, &spent[0],
                        &spent[1], &spent[2], &spent[3], &spent[4], &spent[5], &spent[6], &spent[7]) < 8 ||
            cpu >= CPU_SETSIZE || !CPU_ISSET(cpu, &set)) {
            continue;
        }
        const unsigned long long busy =
            spent[0] + (nice ? spent[1] : 0) + spent[2] + spent[5] + spent[6] + spent[7];
        use.busy += static_cast<double>(busy) / tick;
        ++use.cpus;
    }
    return use.cpus > 0 ? std::optional<CpuUse>(use) : std::nullopt;
#endif
}

std::vector<MemoryBound> memory_bounds() {
    std::vector<MemoryBound> bounds;
#if defined(__APPLE__)
    vm_statistics64_data_t stats;
    mach_msg_type_number_t count = HOST_VM_INFO64_COUNT;
    if (host_statistics64(mach_host_self(), HOST_VM_INFO64, reinterpret_cast<host_info64_t>(&stats),
                          &count) == KERN_SUCCESS) {
        const uint64_t pages = stats.free_count + stats.inactive_count + stats.purgeable_count;
        bounds.push_back({pages * page_size(), "free and inactive memory"});
    }
#else
    const uint64_t available = field(read_text("/proc/meminfo"), "MemAvailable") * 1024;
    if (available > 0) {
        bounds.push_back({available, "MemAvailable"});
    }
    add_cgroups(bounds);
    struct rlimit limit;
    if (::getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
        const uint64_t used = std::strtoull(read_text("/proc/self/statm").c_str(), nullptr, 10) * page_size();
        const uint64_t most = static_cast<uint64_t>(limit.rlim_cur);
        bounds.push_back({most > used ? most - used : 0, "RLIMIT_AS (address space)", true});
    }
#endif
    return bounds;
}

}  // namespace floatllm::os

#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <windows.h>

// It needs the other before it.
#include <psapi.h>

#include <algorithm>

#include "error.h"
#include "os/os.h"

namespace floatllm::os {

namespace {

HANDLE handle_of(intptr_t handle) { return reinterpret_cast<HANDLE>(handle); }

std::wstring wide(const std::string &text) {
    const int length = static_cast<int>(text.size());
    const int count = MultiByteToWideChar(CP_UTF8, 0, text.data(), length, nullptr, 0);
    std::wstring out(static_cast<size_t>(count), L'\0');
    MultiByteToWideChar(CP_UTF8, 0, text.data(), length, &out[0], count);
    return out;
}

std::string reason(DWORD code) {
    char text[256] = {};
    const DWORD length = FormatMessageA(FORMAT_MESSAGE_FROM_SYSTEM | FORMAT_MESSAGE_IGNORE_INSERTS, nullptr,
                                        code, 0, text, sizeof(text), nullptr);
    std::string out(text, length);
    while (!out.empty() && (out.back() == '\n' || out.back() == '\r' || out.back() == '.')) {
        out.pop_back();
    }
    return out.empty() ? format("error %lu", code) : out;
}

const SYSTEM_INFO &system_info() {
    static const SYSTEM_INFO info = [] {
        SYSTEM_INFO i;
        GetSystemInfo(&i);
        return i;
    }();
    return info;
}

}  // namespace

Library::Library(const std::string &path, std::string &why) {
    // Its own folder is searched for what it needs, and the system's; never the current one.
    handle_ = LoadLibraryExW(wide(path).c_str(), nullptr,
                             LOAD_LIBRARY_SEARCH_DLL_LOAD_DIR | LOAD_LIBRARY_SEARCH_DEFAULT_DIRS);
    if (handle_ == nullptr) {
        why = path + ": " + reason(GetLastError());
    }
}

Library::~Library() {
    if (handle_ != nullptr) {
        FreeLibrary(static_cast<HMODULE>(handle_));
    }
}

void *Library::symbol(const char *name) const {
    return reinterpret_cast<void *>(GetProcAddress(static_cast<HMODULE>(handle_), name));
}

namespace {

std::pair<uint64_t, uint64_t> identity_of(HANDLE handle) {
    BY_HANDLE_FILE_INFORMATION info;
    if (GetFileInformationByHandle(handle, &info) == 0) {
        return {0, 0};
    }
    return {info.dwVolumeSerialNumber, static_cast<uint64_t>(info.nFileIndexHigh) << 32 | info.nFileIndexLow};
}

}  // namespace

Mapped mapped_at(const void *address) {
    MEMORY_BASIC_INFORMATION region;
    wchar_t name[MAX_PATH];
    if (VirtualQuery(address, &region, sizeof region) == 0 || region.Type != MEM_MAPPED ||
        GetMappedFileNameW(GetCurrentProcess(), const_cast<void *>(address), name, MAX_PATH) == 0) {
        return {0, 0, 0};
    }
    // The name is the device's own: \\Device\\HarddiskVolume3\\...
    const std::wstring path = L"\\\\?\\GLOBALROOT" + std::wstring(name);
    const HANDLE handle = CreateFileW(path.c_str(), 0, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE,
                                      nullptr, OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL, nullptr);
    if (handle == INVALID_HANDLE_VALUE) {
        return {0, 0, 0};
    }
    const auto [device, file] = identity_of(handle);
    CloseHandle(handle);
    // Files are mapped whole, from their first byte.
    return {device, file,
            static_cast<uint64_t>(static_cast<const char *>(address) -
                                  static_cast<const char *>(region.AllocationBase))};
}

File::File(const std::string &path) : path_(path) {
    const std::wstring name = wide(path);
    const DWORD attributes = GetFileAttributesW(name.c_str());
    if (attributes == INVALID_FILE_ATTRIBUTES) {
        const DWORD code = GetLastError();
        if (code == ERROR_FILE_NOT_FOUND || code == ERROR_PATH_NOT_FOUND) {
            throw Error(FLOATLLM_ERROR_MODEL, format("There is no file %s. Check the path.", path.c_str()));
        }
        throw Error(FLOATLLM_ERROR_MODEL, format("Cannot open %s: %s.", path.c_str(), reason(code).c_str()));
    }
    if ((attributes & FILE_ATTRIBUTE_DIRECTORY) != 0) {
        throw Error(FLOATLLM_ERROR_MODEL,
                    format("%s is a folder, not a model file. Name the GGUF file itself.", path.c_str()));
    }
    // Without FILE_SHARE_WRITE the file cannot become shorter while it is open.
    const HANDLE handle = CreateFileW(name.c_str(), GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_DELETE,
                                      nullptr, OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL, nullptr);
    if (handle == INVALID_HANDLE_VALUE) {
        throw Error(FLOATLLM_ERROR_MODEL,
                    format("Cannot open %s: %s.", path.c_str(), reason(GetLastError()).c_str()));
    }
    LARGE_INTEGER size;
    if (GetFileType(handle) != FILE_TYPE_DISK || GetFileSizeEx(handle, &size) == 0) {
        CloseHandle(handle);
        throw Error(FLOATLLM_ERROR_MODEL,
                    format("%s is not a regular file. Name the GGUF file itself.", path.c_str()));
    }
    handle_ = reinterpret_cast<intptr_t>(handle);
    size_ = static_cast<uint64_t>(size.QuadPart);
    identity_ = identity_of(handle);
}

// Others cannot write to it: it was opened without FILE_SHARE_WRITE.
void File::require_unchanged() const {}

File::~File() {
    for (const intptr_t handle : {handle_, direct_}) {
        if (handle != -1) {
            CloseHandle(handle_of(handle));
        }
    }
}

namespace {

// Reads up to `count` bytes, until `enough` are there or the file ends; returns what is there. A read past
// the cache must not be repeated from where a file's odd end left it.
size_t read_some(intptr_t handle, const std::string &path, uint64_t offset, void *buffer, size_t count,
                 size_t enough) {
    size_t done = 0;
    while (done < enough) {
        OVERLAPPED at = {};
        at.Offset = static_cast<DWORD>(offset + done);
        at.OffsetHigh = static_cast<DWORD>((offset + done) >> 32);
        const DWORD step = static_cast<DWORD>(std::min<size_t>(count - done, size_t{1} << 30));
        DWORD got = 0;
        if (ReadFile(handle_of(handle), static_cast<char *>(buffer) + done, step, &got, &at) == 0 &&
            GetLastError() != ERROR_HANDLE_EOF) {
            throw Error(FLOATLLM_ERROR_ENGINE, format("Reading %s at byte %llu failed: %s.", path.c_str(),
                                                      static_cast<unsigned long long>(offset + done),
                                                      reason(GetLastError()).c_str()));
        }
        if (got == 0) {
            break;
        }
        done += got;
    }
    return done;
}

}  // namespace

void File::read_at(uint64_t offset, void *buffer, size_t count) const {
    if (read_some(handle_, path_, offset, buffer, count, count) < count) {
        became_shorter(path_);
    }
}

bool File::open_direct(std::string &why) {
    const HANDLE handle = CreateFileW(wide(path_).c_str(), GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_DELETE,
                                      nullptr, OPEN_EXISTING, FILE_FLAG_NO_BUFFERING, nullptr);
    if (handle == INVALID_HANDLE_VALUE) {
        why = reason(GetLastError());
        return false;
    }
    direct_ = reinterpret_cast<intptr_t>(handle);
    return true;
}

void File::read_direct(uint64_t offset, void *buffer, size_t count) const {
    const uint64_t rest = size_ > offset ? size_ - offset : 0;
    const size_t wanted = static_cast<size_t>(std::min<uint64_t>(count, rest));
    if (direct_ == -1) {
        read_at(offset, buffer, wanted);
    } else if (read_some(direct_, path_, offset, buffer, count, wanted) < wanted) {
        became_shorter(path_);
    }
}

Mapping::Mapping(const File &file, uint64_t offset, size_t size) : file_(&file), size_(size) {
    // A view may not pass the end of the file, while extents are rounded up to whole granules.
    const uint64_t rest = file.size() > offset ? file.size() - offset : 0;
    const size_t viewed = static_cast<size_t>(std::min<uint64_t>(size, rest));
    const HANDLE section = CreateFileMappingW(handle_of(file.handle_), nullptr, PAGE_READONLY, 0, 0, nullptr);
    if (section != nullptr) {
        data_ = MapViewOfFile(section, FILE_MAP_READ, static_cast<DWORD>(offset >> 32),
                              static_cast<DWORD>(offset), viewed);
    }
    const DWORD code = GetLastError();
    if (section != nullptr) {
        CloseHandle(section);  // the view keeps it alive
    }
    if (data_ == nullptr) {
        throw Error(FLOATLLM_ERROR_ENGINE, format("Cannot map %s of %s: %s.", human_size(size).c_str(),
                                                  file.path().c_str(), reason(code).c_str()));
    }
    size_ = viewed;
}

void Mapping::populate(size_t begin, size_t count) const {
    if (begin < size_) {
        WIN32_MEMORY_RANGE_ENTRY range = {static_cast<char *>(data_) + begin, std::min(count, size_ - begin)};
        PrefetchVirtualMemory(GetCurrentProcess(), 1, &range, 0);
    }
}

// The file cannot become shorter while it is open without FILE_SHARE_WRITE.
void Mapping::require_intact() const {}

Mapping::~Mapping() {
    if (data_ != nullptr) {
        UnmapViewOfFile(data_);
    }
}

Pages::Pages(size_t size) : size_(size) {
    data_ = VirtualAlloc(nullptr, size, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
    if (data_ == nullptr) {
        throw Error(FLOATLLM_ERROR_ENGINE, format("Cannot get %s of memory: %s.", human_size(size).c_str(),
                                                  reason(GetLastError()).c_str()));
    }
}

Pages::~Pages() {
    if (data_ != nullptr) {
        VirtualFree(data_, 0, MEM_RELEASE);
    }
}

// Windows gives large pages to those alone who may lock memory.
void prefer_huge_pages(void *, size_t) {}

// The heap gives large blocks back by itself.
void trim() {}

double cached_share(const File &) { return 0; }

size_t page_size() { return system_info().dwPageSize; }

size_t map_granularity() { return system_info().dwAllocationGranularity; }

unsigned usable_cpus() {
    DWORD_PTR process = 0;
    DWORD_PTR system = 0;
    unsigned count = 0;
    if (GetProcessAffinityMask(GetCurrentProcess(), &process, &system) != 0) {
        for (; process != 0; process &= process - 1) {
            ++count;
        }
    }
    return count > 0 ? count : system_info().dwNumberOfProcessors;
}

uint64_t private_bytes() {
    PROCESS_MEMORY_COUNTERS_EX counters;
    counters.cb = sizeof(counters);
    const bool told =
        GetProcessMemoryInfo(GetCurrentProcess(), reinterpret_cast<PROCESS_MEMORY_COUNTERS *>(&counters),
                             sizeof(counters)) != 0;
    return told ? counters.PrivateUsage : 0;
}

std::optional<CpuUse> cpu_use() { return std::nullopt; }

std::vector<MemoryBound> memory_bounds() {
    std::vector<MemoryBound> bounds;
    MEMORYSTATUSEX status = {};
    status.dwLength = sizeof(status);
    if (GlobalMemoryStatusEx(&status) != 0) {
        bounds.push_back({status.ullAvailPhys, "available physical memory"});
        bounds.push_back({status.ullAvailPageFile, "commit limit"});
        bounds.push_back({status.ullAvailVirtual, "address space"});
    }
    JOBOBJECT_EXTENDED_LIMIT_INFORMATION job = {};
    if (QueryInformationJobObject(nullptr, JobObjectExtendedLimitInformation, &job, sizeof(job), nullptr) !=
            0 &&
        (job.BasicLimitInformation.LimitFlags & JOB_OBJECT_LIMIT_PROCESS_MEMORY) != 0) {
        bounds.push_back({job.ProcessMemoryLimit, "job object"});
    }
    return bounds;
}

}  // namespace floatllm::os

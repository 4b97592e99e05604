// A libFuzzer target: bytes that claim to be a model, or several parts of one, through everything that judges
// them before a weight is read.
//
// The bytes are the file. A model in parts is written one part after the other, with kPartEnd between them.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "error.h"
#include "gguf_file.h"
#include "plan.h"

namespace {

constexpr char kPartEnd[] = "=PART=";
constexpr size_t kMostParts = 9;

struct Bytes {
    const uint8_t *data;
    size_t size;
};

std::vector<Bytes> parts_of(const uint8_t *data, size_t size) {
    std::vector<Bytes> parts;
    while (parts.size() + 1 < kMostParts) {
        const void *found = memmem(data, size, kPartEnd, sizeof(kPartEnd) - 1);
        if (found == nullptr) {
            break;
        }
        const size_t length = static_cast<size_t>(static_cast<const uint8_t *>(found) - data);
        parts.push_back({data, length});
        data += length + sizeof(kPartEnd) - 1;
        size -= length + sizeof(kPartEnd) - 1;
    }
    parts.push_back({data, size});
    return parts;
}

// A folder in memory for the files; what an earlier input left there is written over.
const std::string &folder() {
    static const std::string path = [] {
        char shared[] = "/dev/shm/gguf-fuzz-XXXXXX";
        char disk[] = "/tmp/gguf-fuzz-XXXXXX";
        const char *made = mkdtemp(shared);
        made = made != nullptr ? made : mkdtemp(disk);
        if (made == nullptr) {
            std::perror("mkdtemp");
            std::abort();
        }
        static std::string kept = made;
        std::atexit([] {
            for (size_t count = 1; count <= kMostParts; ++count) {
                for (size_t i = 1; i <= count; ++i) {
                    std::remove(floatllm::format("%s/m-%05zu-of-%05zu.gguf", kept.c_str(), i, count).c_str());
                }
            }
            rmdir(kept.c_str());
        });
        return kept;
    }();
    return path;
}

std::string write_parts(const std::vector<Bytes> &parts) {
    std::string first;
    for (size_t i = 0; i < parts.size(); ++i) {
        const std::string path =
            floatllm::format("%s/m-%05zu-of-%05zu.gguf", folder().c_str(), i + 1, parts.size());
        const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (file < 0 || write(file, parts[i].data, parts[i].size) != static_cast<ssize_t>(parts[i].size)) {
            std::perror(path.c_str());
            std::abort();
        }
        close(file);
        first = i == 0 ? path : first;
    }
    return first;
}

// What the file claims lies inside it, or the validator did not do its work.
void check(const floatllm::GgufFile &model) {
    for (const floatllm::Tensor &tensor : model.tensors()) {
        const uint64_t size = model.file(tensor.file).size();
        if (tensor.offset > size || tensor.size > size - tensor.offset || tensor.rows() < 1 ||
            tensor.row_bytes() * static_cast<uint64_t>(tensor.rows()) != tensor.size) {
            std::abort();
        }
    }
    for (const floatllm::Meta &meta : model.metas()) {
        if (meta.offset + meta.size > model.file(0).size() || model.meta(meta.key) != &meta) {
            std::abort();
        }
        try {
            model.number_f32(meta.key, 0);
            model.number_u32(meta.key, 0);
        } catch (const floatllm::Error &) {
        }
        try {
            model.text(meta.key, "");
        } catch (const floatllm::Error &) {
        }
    }
}

floatllm::DeviceFacts facts(bool maps_host, bool overlaps) {
    floatllm::DeviceFacts device{};
    device.name = maps_host ? "CPU" : "CUDA0";
    device.maps_host = device.cpu = maps_host;
    device.memory_free = uint64_t{1} << 26;
    device.alignment = 128;
    device.tensor_slack = 256;
    device.max_buffer = maps_host ? UINT64_MAX : uint64_t{1} << 22;
    device.granularity = 4096;
    device.column_grain = 8;
    device.overlaps = overlaps;
    device.repacks.assign(GGML_TYPE_COUNT, maps_host);
    return device;
}

void plan(const std::shared_ptr<const floatllm::GgufFile> &model, floatllm_mode mode,
          const std::vector<floatllm::DeviceFacts> &devices, uint64_t device_memory) {
    floatllm::PlanRequest request{};
    request.mode = mode;
    request.budget = {uint64_t{1} << 25, "--memory"};
    request.explicit_budget = true;
    request.sequences = request.outputs = 1;
    request.threads = 2;
    request.device_memory = device_memory;
    request.cpu_share = -1;
    try {
        floatllm::Plans made = floatllm::make_plans(model, devices, request);
        uint64_t host = 0;
        for (floatllm::Plan &each : made) {
            const floatllm::MemoryShares &m = each.memory;
            host += each.host_bytes;
            if (m.kv + each.layout.bytes + m.pinned + m.ring > each.device_limit) {
                std::abort();
            }
            floatllm::share_with_cpu(each, 0.5);
        }
        if (host > request.budget.bytes) {
            std::abort();
        }
        floatllm::plan_json(made);
    } catch (const floatllm::Error &) {
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const std::string path = write_parts(parts_of(data, size));
    std::shared_ptr<const floatllm::GgufFile> model;
    try {
        model = std::make_shared<floatllm::GgufFile>(path);
    } catch (const floatllm::Error &) {
        // Any other exception, and any other end, is what this program looks for.
        return 0;
    }
    check(*model);
    const floatllm::DeviceFacts cpu = facts(true, false);
    const floatllm::DeviceFacts gpu = facts(false, true);
    floatllm::DeviceFacts slow = facts(false, false);
    slow.name = "RPC0";
    constexpr uint64_t kDeviceMemory = uint64_t{1} << 24;
    for (const floatllm_mode mode : {FLOATLLM_MODE_MAP, FLOATLLM_MODE_RUN}) {
        plan(model, mode, {cpu}, 0);
        plan(model, mode, {gpu}, 0);
        plan(model, mode, {gpu}, kDeviceMemory);
        plan(model, mode, {slow, gpu}, kDeviceMemory);
        plan(model, mode, {slow, cpu}, kDeviceMemory);
    }
    return 0;
}

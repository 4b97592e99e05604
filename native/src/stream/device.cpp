#include "stream/device.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <optional>
#include <stdexcept>

#include "error.h"
#include "free_cpus.h"
#include "ggml-backend-impl.h"
#include "ggml-cpp.h"
#include "ggml-cpu.h"
#include "log.h"
#include "stream/pass.h"

namespace floatllm::stream {

// What ggml holds of a device: they point at each other.
struct Device::Handles {
    ggml_backend_dev_t base;
    ggml_backend_reg reg;
    ggml_backend_device device;
    ggml_backend_buffer_type weights;  // whose addresses stand for bytes of files
    ggml_backend_buffer_type memory;   // the device's default: the base's own
};

namespace {

// A function of a backend, by name: with backends in libraries of their own, nothing of theirs can be linked.
template <typename Function>
Function *proc(ggml_backend_dev_t device, const char *name) {
    return reinterpret_cast<Function *>(
        ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(device), name));
}

// A context's own: the base's stream and threads, and the graphs that it knows.
struct Context {
    Device *device = nullptr;
    ggml_backend_dev_t base_device = nullptr;
    ggml_backend_t base = nullptr;
    ggml_threadpool_t pool = nullptr;
    unsigned pool_threads = 0;
    unsigned wanted = 0;  // threads
    std::optional<FreeCpus> free_cpus;
    std::unique_ptr<Pass> pass;
};

// libllama computes on the thread that asked it to, and says no more than that a pass failed.
thread_local std::string t_failure;

void fail_pass(const char *why) noexcept {
    try {
        t_failure = why;
        log_line(GGML_LOG_LEVEL_ERROR, t_failure);
    } catch (const std::exception &) {
        // Then there is no memory for the sentence either.
    }
}

struct WeightBuffer {
    Device *device;
    void *base;
};

}  // namespace

// The functions that ggml calls.
struct Glue {
    static Device &of(ggml_backend_dev_t device) { return *static_cast<Device *>(device->context); }
    static Device::Handles &handles(ggml_backend_dev_t device) { return *of(device).handles_; }
    static ggml_backend_dev_t base(ggml_backend_dev_t device) { return handles(device).base; }
    static Context &context(ggml_backend_t backend) { return *static_cast<Context *>(backend->context); }
    static WeightBuffer &weights(ggml_backend_buffer_t buffer) {
        return *static_cast<WeightBuffer *>(buffer->context);
    }

    // ---- buffers of weights
    static const char *weights_name(ggml_backend_buffer_type_t) { return "FloatLLM_Weights"; }
    static ggml_backend_buffer_t memory_alloc(ggml_backend_buffer_type_t type, size_t size) {
        return ggml_backend_buft_alloc_buffer(ggml_backend_dev_buffer_type(base(type->device)), size);
    }
    static size_t memory_alignment(ggml_backend_buffer_type_t type) {
        return ggml_backend_buft_get_alignment(ggml_backend_dev_buffer_type(base(type->device)));
    }
    static size_t memory_max(ggml_backend_buffer_type_t type) {
        return ggml_backend_buft_get_max_size(ggml_backend_dev_buffer_type(base(type->device)));
    }
    static size_t memory_size(ggml_backend_buffer_type_t type, const ggml_tensor *tensor) {
        return ggml_backend_buft_get_alloc_size(ggml_backend_dev_buffer_type(base(type->device)), tensor);
    }
    static bool memory_is_host(ggml_backend_buffer_type_t type) {
        return ggml_backend_buft_is_host(ggml_backend_dev_buffer_type(base(type->device)));
    }
    static bool never(ggml_backend_buffer_type_t) { return false; }
    static const char *memory_name(ggml_backend_buffer_type_t) { return "FloatLLM"; }

    static void weights_free(ggml_backend_buffer_t buffer) {
        weights(buffer).device->weights_.unmap(weights(buffer).base);
        delete &weights(buffer);
    }
    static void *weights_base(ggml_backend_buffer_t buffer) { return weights(buffer).base; }
    static void weights_memset(ggml_backend_buffer_t buffer, ggml_tensor *tensor, uint8_t, size_t, size_t) {
        weights(buffer).device->fail(
            format("The program overwrites the weight %s, which lies in a file.", tensor->name));
    }
    // What a program writes to a weight must be what the file says already.
    static void weights_set(ggml_backend_buffer_t buffer, ggml_tensor *tensor, const void *data,
                            size_t offset, size_t size) {
        Device &device = *weights(buffer).device;
        try {
            // While another context computes, tensors are elsewhere.
            const std::lock_guard<std::mutex> held(device.one_pass_);
            std::vector<char> there(std::min(size, size_t{1} << 20));
            for (size_t done = 0; done < size; done += there.size()) {
                const size_t count = std::min(there.size(), size - done);
                device.weights_.read(static_cast<char *>(tensor->data) + offset + done, there.data(), count);
                if (std::memcmp(there.data(), static_cast<const char *>(data) + done, count) != 0) {
                    device.fail(
                        format("The program changes the weight %s, which lies in a file.", tensor->name));
                    return;
                }
            }
        } catch (const std::exception &reason) {
            device.fail(reason.what());
        }
    }
    // For whoever computes on a weight elsewhere.
    static void weights_get(ggml_backend_buffer_t buffer, const ggml_tensor *tensor, void *data,
                            size_t offset, size_t size) {
        Device &device = *weights(buffer).device;
        try {
            const std::lock_guard<std::mutex> held(device.one_pass_);
            device.weights_.read(static_cast<const char *>(tensor->data) + offset, data, size);
        } catch (const std::exception &reason) {
            std::memset(data, 0, size);
            device.fail(reason.what());
        }
    }
    static void weights_clear(ggml_backend_buffer_t, uint8_t) {}

    // ---- a context's backend
    static const char *backend_name(ggml_backend_t) { return "FloatLLM"; }
    static void backend_free(ggml_backend_t backend) {
        Context &own = context(backend);
        ggml_backend_free(own.base);
        if (own.pool != nullptr) {
            proc<decltype(ggml_threadpool_free)>(own.base_device, "ggml_threadpool_free")(own.pool);
        }
        delete &own;
        delete backend;
    }
    static void backend_synchronize(ggml_backend_t backend) {
        ggml_backend_synchronize(context(backend).base);
    }
    static void backend_optimize(ggml_backend_t backend, ggml_cgraph *graph,
                                 ggml_backend_graph_optimize_params *params) {
        ggml_backend_t base = context(backend).base;
        if (base->iface.graph_optimize != nullptr) {
            base->iface.graph_optimize(base, graph, params);
        }
    }
    static ggml_status backend_compute(ggml_backend_t backend, ggml_cgraph *graph) {
        Context &own = context(backend);
        // Nothing may be thrown through ggml.
        try {
            if (own.device->failed()) {
                return GGML_STATUS_FAILED;
            }
            return own.pass->compute(graph);
        } catch (const std::bad_alloc &) {
            fail_pass("There was no memory left.");
            return GGML_STATUS_ALLOC_FAILED;
        } catch (const std::exception &reason) {
            fail_pass(reason.what());
        }
        return GGML_STATUS_FAILED;
    }
    // libllama tells before each graph, so the number follows the CPUs that are free.
    static void set_threads(ggml_backend_t backend, int threads) {
        try {
            follow_cpus(context(backend), threads);
        } catch (const std::exception &) {
            // As many as before compute then.
        }
    }
    static void follow_cpus(Context &own, int threads) {
        const unsigned wanted = static_cast<unsigned>(std::min(std::max(threads, 1), GGML_MAX_N_THREADS));
        if (!own.free_cpus || own.wanted != wanted) {
            own.free_cpus.emplace(wanted);
            own.wanted = wanted;
        }
        if (own.free_cpus->most() > own.pool_threads) {
            make_pool(own, own.free_cpus->most());
        }
        if (auto *set = reinterpret_cast<ggml_backend_set_n_threads_t>(ggml_backend_reg_get_proc_address(
                ggml_backend_dev_backend_reg(own.base_device), "ggml_backend_set_n_threads"))) {
            set(own.base, static_cast<int>(own.free_cpus->threads()));
        }
    }
    // Without a pool of our own ggml starts and ends its threads at every graph, and so at every segment.
    static void make_pool(Context &own, unsigned threads) {
        auto *new_pool = proc<decltype(ggml_threadpool_new)>(own.base_device, "ggml_threadpool_new");
        if (new_pool == nullptr) {
            return;
        }
        ggml_threadpool_params params = ggml_threadpool_params_default(static_cast<int>(threads));
        params.poll = 0;
        ggml_threadpool_t pool = new_pool(&params);
        if (pool == nullptr) {
            return;
        }
        proc<decltype(ggml_backend_cpu_set_threadpool)>(own.base_device, "ggml_backend_cpu_set_threadpool")(
            own.base, pool);
        if (own.pool != nullptr) {
            proc<decltype(ggml_threadpool_free)>(own.base_device, "ggml_threadpool_free")(own.pool);
        }
        own.pool = pool;
        own.pool_threads = threads;
    }
    static void set_abort(ggml_backend_t backend, ggml_abort_callback callback, void *data) {
        Context &own = context(backend);
        if (auto *set = reinterpret_cast<ggml_backend_set_abort_callback_t>(ggml_backend_reg_get_proc_address(
                ggml_backend_dev_backend_reg(own.base_device), "ggml_backend_set_abort_callback"))) {
            set(own.base, callback, data);
        }
    }

    // ---- the device
    static const char *device_name(ggml_backend_dev_t) { return "FloatLLM"; }
    static const char *device_description(ggml_backend_dev_t) { return "weights streamed from files"; }
    static void device_memory(ggml_backend_dev_t device, size_t *free, size_t *total) {
        ggml_backend_dev_memory(base(device), free, total);
    }
    static enum ggml_backend_dev_type device_type(ggml_backend_dev_t) { return GGML_BACKEND_DEVICE_TYPE_GPU; }
    static void device_props(ggml_backend_dev_t device, ggml_backend_dev_props *props) {
        *props = {};
        props->name = device_name(device);
        props->description = device_description(device);
        device_memory(device, &props->memory_free, &props->memory_total);
        props->type = device_type(device);
        props->caps.buffer_from_host_ptr = true;
        props->caps.mmap_support = true;
    }
    static ggml_backend_t device_init(ggml_backend_dev_t device, const char *);
    static ggml_backend_buffer_type_t device_memory_type(ggml_backend_dev_t device) {
        return &handles(device).memory;
    }
    static ggml_backend_buffer_t device_from_host(ggml_backend_dev_t device, void *data, size_t size, size_t);
    static bool device_supports_op(ggml_backend_dev_t device, const ggml_tensor *op) {
        return ggml_backend_dev_supports_op(base(device), op);
    }
    static bool device_supports_type(ggml_backend_dev_t device, ggml_backend_buffer_type_t type) {
        return type == &handles(device).weights || type == &handles(device).memory ||
               ggml_backend_dev_supports_buft(base(device), type);
    }

    // ---- the registry
    static const char *reg_name(ggml_backend_reg_t) { return "FloatLLM"; }
    static size_t reg_count(ggml_backend_reg_t) { return 1; }
    static ggml_backend_dev_t reg_device(ggml_backend_reg_t reg, size_t) {
        return static_cast<Device *>(reg->context)->handle();
    }
    static bool reads_files() { return true; }
    static void *reg_proc(ggml_backend_reg_t, const char *name) {
        if (std::strcmp(name, "ggml_backend_set_n_threads") == 0) {
            return reinterpret_cast<void *>(set_threads);
        }
        if (std::strcmp(name, "ggml_backend_set_abort_callback") == 0) {
            return reinterpret_cast<void *>(set_abort);
        }
        // What libllama, as we patch it, asks before it has the system read a file ahead.
        if (std::strcmp(name, "ggml_backend_reads_files") == 0) {
            return reinterpret_cast<void *>(reads_files);
        }
        return nullptr;
    }

    static const ggml_backend_buffer_i kWeights;
    static const ggml_backend_i kBackend;
    static const ggml_backend_device_i kDevice;
};

const ggml_backend_buffer_i Glue::kWeights = {
    weights_free, weights_base, nullptr, weights_memset, weights_set, weights_get,
    nullptr,      nullptr,      nullptr, weights_clear,  nullptr,
};

const ggml_backend_i Glue::kBackend = {
    backend_name, backend_free, nullptr, nullptr, nullptr,         nullptr, nullptr, backend_synchronize,
    nullptr,      nullptr,      nullptr, nullptr, backend_compute, nullptr, nullptr, backend_optimize,
};

const ggml_backend_device_i Glue::kDevice = {
    device_name,
    device_description,
    device_memory,
    device_type,
    device_props,
    device_init,
    device_memory_type,
    nullptr,
    device_from_host,
    device_supports_op,
    device_supports_type,
    nullptr,
    nullptr,
    nullptr,
    nullptr,
};

ggml_backend_t Glue::device_init(ggml_backend_dev_t device, const char *) {
    static ggml_guid guid = {0x0f, 0x10, 0xa7, 0x11, 0x3d, 0x57, 0x5e, 0xa9,
                             0x6d, 0x0d, 0xe1, 0x5b, 0xe7, 0x0d, 0x15, 0x6b};
    ggml_backend_ptr base_backend(ggml_backend_dev_init(base(device), nullptr));
    if (base_backend == nullptr) {
        return nullptr;
    }
    try {
        auto own = std::make_unique<Context>();
        own->device = &of(device);
        own->base_device = base(device);
        own->base = base_backend.get();
        own->pass = std::make_unique<Pass>(of(device), base_backend.get());
        auto *made = new ggml_backend{&guid, kBackend, device, own.get()};
        base_backend.release();
        own.release();
        return made;
    } catch (const std::exception &reason) {
        fail_pass(reason.what());
        return nullptr;
    }
}

ggml_backend_buffer_t Glue::device_from_host(ggml_backend_dev_t device, void *data, size_t size, size_t) {
    Device &own = of(device);
    try {
        const os::Mapped mapped = os::mapped_at(data);
        const Files &files = own.weights_.files();
        for (uint32_t i = 0; i < files.size(); ++i) {
            if (mapped.file != 0 && files[i]->identity() == mapped.identity()) {
                own.weights_.map(data, size, i, mapped.offset);
                return ggml_backend_buffer_init(&own.handles_->weights, kWeights,
                                                new WeightBuffer{&own, data}, size);
            }
        }
        fail_pass("The file that is mapped is not the one that was opened: it was moved or replaced.");
    } catch (const std::exception &reason) {
        fail_pass(reason.what());
    }
    return nullptr;
}

Device::Device(ggml_backend_dev_t base, Files files, const Limits &limits)
    : limits_(limits),
      handles_(new Handles{}),
      weights_(std::move(files)),
      readers_(limits.readers),
      ring_(limits.io, limits.slots, limits.slot_bytes) {
    handles_->base = base;
    handles_->reg = {
        GGML_BACKEND_API_VERSION, {Glue::reg_name, Glue::reg_count, Glue::reg_device, Glue::reg_proc}, this};
    handles_->device = {Glue::kDevice, &handles_->reg, this};
    const ggml_backend_buffer_type_i memory = {
        Glue::memory_name, Glue::memory_alloc, nullptr, Glue::memory_alignment,
        Glue::memory_max,  Glue::memory_size,  nullptr, Glue::memory_is_host,
    };
    handles_->memory = {memory, &handles_->device, nullptr};
    handles_->weights = handles_->memory;
    handles_->weights.iface.get_name = Glue::weights_name;
    handles_->weights.iface.is_host = Glue::never;
}

Device::~Device() = default;

ggml_backend_dev_t Device::handle() { return &handles_->device; }

void Device::fail(const std::string &why) {
    const std::lock_guard<std::mutex> held(failure_lock_);
    if (failure_.empty()) {
        failure_ = why;
        log_line(GGML_LOG_LEVEL_ERROR, why);
    }
}

bool Device::failed() {
    const std::lock_guard<std::mutex> held(failure_lock_);
    return !failure_.empty();
}

std::string Device::take_failure() {
    const std::lock_guard<std::mutex> held(failure_lock_);
    return failure_.empty() ? std::exchange(t_failure, "") : failure_;
}

}  // namespace floatllm::stream

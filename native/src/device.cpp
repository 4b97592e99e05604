#include "device.h"

#include <cstring>
#include <mutex>

#include "error.h"
#include "ggml-cpu.h"

namespace floatllm {

namespace {

floatllm_log_fn g_log = nullptr;
void *g_log_user = nullptr;

std::recursive_mutex g_log_lock;  // a listener may log
thread_local bool g_quiet_thread = false;

void forward_log(ggml_log_level level, const char *text, void *) {
    if (g_quiet_thread && level == GGML_LOG_LEVEL_DEBUG) {
        return;
    }
    const std::lock_guard<std::recursive_mutex> held(g_log_lock);
    if (g_log != nullptr) {
        g_log(static_cast<int>(level), text, g_log_user);
    }
}

// A function of the device's backend, by name: with backends in libraries of their own, nothing of
// theirs can be linked.
template <typename Function>
Function *proc(ggml_backend_dev_t device, const char *name) {
    return reinterpret_cast<Function *>(
        ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(device), name));
}

// ggml's own default prints to stderr, from the first call on.
const bool g_quiet = (ggml_log_set(forward_log, nullptr), true);

bool is_cpu(ggml_backend_dev_t device) {
    return ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_CPU;
}

}  // namespace

void set_log(floatllm_log_fn log, void *user) {
    g_log = log;
    g_log_user = user;
    ggml_log_set(forward_log, nullptr);
}

QuietThread::QuietThread() { g_quiet_thread = true; }
QuietThread::~QuietThread() { g_quiet_thread = false; }

void log_line(ggml_log_level level, const std::string &text) {
    forward_log(level, (text + "\n").c_str(), nullptr);
}

void load_backends(const std::string &dir) {
#if defined(FLOATLLM_BACKEND_DL)
    static std::once_flag once;
    std::call_once(once, [&dir] { ggml_backend_load_all_from_path(dir.c_str()); });
#else
    (void)dir;
#endif
}

floatllm_device_info device_info(size_t index) {
    if (index >= ggml_backend_dev_count()) {
        throw Error(FLOATLLM_ERROR_USAGE,
                    format("There is no device %zu; there are %zu.", index, ggml_backend_dev_count()));
    }
    ggml_backend_dev_props props;
    ggml_backend_dev_get_props(ggml_backend_dev_get(index), &props);
    return {props.name,
            props.description,
            props.memory_free,
            props.memory_total,
            static_cast<int32_t>(props.type),
            props.caps.buffer_from_host_ptr ? 1 : 0};
}

ggml_backend_dev_t find_device(const std::string &name) {
    if (!name.empty()) {
        if (ggml_backend_dev_t device = ggml_backend_dev_by_name(name.c_str())) {
            return device;
        }
        std::string names;
        for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
            names += (i == 0 ? "" : ", ") + std::string(ggml_backend_dev_name(ggml_backend_dev_get(i)));
        }
        throw Error(
            FLOATLLM_ERROR_MISSING,
            format(
                "There is no device %s here; this engine sees: %s. Install an engine built for it (floatllm-build "
                "install --backend ...) or name one of these.",
                name.c_str(), names.empty() ? "none" : names.c_str()));
    }
    for (const auto type :
         {GGML_BACKEND_DEVICE_TYPE_GPU, GGML_BACKEND_DEVICE_TYPE_IGPU, GGML_BACKEND_DEVICE_TYPE_CPU}) {
        if (ggml_backend_dev_t device = ggml_backend_dev_by_type(type)) {
            return device;
        }
    }
    throw Error(FLOATLLM_ERROR_MISSING,
                "This engine sees no device at all, not even the CPU: its backend libraries are "
                "missing beside it. Install the engine again.");
}

namespace {

// ggml's CPU kernels for one column differ from those for many, and some need 2, 4 or 8 of them; from 8 on,
// each column of a product is summed in the same order whatever their number. Kernels that take two rows and
// two columns at once are chosen by how the work falls on the threads, so there no number is safe.
uint32_t column_grain(ggml_backend_dev_t device) {
    auto *features = reinterpret_cast<ggml_backend_get_features_t>(
        ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(device), "ggml_backend_get_features"));
    if (!is_cpu(device) || features == nullptr) {
        return 0;
    }
    for (const ggml_backend_feature *each = features(ggml_backend_dev_backend_reg(device));
         each->name != nullptr; ++each) {
        if (std::strcmp(each->name, "MATMUL_INT8") == 0 && std::strcmp(each->value, "0") != 0) {
            return 0;
        }
    }
    return 8;
}

}  // namespace

namespace {

// The buffer type whose tensors ggml's CPU backend rearranges for kernels that take several rows at once.
ggml_backend_buffer_type_t repack_type(ggml_backend_dev_t device) {
    auto *extra = reinterpret_cast<ggml_backend_dev_get_extra_bufts_t>(ggml_backend_reg_get_proc_address(
        ggml_backend_dev_backend_reg(device), "ggml_backend_dev_get_extra_bufts"));
    for (ggml_backend_buffer_type_t *each = extra != nullptr && is_cpu(device) ? extra(device) : nullptr;
         each != nullptr && *each != nullptr; ++each) {
        if (std::strcmp(ggml_backend_buft_name(*each), "CPU_REPACK") == 0) {
            return *each;
        }
    }
    return nullptr;
}

// Whether matrices of a type are rearranged, in place of the same size, and groups of rows apart from each
// other: tried, for ggml does not tell.
bool repacks(ggml_backend_dev_t device, ggml_backend_buffer_type_t buffers, ggml_type type) {
    const QuietThread quiet;
    constexpr int64_t kColumns = 1024;
    const size_t half = ggml_row_size(type, kColumns) * kRowGrain;
    ggml_context_ptr context(ggml_init({ggml_tensor_overhead() * 8, nullptr, true}));
    ggml_tensor *whole = ggml_new_tensor_2d(context.get(), type, kColumns, 2 * kRowGrain);
    if (ggml_backend_buft_get_alloc_size(buffers, whole) != 2 * half) {
        return false;
    }
    ggml_backend_buffer_ptr buffer(ggml_backend_buft_alloc_buffer(buffers, 4 * half));
    if (buffer == nullptr) {
        // Which kernels run must not depend on memory (DESIGN.md, Exactness).
        throw Error(FLOATLLM_ERROR_ENGINE, "Memory ran out. Close other programs.");
    }
    char *base = static_cast<char *>(ggml_backend_buffer_get_base(buffer.get()));
    const auto put = [&](ggml_tensor *tensor, char *at) {
        return ggml_backend_tensor_alloc(buffer.get(), tensor, at) == GGML_STATUS_SUCCESS &&
               tensor->extra != nullptr;
    };
    if (!put(whole, base)) {
        return false;
    }
    ggml_tensor *column = ggml_new_tensor_2d(context.get(), GGML_TYPE_F32, kColumns, 1);
    if (!ggml_backend_dev_supports_op(device, ggml_mul_mat(context.get(), whole, column))) {
        return false;
    }
    std::vector<char> bytes(2 * half);
    for (size_t i = 0; i < bytes.size(); ++i) {
        bytes[i] = static_cast<char>(i * 2654435761u >> 24);
    }
    ggml_backend_tensor_set(whole, bytes.data(), 0, bytes.size());
    for (size_t i = 0; i < 2; ++i) {
        ggml_tensor *part = ggml_new_tensor_2d(context.get(), type, kColumns, kRowGrain);
        if (!put(part, base + (2 + i) * half)) {
            return false;
        }
        ggml_backend_tensor_set(part, bytes.data() + i * half, 0, half);
    }
    return std::memcmp(base, base + 2 * half, 2 * half) == 0;
}

std::vector<bool> repacked_types(ggml_backend_dev_t device) {
    ggml_backend_buffer_type_t buffers = repack_type(device);
    std::vector<bool> types(GGML_TYPE_COUNT, false);
    for (size_t i = 0; buffers != nullptr && i < types.size(); ++i) {
        const ggml_type type = static_cast<ggml_type>(i);
        types[i] = ggml_is_quantized(type) && ggml_type_size(type) > 0 && repacks(device, buffers, type);
    }
    return types;
}

}  // namespace

DeviceFacts device_facts(ggml_backend_dev_t device) {
    ggml_backend_dev_props props;
    ggml_backend_dev_get_props(device, &props);
    ggml_backend_buffer_type_t type = ggml_backend_dev_buffer_type(device);
    // CUDA pads the last row of a quantised tensor to 512 elements: at most 512 elements of four bytes.
    constexpr uint64_t kSlack = 2048;
    return {props.name,
            props.caps.buffer_from_host_ptr,
            props.memory_free,
            ggml_backend_buft_get_alignment(type),
            kSlack,
            os::map_granularity(),
            column_grain(device),
            is_cpu(device),
            repacked_types(device)};
}

const char *device_of(const ggml_tensor *tensor) {
    ggml_backend_buffer_type_t type = ggml_backend_buffer_get_type(tensor->buffer);
    if (ggml_backend_dev_t device = ggml_backend_buft_get_device(type)) {
        return ggml_backend_dev_name(device);
    }
    // Wrapped host memory has no device in ggml's CPU backend.
    return ggml_backend_buft_is_host(type) ? "CPU" : "unknown";
}

Device::Device(const std::string &name, unsigned threads, unsigned poll) : device_(find_device(name)) {
    ggml_backend_dev_props props;
    ggml_backend_dev_get_props(device_, &props);
    maps_host_ = props.caps.buffer_from_host_ptr;
    backend_.reset(ggml_backend_dev_init(device_, nullptr));
    if (backend_ == nullptr) {
        throw Error(FLOATLLM_ERROR_ENGINE,
                    format("The device %s cannot be opened: its driver refused.", props.name));
    }
    if (!is_cpu(device_)) {
        return;
    }
    const int count = static_cast<int>(std::min<unsigned>(threads, GGML_MAX_N_THREADS));
    auto *set_threads = reinterpret_cast<ggml_backend_set_n_threads_t>(ggml_backend_reg_get_proc_address(
        ggml_backend_dev_backend_reg(device_), "ggml_backend_set_n_threads"));
    auto *new_pool = proc<decltype(ggml_threadpool_new)>(device_, "ggml_threadpool_new");
    auto *set_pool =
        proc<decltype(ggml_backend_cpu_set_threadpool)>(device_, "ggml_backend_cpu_set_threadpool");
    set_threads(backend_.get(), count);
    // Without a pool of our own ggml starts and ends its threads at every graph.
    ggml_threadpool_params params = ggml_threadpool_params_default(count);
    params.poll = poll;
    pool_ = new_pool(&params);
    if (pool_ == nullptr) {
        throw Error(FLOATLLM_ERROR_ENGINE, format("Cannot start %d threads.", count));
    }
    set_pool(backend_.get(), pool_);
}

Device::~Device() {
    backend_.reset();
    if (pool_ != nullptr) {
        proc<decltype(ggml_threadpool_free)>(device_, "ggml_threadpool_free")(pool_);
    }
}

ggml_backend_buffer_ptr Device::allocate(uint64_t size, const char *what) const {
    ggml_backend_buffer_type_t type = ggml_backend_dev_buffer_type(device_);
    ggml_backend_buffer_ptr buffer;
    if (size <= ggml_backend_buft_get_max_size(type)) {
        buffer.reset(ggml_backend_buft_alloc_buffer(type, std::max<size_t>(1, static_cast<size_t>(size))));
    }
    if (buffer == nullptr) {
        throw Error(
            FLOATLLM_ERROR_ENGINE,
            format("%s could not give %s for %s. Give a smaller --memory, or free memory on the device.",
                   ggml_backend_dev_name(device_), human_size(size).c_str(), what));
    }
    // Attention multiplies masked cells by zero, and zero times garbage may be NaN.
    ggml_backend_buffer_clear(buffer.get(), 0);
    return buffer;
}

ggml_backend_buffer_ptr Device::allocate_repacked(uint64_t size) const {
    ggml_backend_buffer_ptr buffer(
        ggml_backend_buft_alloc_buffer(repack_type(device_), static_cast<size_t>(size)));
    if (buffer == nullptr) {
        throw Error(FLOATLLM_ERROR_ENGINE,
                    format("Cannot get %s of memory for weights. Give a smaller --memory.",
                           human_size(size).c_str()));
    }
    ggml_backend_buffer_set_usage(buffer.get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    os::prefer_huge_pages(ggml_backend_buffer_get_base(buffer.get()), static_cast<size_t>(size));
    return buffer;
}

ggml_backend_buffer_ptr Device::wrap(void *data, size_t size) const {
    ggml_backend_buffer_ptr buffer(ggml_backend_dev_buffer_from_host_ptr(device_, data, size, size));
    if (buffer == nullptr) {
        throw Error(FLOATLLM_ERROR_ENGINE, format("%s could not take %s of mapped memory.",
                                                  ggml_backend_dev_name(device_), human_size(size).c_str()));
    }
    return buffer;
}

void Device::require_support(ggml_cgraph *graph) const {
    for (int i = 0; i < ggml_graph_n_nodes(graph); ++i) {
        const ggml_tensor *node = ggml_graph_node(graph, i);
        if (!ggml_backend_dev_supports_op(device_, node)) {
            throw Error(FLOATLLM_ERROR_ENGINE,
                        format("%s cannot compute %s%s%s for this model. Choose another --device.",
                               ggml_backend_dev_name(device_), ggml_op_desc(node), node->src[0] ? " of " : "",
                               node->src[0] ? ggml_type_name(node->src[0]->type) : ""));
        }
    }
}

void Device::compute(ggml_cgraph *graph) const {
    const ggml_status status = ggml_backend_graph_compute(backend_.get(), graph);
    if (status != GGML_STATUS_SUCCESS) {
        throw Error(FLOATLLM_ERROR_ENGINE,
                    format("%s failed while computing: %s.", ggml_backend_dev_name(device_),
                           ggml_status_to_string(status)));
    }
}

}  // namespace floatllm

#include "device.h"

#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "backends.h"
#include "error.h"
#include "ggml-cpu.h"
#include "log.h"

namespace floatllm {

namespace {

// A function of the device's backend, by name: with backends in libraries of their own, nothing of
// theirs can be linked.
template <typename Function>
Function *proc(ggml_backend_dev_t device, const char *name) {
    return reinterpret_cast<Function *>(
        ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(device), name));
}

ggml_backend_set_n_threads_t set_threads_of(ggml_backend_dev_t device) {
    return reinterpret_cast<ggml_backend_set_n_threads_t>(ggml_backend_reg_get_proc_address(
        ggml_backend_dev_backend_reg(device), "ggml_backend_set_n_threads"));
}

}  // namespace

bool is_cpu(ggml_backend_dev_t device) {
    return ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_CPU;
}

floatllm_device_info device_info(size_t index) {
    if (index >= ggml_backend_dev_count()) {
        throw Error(FLOATLLM_ERROR_USAGE,
                    format("There is no device %zu; there are %zu.", index, ggml_backend_dev_count()));
    }
    const auto link = RpcLink::to(ggml_backend_dev_get(index));
    ggml_backend_dev_props props;
    ggml_backend_dev_get_props(ggml_backend_dev_get(index), &props);
    return {props.name,
            props.description,
            props.memory_free,
            props.memory_total,
            static_cast<int32_t>(props.type),
            props.caps.buffer_from_host_ptr ? 1 : 0};
}

std::string idle_backends() {
    std::string said = noted_backends();
    for (size_t i = 0; i < ggml_backend_reg_count(); ++i) {
        ggml_backend_reg_t backend = ggml_backend_reg_get(i);
        const std::string name = ggml_backend_reg_name(backend);
        // Of RPC, servers are named later.
        if (ggml_backend_reg_dev_count(backend) > 0 || name == "RPC") {
            continue;
        }
        said += (said.empty() ? "" : " ") + name + " is part of this engine and sees no device";
        const char *visible = name == "CUDA" ? std::getenv("CUDA_VISIBLE_DEVICES") : nullptr;
        if (visible != nullptr) {
            said += format(": CUDA_VISIBLE_DEVICES is set to \"%s\"", visible);
        } else if (!first_error().empty()) {
            said += ": " + first_error();
        }
        said += ".";
    }
    return said;
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
        const std::string idle = idle_backends();
        throw Error(FLOATLLM_ERROR_MISSING,
                    format("There is no device %s here; this engine sees: %s. %s%s%s or name one of these.",
                           name.c_str(), names.empty() ? "none" : names.c_str(), idle.c_str(),
                           idle.empty() ? "" : " ",
                           name.compare(0, 3, "RPC") == 0
                               ? "Add its server with --rpc HOST:PORT"
                               : "Install an engine built for it (floatllm-build install --backend ...)"));
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

ggml_backend_dev_t cpu_device() {
    ggml_backend_dev_t device = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    return device != nullptr ? device : find_device("CPU");
}

const char *device_of(const ggml_tensor *tensor) {
    ggml_backend_buffer_type_t type = ggml_backend_buffer_get_type(tensor->buffer);
    if (ggml_backend_dev_t device = ggml_backend_buft_get_device(type)) {
        return ggml_backend_dev_name(device);
    }
    // Wrapped host memory has no device in ggml's CPU backend.
    return ggml_backend_buft_is_host(type) ? "CPU" : "unknown";
}

Device::Device(const std::string &name, unsigned threads, unsigned poll)
    : device_(find_device(name)), link_(RpcLink::to(device_)) {
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
    free_cpus_.emplace(std::min<unsigned>(threads, GGML_MAX_N_THREADS));
    // No more than there are CPUs: one that waits for work takes a CPU from those that have some.
    threads_ = free_cpus_->threads();
    const int count = static_cast<int>(threads_);
    auto *set_threads = set_threads_of(device_);
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

void Device::heed_cpus() {
    if (!free_cpus_ || free_cpus_->threads() == threads_) {
        return;
    }
    threads_ = free_cpus_->threads();
    set_threads_of(device_)(backend_.get(), static_cast<int>(threads_));
    log_line(GGML_LOG_LEVEL_INFO,
             format(threads_ < free_cpus_->most()
                        ? "[FloatLLM] %u of %u threads compute: other programs keep CPUs busy."
                        : "[FloatLLM] %u of %u threads compute again: the CPUs are free.",
                    threads_, free_cpus_->most()));
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
    ggml_backend_buffer_set_usage(buffer.get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    return buffer;
}

ggml_backend_buffer_ptr Device::pinned(uint64_t size) const {
    ggml_backend_buffer_type_t type = ggml_backend_dev_host_buffer_type(device_);
    if (type == nullptr) {
        type = ggml_backend_dev_buffer_type(cpu_device());
    }
    ggml_backend_buffer_ptr buffer(ggml_backend_buft_alloc_buffer(type, static_cast<size_t>(size)));
    if (buffer == nullptr) {
        throw Error(FLOATLLM_ERROR_ENGINE,
                    format("Cannot get %s of memory for weights on their way to %s. Give a smaller --memory.",
                           human_size(size).c_str(), ggml_backend_dev_name(device_)));
    }
    return buffer;
}

const ggml_tensor *first_unsupported(ggml_backend_dev_t device, ggml_cgraph *graph) {
    for (int i = 0; i < ggml_graph_n_nodes(graph); ++i) {
        if (!ggml_backend_dev_supports_op(device, ggml_graph_node(graph, i))) {
            return ggml_graph_node(graph, i);
        }
    }
    return nullptr;
}

std::string operation_text(const ggml_tensor *node) {
    std::string text = ggml_op_desc(node);
    return node->src[0] == nullptr ? text : text + " of " + ggml_type_name(node->src[0]->type);
}

void Device::start(ggml_cgraph *graph) const {
    const ggml_status status = ggml_backend_graph_compute_async(backend_.get(), graph);
    if (status != GGML_STATUS_SUCCESS) {
        throw Error(FLOATLLM_ERROR_ENGINE,
                    format("%s failed while computing: %s.", ggml_backend_dev_name(device_),
                           ggml_status_to_string(status)));
    }
}

void Device::set(ggml_tensor *tensor, const void *data, size_t size) const {
    ggml_backend_tensor_set_async(backend_.get(), tensor, data, 0, size);
}

void Device::wait() const {
    ggml_backend_synchronize(backend_.get());
    if (link_ != nullptr) {
        link_->wait();
    }
}

void Device::compute(ggml_cgraph *graph) const {
    start(graph);
    wait();
}

bool keeps_order(ggml_backend_dev_t device) {
    const std::string backend = ggml_backend_reg_name(ggml_backend_dev_backend_reg(device));
    return backend != "Vulkan" && backend != "Metal" && std::getenv("GGML_CUDA_GRAPH_OPT") == nullptr;
}

Repeated::Repeated(const Device &device, ggml_cgraph *graph, uint64_t tensors)
    : device_(device), graph_(graph), cpu_(ggml_backend_dev_init(cpu_device(), nullptr)) {
    // ggml's scheduler wants a CPU to fall back to; every tensor has its place already, so it gets nothing.
    ggml_backend_t backends[] = {device.stream(), cpu_.get()};
    ggml_backend_buffer_type_t buffers[] = {ggml_backend_dev_buffer_type(device.handle()),
                                            ggml_backend_dev_buffer_type(cpu_device())};
    scheduler_.reset(
        ggml_backend_sched_new(backends, buffers, 2, static_cast<size_t>(tensors), false, false));
    if (scheduler_ == nullptr || !ggml_backend_sched_alloc_graph(scheduler_.get(), graph)) {
        throw Error(FLOATLLM_ERROR_ENGINE, "A graph could not be kept for the next pass.");
    }
    if (ggml_backend_sched_get_n_splits(scheduler_.get()) != 1) {
        throw std::logic_error("a device's graph was divided; this is a defect of FloatLLM");
    }
}

void Repeated::start() {
    if (ggml_backend_sched_graph_compute_async(scheduler_.get(), graph_) != GGML_STATUS_SUCCESS) {
        throw Error(FLOATLLM_ERROR_ENGINE,
                    format("%s failed while computing.", ggml_backend_dev_name(device_.handle())));
    }
}

}  // namespace floatllm

// ggml's devices: listing them, and one opened for computing.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "floatllm.h"
#include "free_cpus.h"
#include "ggml-backend.h"
#include "ggml-cpp.h"
#include "log.h"
#include "plan.h"
#include "rpc.h"

namespace floatllm {

// By index, in ggml's order. Throws Error(FLOATLLM_ERROR_USAGE) beyond the last.
floatllm_device_info device_info(size_t index);

// The device called `name`, or the first GPU, else the CPU, for an empty name. Throws
// Error(FLOATLLM_ERROR_MISSING) with the names that exist; never another device than the one named.
ggml_backend_dev_t find_device(const std::string &name);

// The first node of a graph that the device cannot compute, or nullptr; and what to call it.
const ggml_tensor *first_unsupported(ggml_backend_dev_t device, ggml_cgraph *graph);
std::string operation_text(const ggml_tensor *node);

// Why backends that are part of this engine have no device, or nothing.
std::string idle_backends();

DeviceFacts device_facts(ggml_backend_dev_t device);
bool is_cpu(ggml_backend_dev_t device);
// The buffer type whose tensors ggml's CPU backend rearranges for kernels that take several rows at once, or
// nullptr.
ggml_backend_buffer_type_t repack_type(ggml_backend_dev_t device);

// The device that is the CPU. Throws Error(FLOATLLM_ERROR_MISSING) without one.
ggml_backend_dev_t cpu_device();

// Name of the device whose memory holds `tensor`, asked of its buffer.
const char *device_of(const ggml_tensor *tensor);

// A device with its compute stream, and on the CPU its own pool of threads.
class Device {
  public:
    // `poll`: how eagerly idle threads watch for work, 0 to 100.
    Device(const std::string &name, unsigned threads, unsigned poll);
    ~Device();
    Device(const Device &) = delete;
    Device &operator=(const Device &) = delete;

    // Between graphs: others may have begun to compute, or ended.
    void heed_cpus();
    ggml_backend_dev_t handle() const { return device_; }
    ggml_backend_t stream() const { return backend_.get(); }
    bool maps_host() const { return maps_host_; }

    // A cleared buffer of at least one byte. Throws Error(FLOATLLM_ERROR_ENGINE) when memory runs out.
    ggml_backend_buffer_ptr allocate(uint64_t size, const char *what) const;
    // A buffer whose matrices are rearranged as they are set; for a device whose facts name types to repack.
    ggml_backend_buffer_ptr allocate_repacked(uint64_t size) const;
    // A buffer of weights over host memory that the device computes on in place. Needs maps_host().
    ggml_backend_buffer_ptr wrap(void *data, size_t size) const;
    // Host memory that the device copies from at the full speed of its link, where its driver gives some.
    ggml_backend_buffer_ptr pinned(uint64_t size) const;
    // Begins to compute; what set() and start() are given is done in their order. Throws
    // Error(FLOATLLM_ERROR_ENGINE) when the device fails.
    void start(ggml_cgraph *graph) const;
    // `data` must stay as it is until wait().
    void set(ggml_tensor *tensor, const void *data, size_t size) const;
    // Until all is done.
    void wait() const;
    void compute(ggml_cgraph *graph) const;

  private:
    ggml_backend_dev_t device_;
    std::shared_ptr<const RpcLink> link_;  // of a remote device
    ggml_backend_ptr backend_;
    bool maps_host_;
    ggml_threadpool *pool_ = nullptr;
    std::optional<FreeCpus> free_cpus_;  // of the CPU
    unsigned threads_ = 0;
};

// Whether ggml's scheduler leaves the order of a graph as it is. Ours depends on it where one operation reads
// from memory what another wrote there.
bool keeps_order(ggml_backend_dev_t device);

// A graph of one device that is computed over and over, under a number by which CUDA knows it again instead
// of comparing every node with the last time's.
class Repeated {
  public:
    // Both must stay as they are; the graph has at most so many tensors. Throws Error(FLOATLLM_ERROR_ENGINE).
    Repeated(const Device &device, ggml_cgraph *graph, uint64_t tensors);
    void start();

  private:
    const Device &device_;
    ggml_cgraph *graph_;
    ggml_backend_ptr cpu_;
    ggml_backend_sched_ptr scheduler_;
};

}  // namespace floatllm

// ggml's devices: listing them, and one opened for computing.
#pragma once

#include <string>
#include <vector>

#include "floatllm.h"
#include "ggml-backend.h"
#include "ggml-cpp.h"
#include "plan.h"

namespace floatllm {

void set_log(floatllm_log_fn log, void *user);
// While it lives, ggml's debug lines on this thread are dropped.
class QuietThread {
  public:
    QuietThread();
    ~QuietThread();
    QuietThread(const QuietThread &) = delete;
    QuietThread &operator=(const QuietThread &) = delete;
};
// A line of the engine's own, for whoever listens.
void log_line(ggml_log_level level, const std::string &text);

// Loads backends that were built as separate libraries from `dir`; without such a build, does nothing.
void load_backends(const std::string &dir);

// By index, in ggml's order. Throws Error(FLOATLLM_ERROR_USAGE) beyond the last.
floatllm_device_info device_info(size_t index);

// The device called `name`, or the first GPU, else the CPU, for an empty name. Throws
// Error(FLOATLLM_ERROR_MISSING) with the names that exist; never another device than the one named.
ggml_backend_dev_t find_device(const std::string &name);

DeviceFacts device_facts(ggml_backend_dev_t device);

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

    ggml_backend_dev_t handle() const { return device_; }
    bool maps_host() const { return maps_host_; }

    // A cleared buffer of at least one byte. Throws Error(FLOATLLM_ERROR_ENGINE) when memory runs out.
    ggml_backend_buffer_ptr allocate(uint64_t size, const char *what) const;
    // A buffer whose matrices are rearranged as they are set; for a device whose facts name types to repack.
    ggml_backend_buffer_ptr allocate_repacked(uint64_t size) const;
    // A buffer over host memory that the device computes on in place. Needs maps_host().
    ggml_backend_buffer_ptr wrap(void *data, size_t size) const;
    // Throws Error(FLOATLLM_ERROR_ENGINE) naming the first operation that this device lacks.
    void require_support(ggml_cgraph *graph) const;
    // Throws Error(FLOATLLM_ERROR_ENGINE) when the device fails.
    void compute(ggml_cgraph *graph) const;

  private:
    ggml_backend_dev_t device_;
    ggml_backend_ptr backend_;
    bool maps_host_;
    ggml_threadpool *pool_ = nullptr;
};

}  // namespace floatllm

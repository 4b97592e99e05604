// ggml's RPC backend: devices of other machines in this process, and this machine's devices for others.
#pragma once

#include <memory>
#include <string>

#include "floatllm.h"
#include "ggml-backend.h"

namespace floatllm {

// Whether a device belongs to another process.
bool is_remote(ggml_backend_dev_t device);

// Adds the devices of the server at `endpoint`, "HOST:PORT", behind those that are there; does nothing for
// one that was added before. Throws Error(FLOATLLM_ERROR_USAGE) for another form,
// Error(FLOATLLM_ERROR_MISSING) where this engine has no RPC backend, and Error(FLOATLLM_ERROR_ENGINE),
// within some seconds, where no server of the same protocol answers.
void add_rpc_server(const std::string &endpoint);

// Serves `device`, or without a name all GPUs, else the CPU, until the process ends; one client at a time.
// Throws Error(FLOATLLM_ERROR_USAGE) or Error(FLOATLLM_ERROR_MISSING) as above, and
// Error(FLOATLLM_ERROR_ENGINE) where nobody can listen at `endpoint`. `cache`: a folder for large weights.
[[noreturn]] void serve_rpc(const std::string &endpoint, const std::string &device, const char *cache,
                            unsigned threads);

// The connection to the server of a remote device. ggml opens one for each call while no buffer holds it, and
// reads through a null pointer where it cannot.
class RpcLink {
  public:
    // Of the device's server, or nullptr for a device of this machine; those of one server share a
    // connection. Throws Error(FLOATLLM_ERROR_ENGINE) where it answers no more.
    static std::shared_ptr<const RpcLink> to(ggml_backend_dev_t device);
    ~RpcLink();
    RpcLink(const RpcLink &) = delete;
    RpcLink &operator=(const RpcLink &) = delete;

    // Returns when the server has done what it was sent.
    void wait() const;

  private:
    explicit RpcLink(ggml_backend_dev_t device);

    ggml_backend_dev_t device_;
    ggml_backend_buffer_t held_ = nullptr;
};

// Whom to tell before the process ends because ggml gives up; NULL: stderr, once a server was added.
void set_abort(floatllm_abort_fn stop, void *user);

}  // namespace floatllm

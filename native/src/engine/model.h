// A model under libllama, with its weights streamed and everything within one budget.
#pragma once

#include <memory>
#include <string>

#include "engine/shares.h"
#include "gguf_file.h"
#include "llama.h"
#include "stream/device.h"

namespace floatllm::engine {

struct Request {
    uint64_t budget;         // bytes that everything together takes at most
    uint32_t positions = 0;  // of the context; 0: by the budget
    unsigned threads = 1;
    stream::Io io = stream::Io::Direct;
};

// Not copyable; a context must end before its model.
class Model {
  public:
    // Validates the file before libllama sees it, and asks libllama what it will take before anything is
    // taken. Throws Error(FLOATLLM_ERROR_MODEL) for the file, Error(FLOATLLM_ERROR_ENGINE) for a budget too
    // small.
    Model(const std::string &path, const Request &request);

    llama_model *llama() const { return model_.get(); }
    llama_context *context() const { return context_.get(); }
    stream::Device &device() const { return *device_; }
    const Shares &shares() const { return shares_; }

  private:
    using ModelPtr = std::unique_ptr<llama_model, decltype(&llama_model_free)>;
    using ContextPtr = std::unique_ptr<llama_context, decltype(&llama_free)>;

    void plan(const Request &request);

    std::shared_ptr<const GgufFile> file_;
    Shares shares_;
    // Freed in the order of their need: the context first.
    std::unique_ptr<stream::Device> device_;
    ModelPtr model_;
    ContextPtr context_;
};

}  // namespace floatllm::engine

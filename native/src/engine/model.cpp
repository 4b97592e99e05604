#include "engine/model.h"

#include <algorithm>

#include "error.h"
#include "ggml-cpp.h"
#include "llama-ext.h"
#include "log.h"

namespace floatllm::engine {

namespace {

// The disk's queue depth.
constexpr unsigned kReaders = 6;

ggml_backend_dev_t base_device() { return ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU); }

// What libllama is told of a device; it must live until the model is loaded.
struct Asked {
    ggml_backend_dev_t devices[2] = {nullptr, nullptr};
    llama_model_tensor_buft_override overrides[2] = {};
    llama_model_params params = llama_model_default_params();

    explicit Asked(stream::Device &device) {
        devices[0] = device.handle();
        overrides[0] = {".*", ggml_backend_dev_buffer_type(device.handle())};
        params.devices = devices;
        params.tensor_buft_overrides = overrides;
        params.n_gpu_layers = 1 << 20;
        params.use_extra_bufts = false;
        params.load_mode = LLAMA_LOAD_MODE_MMAP;
        // It would read large tables of embeddings past the device.
        params.lazy_mode = LLAMA_LAZY_MODE_OFF;
    }
};

llama_context_params context_params(uint32_t positions, uint32_t width, unsigned threads) {
    llama_context_params params = llama_context_default_params();
    params.n_ctx = positions;
    params.n_batch = params.n_ubatch = width;
    params.n_outputs_max = 1;
    params.n_threads = params.n_threads_batch = static_cast<int32_t>(threads);
    params.no_perf = true;
    return params;
}

[[noreturn]] void refused(const std::string &path, const char *what) {
    const std::string why = last_error();
    throw Error(FLOATLLM_ERROR_MODEL,
                format("%s: libllama %s%s%s.", path.c_str(), what, why.empty() ? "" : ": ", why.c_str()));
}

}  // namespace

void Model::plan(const Request &request) {
    const std::string &path = file_->path();
    // Its tensors are never read, so it needs neither slots nor readers of any size.
    stream::Device device(base_device(), stream::files_of(file_), {request.io, os::kDirectAlignment, 1, 1});
    Asked asked(device);
    asked.params.no_alloc = true;
    asked.params.load_mode = LLAMA_LOAD_MODE_NONE;
    const uint64_t before = os::private_bytes();
    const ModelPtr dry(llama_model_load_from_file(path.c_str(), asked.params), llama_model_free);
    if (dry == nullptr) {
        refused(path, "does not load it");
    }
    const uint64_t loaded = os::private_bytes();
    const Ask ask = [&](uint32_t positions, uint32_t width) {
        // Or what the context before gave back would be taken for memory that this one need not have.
        os::trim();
        const uint64_t without = os::private_bytes();
        const ContextPtr context(
            llama_init_from_model(dry.get(), context_params(positions, width, request.threads)), llama_free);
        if (context == nullptr) {
            refused(path, "makes no context for it");
        }
        const uint64_t with = os::private_bytes();
        Demand demand{};
        demand.own =
            file_->heap_bytes() + (loaded - std::min(before, loaded)) + (with - std::min(without, with));
        demand.work = work_of(file_->tensors(), width, request.threads);
        for (const auto &[type, bytes] : llama_get_memory_breakdown(context.get())) {
            demand.context += bytes.context;
            demand.compute += bytes.compute;
        }
        const llama_vocab *vocabulary = llama_model_get_vocab(dry.get());
        demand.outputs = uint64_t{sizeof(float)} * static_cast<uint64_t>(llama_vocab_n_tokens(vocabulary));
        return demand;
    };
    shares_ = share_out(request.budget, weights_of(file_->tensors()), request.positions,
                        static_cast<uint32_t>(llama_model_n_ctx_train(dry.get())), ask);
}

Model::Model(const std::string &path, const Request &request)
    : file_(std::make_shared<const GgufFile>(path)),
      model_(nullptr, llama_model_free),
      context_(nullptr, llama_free) {
    llama_log_set(log_callback(), nullptr);
    forget_errors();
    plan(request);
    os::trim();
    device_ = std::make_unique<stream::Device>(
        base_device(), stream::files_of(file_),
        stream::Limits{request.io, shares_.slot_bytes, shares_.slots, kReaders});
    device_->keep(stream::choose_kept(file_->tensors(), shares_.kept));
    Asked asked(*device_);
    model_.reset(llama_model_load_from_file(path.c_str(), asked.params));
    if (model_ == nullptr) {
        refused(path, "does not load it");
    }
    context_.reset(llama_init_from_model(model_.get(),
                                         context_params(shares_.positions, shares_.width, request.threads)));
    if (context_ == nullptr) {
        refused(path, "makes no context for it");
    }
}

}  // namespace floatllm::engine

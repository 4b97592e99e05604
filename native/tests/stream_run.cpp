// Runs a model through libllama, plainly or with its weights streamed, and writes its logits: the same bytes,
// or the device is wrong.
//
//   stream_run MODEL plain|stream OUT [SLOT_BYTES SLOTS KEPT_BYTES direct|windows [PROMPT TOKENS THREADS
//   UBATCH]]
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "gguf_file.h"
#include "llama.h"
#include "log.h"
#include "stream/device.h"
#include "stream/kept.h"

using namespace floatllm;

namespace {

struct Options {
    std::string model;
    bool stream;
    std::string out;
    stream::Limits limits{stream::Io::Direct, uint64_t{1} << 20, 3, 6};
    uint64_t kept = 0;
    int prompt = 12;
    int tokens = 4;
    int threads = 2;
    uint32_t ubatch = 512;
};

Options parse(int argc, char **argv) {
    Options options{argv[1], std::strcmp(argv[2], "stream") == 0, argv[3]};
    const auto number = [argc, argv](int index, uint64_t otherwise) {
        return index < argc ? std::strtoull(argv[index], nullptr, 10) : otherwise;
    };
    options.limits.slot_bytes = number(4, options.limits.slot_bytes);
    options.limits.slots = static_cast<unsigned>(number(5, options.limits.slots));
    options.kept = number(6, 0);
    options.limits.io =
        argc > 7 && std::strcmp(argv[7], "windows") == 0 ? stream::Io::Windows : stream::Io::Direct;
    options.prompt = static_cast<int>(number(8, 12));
    options.tokens = static_cast<int>(number(9, 4));
    options.threads = static_cast<int>(number(10, 2));
    options.ubatch = static_cast<uint32_t>(number(11, 512));
    return options;
}

int run(const Options &options) {
    llama_log_set(
        [](ggml_log_level level, const char *text, void *) {
            if (level >= GGML_LOG_LEVEL_ERROR) {
                std::fputs(text, stderr);
            }
        },
        nullptr);
    set_log(
        [](int, const char *text, void *) {
            if (std::strncmp(text, "[FloatLLM]", 10) == 0) {
                std::fprintf(stderr, "%s\n", text);
            }
        },
        nullptr);
    std::unique_ptr<stream::Device> device;
    llama_model_params wanted = llama_model_default_params();
    wanted.use_extra_bufts = false;
    wanted.load_mode = LLAMA_LOAD_MODE_MMAP;
    ggml_backend_dev_t devices[2] = {nullptr, nullptr};
    llama_model_tensor_buft_override overrides[2] = {};
    wanted.devices = devices;
    if (options.stream) {
        const auto file = std::make_shared<const GgufFile>(options.model);
        device = std::make_unique<stream::Device>(ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU),
                                                  stream::files_of(file), options.limits);
        device->keep(stream::choose_kept(file->tensors(), options.kept));
        devices[0] = device->handle();
        wanted.n_gpu_layers = 1 << 20;
        // It would read large tables of embeddings past the device.
        wanted.lazy_mode = LLAMA_LAZY_MODE_OFF;
        overrides[0] = {".*", ggml_backend_dev_buffer_type(device->handle())};
        wanted.tensor_buft_overrides = overrides;
    }
    using Seconds = std::chrono::duration<double>;
    const auto now = [] { return std::chrono::steady_clock::now(); };
    const auto opened = now();
    const std::unique_ptr<llama_model, decltype(&llama_model_free)> model(
        llama_model_load_from_file(options.model.c_str(), wanted), llama_model_free);
    if (model == nullptr) {
        std::fprintf(stderr, "libllama did not load %s\n", options.model.c_str());
        return 2;
    }
    const double loaded = Seconds(now() - opened).count();
    llama_context_params context_wanted = llama_context_default_params();
    context_wanted.n_ctx = 1024;
    context_wanted.n_batch = 1024;
    context_wanted.n_ubatch = options.ubatch;
    context_wanted.n_threads = context_wanted.n_threads_batch = options.threads;
    const std::unique_ptr<llama_context, decltype(&llama_free)> context(
        llama_init_from_model(model.get(), context_wanted), llama_free);
    if (context == nullptr) {
        std::fprintf(stderr, "libllama made no context\n");
        return 3;
    }
    const int vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model.get()));
    std::vector<llama_token> tokens;
    for (int i = 0; i < options.prompt; ++i) {
        tokens.push_back(static_cast<llama_token>((int64_t{7919} * i + 5) % vocabulary));
    }
    std::FILE *out = std::fopen(options.out.c_str(), "wb");
    std::vector<double> seconds;
    for (int step = 0; step <= options.tokens; ++step) {
        const auto began = now();
        const int status = llama_decode(
            context.get(), llama_batch_get_one(tokens.data(), static_cast<int32_t>(tokens.size())));
        if (status != 0) {
            std::fprintf(stderr, "llama_decode: %d %s\n", status,
                         device != nullptr ? device->take_failure().c_str() : "");
            return 4;
        }
        const float *logits = llama_get_logits_ith(context.get(), -1);
        std::fwrite(logits, sizeof(float), static_cast<size_t>(vocabulary), out);
        tokens = {0};
        for (int i = 1; i < vocabulary; ++i) {
            tokens[0] = logits[i] > logits[tokens[0]] ? i : tokens[0];
        }
        seconds.push_back(Seconds(now() - began).count());
    }
    std::fclose(out);
    double decoding = 0;
    for (size_t i = 1; i < seconds.size(); ++i) {
        decoding += seconds[i];
    }
    std::printf("load %.2f s, prompt %.3f s, %.2f tokens/s", loaded, seconds[0],
                decoding > 0 ? static_cast<double>(options.tokens) / decoding : 0.0);
    if (device != nullptr) {
        const stream::Device::Count &count = device->count();
        std::printf(
            ", %llu passes, %llu cuttings, %llu segments, %llu splits, kept %.1f MB, read %.1f MB, waited %.2f s",
            static_cast<unsigned long long>(count.passes), static_cast<unsigned long long>(count.cuttings),
            static_cast<unsigned long long>(count.segments), static_cast<unsigned long long>(count.splits),
            static_cast<double>(device->kept_bytes()) / 1e6, static_cast<double>(count.read) / 1e6,
            count.waited);
    }
    std::printf("\n");
    return 0;
}

}  // namespace

int main(int argc, char **argv) {
    if (argc < 4) {
        std::fprintf(stderr, "stream_run MODEL plain|stream OUT [...]\n");
        return 1;
    }
    try {
        return run(parse(argc, argv));
    } catch (const std::exception &reason) {
        std::fprintf(stderr, "%s\n", reason.what());
        return 5;
    }
}

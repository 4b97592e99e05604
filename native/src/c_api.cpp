// The C ABI: handles around the engine's objects, exceptions turned into a status and a message.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include "backends.h"
#include "budget.h"
#include "choice.h"
#include "chunks.h"
#include "device.h"
#include "error.h"
#include "floatllm.h"
#include "ggml.h"
#include "gguf_file.h"
#include "measure.h"
#include "plan.h"
#include "proof.h"
#include "rates.h"
#include "rpc.h"
#include "session.h"

struct floatllm_model {
    std::shared_ptr<const floatllm::GgufFile> file;
};

struct floatllm_plan {
    std::shared_ptr<const floatllm::Plans> plans;
    std::string json;
};

struct floatllm_session {
    std::unique_ptr<floatllm::Session> session;
};

namespace {

using floatllm::Error;
using floatllm::format;

floatllm_status fail(floatllm_status status, const char *message, char **error) {
    if (error != nullptr) {
        const size_t size = std::strlen(message) + 1;
        *error = static_cast<char *>(std::malloc(size));
        if (*error != nullptr) {
            std::memcpy(*error, message, size);
        }
    }
    return status;
}

template <typename Body>
floatllm_status guarded(char **error, Body body) {
    try {
        body();
        return FLOATLLM_OK;
    } catch (const Error &e) {
        return fail(e.status(), e.what(), error);
    } catch (const std::bad_alloc &) {
        return fail(FLOATLLM_ERROR_ENGINE, "Memory ran out. Close other programs or give a smaller --memory.",
                    error);
    } catch (const std::exception &e) {
        return fail(FLOATLLM_ERROR_ENGINE, e.what(), error);
    }
}

void require(bool condition, const char *what) {
    if (!condition) {
        throw Error(FLOATLLM_ERROR_USAGE, what);
    }
}

// Linux lets a path hold any byte but NUL.
std::string path_text(const char *path, size_t length) {
    require(path != nullptr && length > 0, "The path is empty.");
    const std::string text(path, length);
    require(text.find('\0') == std::string::npos, "The path contains a NUL byte.");
    return text;
}

// Of the devices that a text names, with commas between.
std::vector<floatllm::DeviceFacts> facts_of(const std::string &names) {
    std::vector<floatllm::DeviceFacts> facts;
    for (size_t begin = 0; begin <= names.size();) {
        const size_t end = std::min(names.find(',', begin), names.size());
        const std::string name = names.substr(begin, end - begin);
        if (name.empty() && !names.empty()) {
            throw Error(FLOATLLM_ERROR_USAGE,
                        format("\"%s\" leaves out a name: give devices as CUDA0,CUDA1.", names.c_str()));
        }
        floatllm::DeviceFacts each = floatllm::device_facts(floatllm::find_device(name));
        for (const floatllm::DeviceFacts &other : facts) {
            if (other.name == each.name) {
                throw Error(FLOATLLM_ERROR_USAGE, format("%s is named twice.", each.name.c_str()));
            }
        }
        facts.push_back(std::move(each));
        begin = end + 1;
    }
    return facts;
}

}  // namespace

extern "C" {

uint32_t floatllm_abi_version(void) { return FLOATLLM_ABI_VERSION; }
const char *floatllm_version(void) { return FLOATLLM_VERSION; }
const char *floatllm_ggml_version(void) { return ggml_version(); }
const char *floatllm_llama_release(void) { return FLOATLLM_LLAMA_RELEASE; }
void floatllm_free(void *pointer) { std::free(pointer); }
void floatllm_set_log(floatllm_log_fn log, void *user) { floatllm::set_log(log, user); }

floatllm_status floatllm_load_backends(const char *dir, size_t dir_len, char **error) {
    return guarded(error, [&] { floatllm::load_backends(path_text(dir, dir_len)); });
}

floatllm_status floatllm_load_backend(const char *path, size_t path_len, char **error) {
    return guarded(error, [&] { floatllm::load_backend(path_text(path, path_len)); });
}

void floatllm_note_backend(const char *why, size_t why_len) {
    if (why != nullptr) {
        floatllm::note_backend(std::string(why, why_len));
    }
}

const char *floatllm_cpu_variant(void) { return floatllm::cpu_variant().c_str(); }

size_t floatllm_device_count(void) { return ggml_backend_dev_count(); }

floatllm_status floatllm_device(size_t index, floatllm_device_info *out, char **error) {
    return guarded(error, [&] {
        require(out != nullptr, "The result pointer is NULL.");
        *out = floatllm::device_info(index);
        // ggml says that all of the host's memory is free.
        const auto bounds = floatllm::os::memory_bounds();
        const floatllm::os::MemoryBound *bound = floatllm::tightest(bounds);
        if (out->type == 0 && bound != nullptr) {
            out->memory_free = std::min(bound->bytes, out->memory_total);
        }
    });
}

void floatllm_set_abort(floatllm_abort_fn stop, void *user) { floatllm::set_abort(stop, user); }

floatllm_status floatllm_rpc_add(const char *endpoint, size_t length, char **error) {
    return guarded(error, [&] {
        require(endpoint != nullptr || length == 0, "The endpoint is NULL.");
        floatllm::add_rpc_server(length == 0 ? "" : std::string(endpoint, length));
    });
}

floatllm_status floatllm_rpc_serve(const char *endpoint, size_t length, const char *device,
                                   const char *cache_dir, uint32_t threads, char **error) {
    return guarded(error, [&] {
        require(endpoint != nullptr || length == 0, "The endpoint is NULL.");
        require(threads <= 512, "More than 512 threads are not possible.");
        floatllm::serve_rpc(length == 0 ? "" : std::string(endpoint, length), device == nullptr ? "" : device,
                            cache_dir, threads > 0 ? threads : floatllm::os::usable_cpus());
    });
}

floatllm_status floatllm_prove(const char *device, size_t device_len, floatllm_check_fn on_check, void *user,
                               char **error) {
    return guarded(error, [&] {
        require(on_check != nullptr && (device != nullptr || device_len == 0), "A pointer is NULL.");
        floatllm::prove(std::string(device_len > 0 ? device : "", device_len),
                        [&](const floatllm_check &check) { return on_check(&check, user) == 0; });
    });
}

floatllm_status floatllm_model_open(const char *path, size_t path_len, floatllm_model **out, char **error) {
    return guarded(error, [&] {
        require(out != nullptr, "The result pointer is NULL.");
        *out = new floatllm_model{std::make_shared<floatllm::GgufFile>(path_text(path, path_len))};
    });
}

void floatllm_model_close(floatllm_model *model) { delete model; }

size_t floatllm_model_tensor_count(const floatllm_model *model) {
    return model == nullptr ? 0 : model->file->tensors().size();
}

floatllm_status floatllm_model_tensor(const floatllm_model *model, size_t index, floatllm_tensor_info *out,
                                      char **error) {
    return guarded(error, [&] {
        require(model != nullptr && out != nullptr, "A pointer is NULL.");
        require(index < model->file->tensors().size(), "There is no tensor of that index.");
        const floatllm::Tensor &t = model->file->tensors()[index];
        *out = {
            t.name.c_str(), ggml_type_name(t.type), {t.ne[0], t.ne[1], t.ne[2], t.ne[3]}, t.offset, t.size};
    });
}

size_t floatllm_model_meta_count(const floatllm_model *model) {
    return model == nullptr ? 0 : model->file->metas().size();
}

floatllm_status floatllm_model_meta(const floatllm_model *model, size_t index, floatllm_meta_info *out,
                                    char **error) {
    return guarded(error, [&] {
        require(model != nullptr && out != nullptr, "A pointer is NULL.");
        require(index < model->file->metas().size(), "There is no metadata of that index.");
        const floatllm::Meta &m = model->file->metas()[index];
        *out = {m.key.c_str(), static_cast<int32_t>(m.type), static_cast<int32_t>(m.element), m.count,
                m.size};
    });
}

floatllm_status floatllm_model_meta_read(const floatllm_model *model, size_t index, void *buffer,
                                         size_t capacity, char **error) {
    return guarded(error, [&] {
        require(model != nullptr, "The model is NULL.");
        require(index < model->file->metas().size(), "There is no metadata of that index.");
        const floatllm::Meta &m = model->file->metas()[index];
        require(capacity >= m.size && (buffer != nullptr || m.size == 0),
                "The buffer is smaller than the value.");
        model->file->file(0).read_at(m.offset, buffer, static_cast<size_t>(m.size));
    });
}

floatllm_status floatllm_plan_create(floatllm_model *model, const floatllm_plan_params *params,
                                     floatllm_plan **out, char **error) {
    return guarded(error, [&] {
        require(model != nullptr && params != nullptr && out != nullptr, "A pointer is NULL.");
        require(params->struct_size == sizeof(floatllm_plan_params),
                "The plan's parameters are of another version.");
        require(params->mode == FLOATLLM_MODE_RUN || params->mode == FLOATLLM_MODE_MAP,
                "The mode is neither run nor map.");
        require(params->io >= FLOATLLM_IO_AUTO && params->io <= FLOATLLM_IO_DIRECT,
                "The I/O mode is not one of 0 to 2.");
        require(params->uniform == 0 || params->uniform == 1, "`uniform` is neither 0 nor 1.");
        require(params->kv == FLOATLLM_KV_F16 || params->kv == FLOATLLM_KV_Q8_0,
                "The KV cache is neither of F16 nor of Q8_0.");
        require(params->threads <= 512, "More than 512 threads are not possible.");
        require(params->sequences <= 1024 && params->outputs <= 4096,
                "More than 1024 sequences or 4096 outputs are not possible.");
        require(params->cpu_share <= 1 && !std::isnan(params->cpu_share),
                "The CPU's share is not a number up to 1.");
        require(params->width <= 4096, "A pass of more than 4096 positions is not possible.");
        floatllm::PlanRequest request{};
        request.mode = static_cast<floatllm_mode>(params->mode);
        request.threads = params->threads > 0 ? params->threads : floatllm::os::usable_cpus();
        request.explicit_budget = params->memory > 0;
        request.budget =
            request.explicit_budget
                ? floatllm::Budget{params->memory, "--memory"}
                : floatllm::safe_budget(floatllm::os::memory_bounds(), request.threads + floatllm::kReaders);
        request.chunk = params->chunk;
        request.explicit_io = params->io != FLOATLLM_IO_AUTO;
        const bool direct = request.explicit_io
                                ? params->io == FLOATLLM_IO_DIRECT
                                : floatllm::os::cached_share(model->file->largest_file()) < 0.9;
        request.io = direct ? floatllm::IoMode::Direct : floatllm::IoMode::Mmap;
        request.ctx = params->ctx;
        request.width = params->width;
        request.sequences = std::max<uint32_t>(params->sequences, 1);
        request.outputs = params->outputs > 0 ? params->outputs : request.sequences;
        request.uniform = params->uniform != 0;
        request.kv = params->kv == FLOATLLM_KV_Q8_0 ? GGML_TYPE_Q8_0 : GGML_TYPE_F16;
        request.device_memory = params->device_memory;
        request.cpu_share = params->cpu_share;
        floatllm::Plans plans = floatllm::make_plans(
            model->file, facts_of(params->device == nullptr ? "" : params->device), request);
        require(
            request.cpu_share <= 0 ||
                std::any_of(plans.begin(), plans.end(),
                            [](const floatllm::Plan &plan) { return plan.device.overlaps; }),
            "A share of the CPU is for devices that compute while weights are uploaded (CUDA, HIP). Leave "
            "--cpu-share out.");
        for (floatllm::Plan &plan : plans) {
            floatllm::require_operations(plan);
            floatllm::share_with_cpu(
                plan, request.cpu_share >= 0 ? request.cpu_share : floatllm::measured_cpu_share(plan));
        }
        const auto streams = [](const floatllm::Chunk &chunk) { return !chunk.pinned; };
        const auto some = [&](auto what) {
            return std::any_of(plans.begin(), plans.end(), [&](const floatllm::Plan &plan) {
                return std::any_of(plan.chunks.begin(), plan.chunks.end(), what);
            });
        };
        require(
            request.cpu_share <= 0 || !some(streams) ||
                some([](const floatllm::Chunk &chunk) { return chunk.shared; }),
            "The CPU can compute nothing of what streams here: only whole feed-forward halves that stay in the "
            "host's memory. Leave --cpu-share and --chunk out, or give more --memory.");
        // Nobody should believe that a GPU computes when it does not.
        if (params->device == nullptr && plans.front().device.cpu) {
            plans.front().device_note = floatllm::idle_backends();
        }
        std::string json = floatllm::plan_json(plans);
        *out = new floatllm_plan{std::make_shared<const floatllm::Plans>(std::move(plans)), std::move(json)};
    });
}

void floatllm_plan_close(floatllm_plan *plan) { delete plan; }

const char *floatllm_plan_json(const floatllm_plan *plan, size_t *length) {
    if (length != nullptr) {
        *length = plan->json.size();
    }
    return plan->json.c_str();
}

floatllm_status floatllm_plan_predict(const floatllm_plan *plan, floatllm_prediction *out, char **error) {
    return guarded(error, [&] {
        require(plan != nullptr && out != nullptr, "A pointer is NULL.");
        *out = floatllm::predict(*plan->plans);
    });
}

floatllm_status floatllm_session_open(floatllm_plan *plan, floatllm_session **out, char **error) {
    return guarded(error, [&] {
        require(plan != nullptr && out != nullptr, "A pointer is NULL.");
        *out = new floatllm_session{std::make_unique<floatllm::Session>(plan->plans)};
    });
}

void floatllm_session_close(floatllm_session *session) { delete session; }

void floatllm_session_on_event(floatllm_session *session, floatllm_event_fn on_event, void *user) {
    if (session == nullptr) {
        return;
    }
    if (on_event == nullptr) {
        session->session->on_event(nullptr);
        return;
    }
    session->session->on_event(
        [on_event, user](const floatllm_event &event) { return on_event(&event, user) == 0; });
}

floatllm_status floatllm_session_forward(floatllm_session *session, const int32_t *tokens, size_t count,
                                         float *logits, size_t vocab, char **error) {
    return guarded(error, [&] {
        require(session != nullptr && tokens != nullptr && logits != nullptr, "A pointer is NULL.");
        require(vocab == floatllm_session_vocab(session),
                "The room for logits is not of the vocabulary's size.");
        session->session->append({{0, tokens, count, logits, 1, 0, nullptr}});
    });
}

floatllm_status floatllm_session_append(floatllm_session *session, const floatllm_addition *additions,
                                        size_t count, char **error) {
    return guarded(error, [&] {
        require(session != nullptr && (additions != nullptr || count == 0), "A pointer is NULL.");
        std::vector<floatllm::Addition> all;
        for (size_t i = 0; i < count; ++i) {
            const floatllm_addition &a = additions[i];
            require(a.tokens != nullptr && (a.logits != nullptr || a.outputs == 0 || a.top > 0) &&
                        (a.ids != nullptr || a.outputs == 0 || a.top == 0),
                    "A pointer is NULL.");
            require(a.top <= floatllm_session_vocab(session), "`top` is larger than the vocabulary.");
            all.push_back({a.sequence, a.tokens, a.count, a.logits, a.outputs, a.top, a.ids});
        }
        session->session->append(all);
    });
}

size_t floatllm_top(const float *logits, size_t count, uint32_t k, uint32_t *ids) {
    if (logits == nullptr || ids == nullptr || count > UINT32_MAX) {
        return 0;
    }
    return floatllm::top(logits, count, k, ids);
}

floatllm_status floatllm_session_truncate(floatllm_session *session, uint32_t sequence, size_t length,
                                          char **error) {
    return guarded(error, [&] {
        require(session != nullptr, "The session is NULL.");
        session->session->truncate(sequence, length);
    });
}

size_t floatllm_session_length(const floatllm_session *session, uint32_t sequence) {
    return session->session->length(sequence);
}
size_t floatllm_session_context(const floatllm_session *session) { return session->session->plan().ctx; }
size_t floatllm_session_vocab(const floatllm_session *session) {
    return session->session->plan().program.dims.vocab;
}

floatllm_status floatllm_session_map(floatllm_session *session, double *sums, size_t count, char **error) {
    return guarded(error, [&] {
        require(session != nullptr && sums != nullptr, "A pointer is NULL.");
        require(count == session->session->plan().model->tensors().size(),
                "The room for sums is not of the tensors' number.");
        session->session->map(sums);
    });
}

}  // extern "C"

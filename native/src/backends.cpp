#include "backends.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <mutex>
#include <system_error>
#include <vector>

#include "cpu.h"
#include "error.h"
#include "floatllm.h"
#include "ggml-backend.h"
#include "log.h"
#include "os/os.h"

namespace floatllm {

namespace {

std::string g_notes;
std::string g_cpu_variant;

#if defined(FLOATLLM_BACKEND_DL)

namespace fs = std::filesystem;

#if defined(_WIN32)
const char *const kPrefix = "ggml-";
const char *const kSuffix = ".dll";
#else
const char *const kPrefix = "libggml-";
const char *const kSuffix = ".so";
#endif

struct Candidate {
    std::string variant;
    std::string path;
};

// libggml-cpu-haswell.so is variant `haswell` of backend `cpu`, libggml-rpc.so the only one of `rpc`.
std::map<std::string, std::vector<Candidate>> backends_in(const std::string &dir) {
    std::map<std::string, std::vector<Candidate>> found;
    std::error_code error;
    for (const fs::directory_entry &entry : fs::directory_iterator(fs::u8path(dir), error)) {
        const std::string name = entry.path().filename().u8string();
        const std::string prefix = kPrefix;
        if (name.compare(0, prefix.size(), prefix) != 0 || entry.path().extension() != kSuffix) {
            continue;
        }
        const std::string stem = entry.path().stem().u8string().substr(prefix.size());
        const size_t dash = std::min(stem.find('-'), stem.size());
        const std::string variant = dash < stem.size() ? stem.substr(dash + 1) : "";
        found[stem.substr(0, dash)].push_back({variant, entry.path().u8string()});
    }
    // A folder has no order of its own, and of two that suit equally the choice must be one.
    for (auto &[backend, candidates] : found) {
        std::sort(candidates.begin(), candidates.end(),
                  [](const Candidate &a, const Candidate &b) { return a.variant < b.variant; });
    }
    return found;
}

// What ggml's own loader asks a variant: 0 where this processor cannot run it. -1, with why, where the system
// cannot load the library.
int score_of(const std::string &path, std::string &why) {
    const os::Library library(path, why);
    if (!library) {
        return -1;
    }
    auto *score = reinterpret_cast<int (*)()>(library.symbol("ggml_backend_score"));
    return score == nullptr ? 1 : score();
}

void load_best(const std::string &backend, const std::vector<Candidate> &candidates) {
    const Candidate *best = nullptr;
    int best_score = 0;
    size_t refused = 0;
    std::string why;
    for (const Candidate &candidate : candidates) {
        const int score = score_of(candidate.path, why);
        refused += score < 0 ? 1 : 0;
        if (score > best_score) {
            best = &candidate;
            best_score = score;
        }
    }
    if (refused < candidates.size()) {
        why = "no variant of it fits " + cpu_name();
    }
    if (best != nullptr && ggml_backend_load(best->path.c_str()) == nullptr) {
        best = nullptr;
        why = last_error();
    }
    if (best == nullptr) {
        throw Error(FLOATLLM_ERROR_MISSING,
                    format("The backend %s cannot be loaded: %s.", backend.c_str(), why.c_str()));
    }
    if (backend == "cpu") {
        g_cpu_variant = best->variant;
    }
}

void load_folder(const std::string &dir) {
    const auto found = backends_in(dir);
    if (found.count("cpu") == 0) {
        throw Error(FLOATLLM_ERROR_MISSING,
                    format("There is no CPU backend (%scpu-*%s) in %s. Install the engine again.", kPrefix,
                           kSuffix, dir.c_str()));
    }
    for (const auto &[backend, candidates] : found) {
        try {
            load_best(backend, candidates);
        } catch (const Error &error) {
            // Nothing runs without the CPU.
            if (backend == "cpu") {
                throw;
            }
            note_backend(error.what());
        }
    }
}

#endif

}  // namespace

void load_backends(const std::string &dir) {
    require_cpu();
#if defined(FLOATLLM_BACKEND_DL)
    static std::mutex lock;
    static bool loaded = false;
    const std::lock_guard<std::mutex> held(lock);
    if (!loaded) {
        load_folder(dir);
        loaded = true;
    }
#else
    (void)dir;
#endif
}

void load_backend(const std::string &path) {
#if defined(FLOATLLM_BACKEND_DL)
    std::string why;
    // First by ourselves: ggml logs why, as one text with much else.
    const os::Library library(path, why);
    if (library && ggml_backend_load(path.c_str()) != nullptr) {
        return;
    }
    if (library) {
        why = last_error().empty() ? "its driver gives no device" : last_error();
    }
    throw Error(FLOATLLM_ERROR_MISSING, why);
#else
    throw Error(FLOATLLM_ERROR_MISSING,
                format("This engine holds its backends itself and cannot take in %s.", path.c_str()));
#endif
}

void note_backend(const std::string &why) {
    g_notes += (g_notes.empty() ? "" : " ") + why;
    log_line(GGML_LOG_LEVEL_WARN, why);
}

const std::string &noted_backends() { return g_notes; }

const std::string &cpu_variant() { return g_cpu_variant; }

}  // namespace floatllm

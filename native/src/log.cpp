#include "log.h"

#include <mutex>

namespace floatllm {

namespace {

floatllm_log_fn g_log = nullptr;
void *g_log_user = nullptr;

std::recursive_mutex g_log_lock;  // a listener may log
std::string g_first_error;
std::string g_last_error;  // a backend that finds no device says why in its log alone
thread_local bool g_quiet_thread = false;

void forward_log(ggml_log_level level, const char *text, void *) {
    if (g_quiet_thread && level == GGML_LOG_LEVEL_DEBUG) {
        return;
    }
    const std::lock_guard<std::recursive_mutex> held(g_log_lock);
    // What begins with spaces goes on with the line before.
    if (level == GGML_LOG_LEVEL_ERROR && text[0] != ' ') {
        g_last_error = text;
        g_last_error.erase(g_last_error.find_last_not_of("\n. ") + 1);
        if (g_first_error.empty()) {
            g_first_error = g_last_error;
        }
    }
    if (g_log != nullptr) {
        g_log(static_cast<int>(level), text, g_log_user);
    }
}

// ggml's own default prints to stderr, from the first call on.
const bool g_quiet = (ggml_log_set(forward_log, nullptr), true);

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

std::string first_error() {
    const std::lock_guard<std::recursive_mutex> held(g_log_lock);
    return g_first_error;
}

std::string last_error() {
    const std::lock_guard<std::recursive_mutex> held(g_log_lock);
    return g_last_error;
}

ggml_log_callback log_callback() { return forward_log; }

void forget_errors() {
    const std::lock_guard<std::recursive_mutex> held(g_log_lock);
    g_last_error.clear();
}

}  // namespace floatllm

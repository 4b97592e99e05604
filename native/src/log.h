// The log of ggml and of the engine.
#pragma once

#include <string>

#include "floatllm.h"
#include "ggml.h"

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

// What ggml and libllama are given to log with.
ggml_log_callback log_callback();

// The first line that told of an error, and the last, or nothing.
std::string first_error();
std::string last_error();
// What was told until now is of another matter.
void forget_errors();

}  // namespace floatllm

// The engine's one exception. c_api.cpp turns it into a status and a message.
#pragma once

#include <stdexcept>
#include <string>

#include "floatllm.h"

namespace floatllm {

class Error : public std::runtime_error {
  public:
    Error(floatllm_status status, const std::string &message)
        : std::runtime_error(message), status_(status) {}
    floatllm_status status() const { return status_; }

  private:
    floatllm_status status_;
};

// printf-style text; messages are built in many places and iostreams would drown them.
std::string format(const char *fmt, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 1, 2)))
#endif
    ;

// A file that was cut while the engine reads it.
[[noreturn]] void became_shorter(const std::string &path);

// "1.5 GiB", "48.0 MiB", "512 B".
// For printf's %llu.
constexpr unsigned long long ull(uint64_t value) { return value; }

std::string human_size(unsigned long long bytes);

}  // namespace floatllm

#include "error.h"

#include <cstdarg>
#include <cstdio>
#include <vector>

namespace floatllm {

std::string format(const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    va_list again;
    va_copy(again, args);
    const int length = std::vsnprintf(nullptr, 0, fmt, args);
    va_end(args);
    std::vector<char> text(static_cast<size_t>(length < 0 ? 0 : length) + 1, '\0');
    std::vsnprintf(text.data(), text.size(), fmt, again);
    va_end(again);
    return std::string(text.data());
}

void became_shorter(const std::string &path) {
    throw Error(
        FLOATLLM_ERROR_ENGINE,
        format("%s became shorter while it was in use. Restore the file and run again.", path.c_str()));
}

std::string human_size(unsigned long long bytes) {
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
    if (bytes < 1024) {
        return format("%llu B", bytes);
    }
    double value = static_cast<double>(bytes) / 1024;
    size_t unit = 0;
    while (value >= 1024 && unit < 3) {
        value /= 1024;
        ++unit;
    }
    return format("%.1f %s", value, units[unit]);
}

}  // namespace floatllm

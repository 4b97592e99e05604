// Backends that are libraries of their own: the engine's, beside it, and those of plugin wheels.
#pragma once

#include <string>

namespace floatllm {

// Asks whether the engine can run on this processor, then, in an engine with loadable backends, loads those
// that lie in the folder `dir`: of a backend in several variants the one that suits this processor best. What
// is loaded once stays. Throws Error(FLOATLLM_ERROR_MISSING).
void load_backends(const std::string &dir);

// Loads one more. Throws Error(FLOATLLM_ERROR_MISSING) with what the system or the driver said.
void load_backend(const std::string &path);

// Remembers a sentence about a backend that is installed and not loaded.
void note_backend(const std::string &why);
// Those sentences, with spaces between.
const std::string &noted_backends();

// Which variant of the CPU backend was loaded; empty where it is part of the engine.
const std::string &cpu_variant();

}  // namespace floatllm

#include "floatllm.h"
#include "ggml.h"
extern "C" {
FLOATLLM_API uint32_t floatllm_abi_version(void) { return FLOATLLM_ABI_VERSION; }
FLOATLLM_API const char *floatllm_version(void) { return FLOATLLM_VERSION; }
FLOATLLM_API const char *floatllm_ggml_version(void) { return ggml_version(); }
}

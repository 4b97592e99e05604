// Writes a model anew with its matrices in another type, as libllama does it:
//
//   quantize_model IN OUT Q8_0|Q4_0|Q4_K|Q6_K|MXFP4
#include <cstdio>
#include <map>
#include <string>

#include "llama.h"

int main(int argc, char **argv) {
    const std::map<std::string, llama_ftype> types = {
        {"Q8_0", LLAMA_FTYPE_MOSTLY_Q8_0},       {"Q4_0", LLAMA_FTYPE_MOSTLY_Q4_0},
        {"Q4_K", LLAMA_FTYPE_MOSTLY_Q4_K_S},     {"Q6_K", LLAMA_FTYPE_MOSTLY_Q6_K},
        {"MXFP4", LLAMA_FTYPE_MOSTLY_MXFP4_MOE},
    };
    if (argc != 4 || types.count(argv[3]) == 0) {
        std::fprintf(stderr, "quantize_model IN OUT TYPE\n");
        return 1;
    }
    llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
    llama_model_quantize_params wanted = llama_model_quantize_default_params();
    wanted.ftype = types.at(argv[3]);
    return llama_model_quantize(argv[1], argv[2], &wanted) == 0 ? 0 : 2;
}

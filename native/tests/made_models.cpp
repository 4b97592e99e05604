// What llama.cpp's tests/test-llama-archs.cpp needs of llama.cpp's common library to write its models: a log,
// into which it says nothing here. With that program it writes a small random model of each architecture:
//
//   made_models -o FOLDER/
#include <cstdlib>

#include "common.h"
#include "log.h"

void common_init() {}
common_log *common_log_main() { return nullptr; }
void common_log_add(common_log *, ggml_log_level, const char *, ...) {}
void common_log_flush(common_log *) {}
int common_log_get_verbosity(ggml_log_level) { return 0; }
int common_log_get_verbosity_thold() { return 0; }
void common_log_set_verbosity_thold(int) {}

// It computes as well, if it is not told to write; that needs more of the library.
common_batch::common_batch(llama_context *) { std::abort(); }
llama_batch_ext *common_batch::get_sub_batch(int32_t, int32_t) { std::abort(); }
void common_batch::clear() { std::abort(); }
int32_t common_batch::add(llama_token, llama_pos, llama_seq_id, bool) { std::abort(); }

/* How the examples end where a call failed. */
#include <floatllm.h>
#include <stdio.h>

static floatllm_status stop(const char *what, floatllm_status status, char *error) {
    fprintf(stderr, "%s: %s\n", what, error != NULL ? error : "no message");
    floatllm_free(error);
    return status;
}

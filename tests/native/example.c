/* Opens a model, lists its tensors, maps it chunk by chunk: the engine from C. */
#include <floatllm.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stop.h"

static int on_event(const floatllm_event *event, void *user) {
    if (event->kind == FLOATLLM_EVENT_CHUNK) {
        ++*(uint64_t *)user;
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc != 3 || floatllm_abi_version() != FLOATLLM_ABI_VERSION) {
        fprintf(stderr, "usage: example MODEL CHUNK_BYTES, with a library of ABI %d\n", FLOATLLM_ABI_VERSION);
        return FLOATLLM_ERROR_USAGE;
    }
    char *error = NULL;
    floatllm_model *model = NULL;
    floatllm_status status = floatllm_model_open(argv[1], strlen(argv[1]), &model, &error);
    if (status != FLOATLLM_OK) {
        return (int)stop("open", status, error);
    }
    const size_t count = floatllm_model_tensor_count(model);
    for (size_t i = 0; i < count; ++i) {
        floatllm_tensor_info t;
        status = floatllm_model_tensor(model, i, &t, &error);
        if (status != FLOATLLM_OK) {
            return (int)stop("tensor", status, error);
        }
        printf("%s %s [%" PRId64 ", %" PRId64 ", %" PRId64 ", %" PRId64 "] %" PRIu64 "\n", t.name, t.type,
               t.ne[0], t.ne[1], t.ne[2], t.ne[3], t.size);
    }

    floatllm_plan_params params;
    memset(&params, 0, sizeof params);
    params.struct_size = sizeof params;
    params.mode = FLOATLLM_MODE_MAP;
    params.chunk = strtoull(argv[2], NULL, 10);
    params.device = "CPU";
    floatllm_plan *plan = NULL;
    status = floatllm_plan_create(model, &params, &plan, &error);
    if (status != FLOATLLM_OK) {
        return (int)stop("plan", status, error);
    }
    floatllm_session *session = NULL;
    status = floatllm_session_open(plan, &session, &error);
    if (status != FLOATLLM_OK) {
        return (int)stop("session", status, error);
    }
    /* The session keeps what it needs. */
    floatllm_plan_close(plan);
    floatllm_model_close(model);

    uint64_t chunks = 0;
    double *sums = calloc(count, sizeof *sums);
    floatllm_session_on_event(session, on_event, &chunks);
    status = floatllm_session_map(session, sums, count, &error);
    if (status != FLOATLLM_OK) {
        return (int)stop("map", status, error);
    }
    printf("%" PRIu64 " chunks, first sum %.3f\n", chunks, sums[0]);
    free(sums);
    floatllm_session_close(session);
    return 0;
}

/* Continues a few tokens greedily, forgets them and continues again: a model run from C. */
#include <floatllm.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stop.h"

/* Appends `count` tokens, then `steps` more, each the likeliest behind those before it, and prints these. */
static floatllm_status go_on(floatllm_session *session, const int32_t *tokens, size_t count, int steps) {
    char *error = NULL;
    uint32_t next = 0;
    floatllm_addition addition;
    memset(&addition, 0, sizeof addition);
    addition.tokens = tokens;
    addition.count = count;
    addition.outputs = 1;
    addition.top = 1;
    addition.ids = &next;
    int32_t last;
    for (int i = 0; i < steps; ++i) {
        const floatllm_status status = floatllm_session_append(session, &addition, 1, &error);
        if (status != FLOATLLM_OK) {
            return stop("append", status, error);
        }
        printf("%s%" PRIu32, i == 0 ? "" : " ", next);
        last = (int32_t)next;
        addition.tokens = &last;
        addition.count = 1;
    }
    printf("\n");
    return FLOATLLM_OK;
}

static floatllm_status run(floatllm_session *session, const int32_t *tokens, size_t count, int steps) {
    char *error = NULL;
    floatllm_status status = go_on(session, tokens, count, steps);
    if (status != FLOATLLM_OK) {
        return status;
    }
    /* Back to before the prompt's last token, whose logits are asked for in full. */
    status = floatllm_session_truncate(session, 0, count - 1, &error);
    if (status != FLOATLLM_OK) {
        return stop("truncate", status, error);
    }
    const size_t vocab = floatllm_session_vocab(session);
    float *logits = malloc(vocab * sizeof *logits);
    if (logits == NULL) {
        return stop("logits", FLOATLLM_ERROR_ENGINE, NULL);
    }
    status = floatllm_session_forward(session, tokens + count - 1, 1, logits, vocab, &error);
    if (status == FLOATLLM_OK) {
        uint32_t best[3];
        const size_t found = floatllm_top(logits, vocab, 3, best);
        for (size_t i = 0; i < found; ++i) {
            printf("%" PRIu32 " %.5f\n", best[i], (double)logits[best[i]]);
        }
    } else {
        stop("forward", status, error);
    }
    free(logits);
    if (status != FLOATLLM_OK) {
        return status;
    }
    printf("%zu of %zu positions\n", floatllm_session_length(session, 0), floatllm_session_context(session));
    return FLOATLLM_OK;
}

int main(int argc, char **argv) {
    if (argc < 5 || floatllm_abi_version() != FLOATLLM_ABI_VERSION) {
        fprintf(stderr, "usage: example_run MODEL CHUNK_BYTES STEPS TOKEN..., with a library of ABI %d\n",
                FLOATLLM_ABI_VERSION);
        return FLOATLLM_ERROR_USAGE;
    }
    char *error = NULL;
    floatllm_model *model = NULL;
    floatllm_status status = floatllm_model_open(argv[1], strlen(argv[1]), &model, &error);
    if (status != FLOATLLM_OK) {
        return stop("open", status, error);
    }
    floatllm_plan_params params;
    memset(&params, 0, sizeof params);
    params.struct_size = sizeof params;
    params.mode = FLOATLLM_MODE_RUN;
    params.chunk = strtoull(argv[2], NULL, 10);
    params.ctx = 256;
    params.device = "CPU";
    floatllm_plan *plan = NULL;
    floatllm_session *session = NULL;
    int32_t *tokens = NULL;
    status = floatllm_plan_create(model, &params, &plan, &error);
    if (status != FLOATLLM_OK) {
        stop("plan", status, error);
        goto done;
    }
    status = floatllm_session_open(plan, &session, &error);
    if (status != FLOATLLM_OK) {
        stop("session", status, error);
        goto done;
    }
    const size_t count = (size_t)argc - 4;
    tokens = malloc(count * sizeof *tokens);
    if (tokens == NULL) {
        status = stop("tokens", FLOATLLM_ERROR_ENGINE, NULL);
        goto done;
    }
    for (size_t i = 0; i < count; ++i) {
        tokens[i] = (int32_t)strtol(argv[i + 4], NULL, 10);
    }
    status = run(session, tokens, count, (int)strtol(argv[3], NULL, 10));
done:
    free(tokens);
    floatllm_session_close(session);
    floatllm_plan_close(plan);
    floatllm_model_close(model);
    return (int)status;
}

/* FloatLLM: run GGUF models larger than memory.
 *
 * Conventions, kept throughout:
 *  - Handles are opaque. A handle is freed by its own close function, which accepts NULL.
 *  - Text and data are pointer + length; text is UTF-8 and need not end in NUL unless said so.
 *  - A function that can fail returns a floatllm_status and takes `char **error` last. On failure
 *    *error is set to a message (what happened, why, what to do) that the caller frees with
 *    floatllm_free(); on success it is left alone. `error` may be NULL.
 *  - Nothing here throws, aborts the process on bad input, or writes to stdout, unless said so.
 *  - Different handles may be used from different threads at once; one handle may not. A plan keeps
 *    its model alive, a session keeps its plan alive: closing order does not matter.
 *  - Handles passed in are not NULL, unless a function says that it accepts NULL.
 *  - Sizes are bytes unless said otherwise.
 */
#ifndef FLOATLLM_H
#define FLOATLLM_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#if defined(FLOATLLM_BUILD)
#define FLOATLLM_API __declspec(dllexport)
#else
#define FLOATLLM_API __declspec(dllimport)
#endif
#else
#define FLOATLLM_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Raised whenever a structure or function below changes its meaning. */
#define FLOATLLM_ABI_VERSION 5

typedef enum floatllm_status {
    FLOATLLM_OK = 0,
    FLOATLLM_ERROR_USAGE = 2,   /* an argument is out of range */
    FLOATLLM_ERROR_MISSING = 3, /* a device or backend that was asked for is not here */
    FLOATLLM_ERROR_MODEL = 7,   /* the model file was refused */
    FLOATLLM_ERROR_ENGINE = 8   /* the engine could not go on: budget, device or disk */
} floatllm_status;

typedef struct floatllm_model floatllm_model;
typedef struct floatllm_plan floatllm_plan;
typedef struct floatllm_session floatllm_session;

/* The value of FLOATLLM_ABI_VERSION that the library was built with. */
FLOATLLM_API uint32_t floatllm_abi_version(void);
/* Version of this library, of the ggml inside it, and the release of llama.cpp that this ggml is from
   ("b11549"; "unpinned" for a tree of the builder's own). Static NUL-terminated strings. */
FLOATLLM_API const char *floatllm_version(void);
FLOATLLM_API const char *floatllm_ggml_version(void);
FLOATLLM_API const char *floatllm_llama_release(void);
/* Frees an error message. Accepts NULL. */
FLOATLLM_API void floatllm_free(void *pointer);

/* ---- devices -------------------------------------------------------------------------------- */

/* Where log lines of ggml and the engine go. level: 1 debug, 2 info, 3 warning, 4 error.
 * NULL (the default) drops them. Process-wide; call before anything else. */
typedef void (*floatllm_log_fn)(int level, const char *text, void *user);
FLOATLLM_API void floatllm_set_log(floatllm_log_fn log, void *user);

/* Call this before anything below: asks whether the engine's kernels can run on this processor
 * (FLOATLLM_ERROR_MISSING names what it lacks), then loads backends built as separate libraries from `dir`
 * (never from the current folder), of the CPU's variants the one that suits this processor best; nothing
 * is loaded where they are linked in. Safe to call again. */
FLOATLLM_API floatllm_status floatllm_load_backends(const char *dir, size_t dir_len, char **error);

/* Loads one more backend's library, of the same ggml, into an engine with separate ones.
 * FLOATLLM_ERROR_MISSING where it or a library that it needs cannot be loaded, or its driver refuses. */
FLOATLLM_API floatllm_status floatllm_load_backend(const char *path, size_t path_len, char **error);

/* A sentence about a backend that is installed and not loaded: messages about missing devices repeat it. */
FLOATLLM_API void floatllm_note_backend(const char *why, size_t why_len);

/* The CPU's variant that was loaded (haswell, armv8.2_1); "" where the CPU's kernels are linked in. */
FLOATLLM_API const char *floatllm_cpu_variant(void);

typedef struct floatllm_device_info {
    const char *name;        /* ggml's name: CPU, CUDA0, Vulkan0, MTL0, RPC0 */
    const char *description; /* both NUL-terminated and valid for the life of the process */
    uint64_t memory_free;    /* bytes; of the CPU what the system, control groups and limits still give */
    uint64_t memory_total;   /* bytes */
    int32_t type;            /* 0 CPU, 1 GPU, 2 integrated GPU, 3 accelerator */
    int32_t maps_host;       /* 1 where the device computes on host memory in place */
} floatllm_device_info;

FLOATLLM_API size_t floatllm_device_count(void);
FLOATLLM_API floatllm_status floatllm_device(size_t index, floatllm_device_info *out, char **error);

/* Called where ggml gives up, above all where an RPC server was lost while it was in use: the process ends
 * (abort()) when `stop` returns. `message` says what happened; NUL-terminated, valid during the call, which
 * comes on a thread of its own. NULL (the default) prints it to stderr. Process-wide. */
typedef void (*floatllm_abort_fn)(const char *message, void *user);
FLOATLLM_API void floatllm_set_abort(floatllm_abort_fn stop, void *user);

/* Adds the devices of a server of ggml's RPC protocol at `endpoint`, "HOST:PORT", behind those that are
 * there: RPC0, RPC1, ... Does nothing for one that was added before. The protocol has neither authentication
 * nor encryption. FLOATLLM_ERROR_USAGE for another form of address, FLOATLLM_ERROR_ENGINE, within some
 * seconds, where no server of the same protocol answers. Once in use, a server that is lost ends the process:
 * see floatllm_set_abort(). Where SIGPIPE is not ignored, as Python does, that signal comes first. */
FLOATLLM_API floatllm_status floatllm_rpc_add(const char *endpoint, size_t length, char **error);

/* Serves devices of this machine at `endpoint`, one client at a time, until the process ends. Whoever can
 * reach it can use the machine: keep it on loopback or a trusted network. `device`: NUL-terminated name;
 * NULL: all GPUs, else the CPU. `cache_dir`: NUL-terminated folder, which is there, for tensors above 10 MiB
 * that need then not be sent again; NULL: none. `threads`: of the CPU; 0: usable CPUs. Returns only on
 * failure; FLOATLLM_ERROR_ENGINE where nobody can listen there. Unlike all else here, ggml's server writes
 * lines to stdout. */
FLOATLLM_API floatllm_status floatllm_rpc_serve(const char *endpoint, size_t length, const char *device,
                                                const char *cache_dir, uint32_t threads, char **error);

/* ---- proof ---------------------------------------------------------------------------------- */

typedef enum floatllm_outcome {
    FLOATLLM_CHECK_AGREES = 0,
    FLOATLLM_CHECK_DIFFERS = 1,
    FLOATLLM_CHECK_UNSUPPORTED = 2 /* the device says that it cannot */
} floatllm_outcome;

typedef struct floatllm_check {
    const char *operation; /* matmul, RoPE, attention 64 (elements of a head), ...; both are static */
    const char *type;      /* ggml's type name of the weights or of the KV cache, else f32 */
    uint32_t positions;    /* computed at once: devices have other kernels for one than for many */
    int32_t outcome;       /* floatllm_outcome */
    int32_t needed;        /* 1 where no model runs without it */
    /* Normalised mean squared error, or more where a single number is far off; infinity where one is not
     * finite. */
    double nmse;
    double allowed;
} floatllm_check;

/* Return non-zero to stop (FLOATLLM_ERROR_ENGINE). */
typedef int (*floatllm_check_fn)(const floatllm_check *check, void *user);
/* Computes each operation of the engine's graphs on a device (empty: the first GPU, else the CPU) and
 * compares the numbers with the CPU's, or those of the CPU with plain sums. FLOATLLM_OK says that all was
 * computed, not that it agrees: `on_check` is told of each. Takes less than 64 MiB of the device. */
FLOATLLM_API floatllm_status floatllm_prove(const char *device, size_t device_len, floatllm_check_fn on_check,
                                            void *user, char **error);

/* ---- model ---------------------------------------------------------------------------------- */

/* Opens and checks a GGUF file. No tensor data is read and none is allocated. */
FLOATLLM_API floatllm_status floatllm_model_open(const char *path, size_t path_len, floatllm_model **out,
                                                 char **error);
FLOATLLM_API void floatllm_model_close(floatllm_model *model);

typedef struct floatllm_tensor_info {
    const char *name; /* NUL-terminated, owned by the model */
    const char *type; /* ggml's type name: f32, q4_K, ...; static */
    int64_t ne[4];    /* elements along each dimension, ne[0] contiguous; unused ones are 1 */
    uint64_t offset;  /* of the data from the start of the file */
    uint64_t size;    /* of the data */
} floatllm_tensor_info;

FLOATLLM_API size_t floatllm_model_tensor_count(const floatllm_model *model);
FLOATLLM_API floatllm_status floatllm_model_tensor(const floatllm_model *model, size_t index,
                                                   floatllm_tensor_info *out, char **error);

typedef struct floatllm_meta_info {
    const char *key;      /* NUL-terminated, owned by the model */
    int32_t type;         /* GGUF value type, 0..12; 9 is an array */
    int32_t element_type; /* of an array, else equal to type */
    uint64_t count;       /* elements of an array, else 1 */
    uint64_t size;        /* of the encoded elements, without the array's own header */
} floatllm_meta_info;

FLOATLLM_API size_t floatllm_model_meta_count(const floatllm_model *model);
FLOATLLM_API floatllm_status floatllm_model_meta(const floatllm_model *model, size_t index,
                                                 floatllm_meta_info *out, char **error);
/* Reads the encoded elements (GGUF's own little-endian form; a string is a u64 length and its bytes)
 * from the file into `buffer`, which must hold info.size bytes. */
FLOATLLM_API floatllm_status floatllm_model_meta_read(const floatllm_model *model, size_t index, void *buffer,
                                                      size_t capacity, char **error);

/* ---- plan ----------------------------------------------------------------------------------- */

typedef enum floatllm_mode {
    FLOATLLM_MODE_RUN = 0, /* forward pass; architectures the engine computes */
    FLOATLLM_MODE_MAP = 1  /* every tensor of any architecture is mapped and computed over once */
} floatllm_mode;

/* How weights come from the file. The numbers computed are the same. */
typedef enum floatllm_io {
    FLOATLLM_IO_AUTO = 0,  /* mmap for a model that fits or lies in the page cache, else direct */
    FLOATLLM_IO_MMAP = 1,  /* windows of the file, through the page cache */
    FLOATLLM_IO_DIRECT = 2 /* large reads past the page cache; through it where the file system has none */
} floatllm_io;

/* What the KV cache holds. Each changes the numbers; Q8_0 takes 34 bytes where F16 takes 64. */
typedef enum floatllm_kv {
    FLOATLLM_KV_F16 = 0,
    FLOATLLM_KV_Q8_0 = 1 /* FLOATLLM_ERROR_USAGE where the heads do not divide into blocks of 32 */
} floatllm_kv;

typedef struct floatllm_plan_params {
    uint32_t struct_size; /* sizeof(floatllm_plan_params) */
    int32_t mode;         /* floatllm_mode */
    uint64_t memory;      /* bound on all that the engine maps or allocates; 0: what is safely free */
    uint64_t chunk;       /* upper bound of one chunk, and nothing is pinned; 0: by the memory */
    uint32_t ctx; /* positions of KV cache, for each sequence; 0: min(4096, what a quarter of memory holds) */
    uint32_t width;     /* positions of one pass at most; 0: by the model's dimensions */
    uint32_t sequences; /* that have a context of their own; 0: 1 */
    uint32_t outputs;   /* positions of a pass whose logits are wanted, at most; 0: one per sequence */
    uint32_t threads;   /* CPU threads; 0: usable CPUs */
    int32_t io;         /* floatllm_io */
    /* 1: passes are filled up with padding, so that the numbers of a sequence do not depend on what runs
     * beside it; as long as no call holds more tokens than the width, and logits than the outputs. */
    int32_t uniform;
    int32_t kv; /* floatllm_kv */
    /* NUL-terminated name, or several with commas between, whose layers follow each other in this order;
     * NULL: the first GPU, else the CPU */
    const char *device;
    /* Bound on what is taken of the memory of each device that has its own; 0: what is free there. With it,
     * and with several devices, `memory` bounds the host's memory alone. */
    uint64_t device_memory;
    /* Of the weights that are uploaded to a device in each pass, the share that the CPU computes instead
     * where passes are narrow, 0 to 1; below 0: measured. The numbers depend on it as they do on the device;
     * 0: all are those of the device alone, to the bit. */
    double cpu_share;
} floatllm_plan_params;

/* Cuts the model into chunks. FLOATLLM_ERROR_ENGINE when memory is too small; the message names the
 * smallest that works. */
FLOATLLM_API floatllm_status floatllm_plan_create(floatllm_model *model, const floatllm_plan_params *params,
                                                  floatllm_plan **out, char **error);
FLOATLLM_API void floatllm_plan_close(floatllm_plan *plan);
/* The plan as JSON (docs/plan.md); owned by the plan. */
FLOATLLM_API const char *floatllm_plan_json(const floatllm_plan *plan, size_t *length);

typedef struct floatllm_prediction {
    double seconds;          /* of one pass of one position: a token */
    double read_seconds;     /* to bring in what does not stay in memory */
    double compute_seconds;  /* with all weights in memory */
    uint64_t streamed_bytes; /* read in each pass */
    uint64_t computed_bytes; /* of weights in each pass */
} floatllm_prediction;

/* Measures how fast this machine reads and computes the plan's chunks, for about half a second (some seconds
 * on a slow disk), and tells what a token will take. Takes no more memory than the plan grants to chunks, but
 * on top of a session that is open. FLOATLLM_MODE_RUN. */
FLOATLLM_API floatllm_status floatllm_plan_predict(const floatllm_plan *plan, floatllm_prediction *out,
                                                   char **error);

/* ---- session -------------------------------------------------------------------------------- */

/* Takes all the memory that the plan granted, and no more afterwards. */
FLOATLLM_API floatllm_status floatllm_session_open(floatllm_plan *plan, floatllm_session **out, char **error);
FLOATLLM_API void floatllm_session_close(floatllm_session *session);

typedef enum floatllm_event_kind {
    /* a tensor, or its first row slice, is bound to the device; told once of what stays there */
    FLOATLLM_EVENT_TENSOR = 1,
    /* a chunk was computed and released; where uploads go on beside computing, its computing was begun */
    FLOATLLM_EVENT_CHUNK = 2,
    FLOATLLM_EVENT_READ = 3, /* the bytes of a chunk are there; not told again of those that stay */
    FLOATLLM_EVENT_CHECK = 4 /* a pass gave no numbers: `bytes` of a tensor are looked at for damage */
} floatllm_event_kind;

typedef struct floatllm_event {
    int32_t kind;
    int32_t computed; /* TENSOR: 1 where a graph computes on it, 0 where only its bytes are read */
    uint64_t chunk;   /* 0-based */
    uint64_t chunks;
    uint64_t tensor;    /* TENSOR, CHECK: index into the model's tensors */
    const char *device; /* TENSOR: device that holds the bytes, asked of the tensor's own buffer */
    uint64_t bytes;     /* mapped for this tensor or chunk; READ: of the file, in whole pages */
    double seconds;     /* CHUNK: mapping, computing and releasing; READ: from its first byte to its last */
    double began;       /* CHUNK, READ: when that time began, in seconds since the session was opened */
    double waited;      /* CHUNK: of `seconds`, those spent waiting for its bytes */
} floatllm_event;

/* Called on the thread that runs the pass; return non-zero to stop it (FLOATLLM_ERROR_ENGINE). */
typedef int (*floatllm_event_fn)(const floatllm_event *event, void *user);
FLOATLLM_API void floatllm_session_on_event(floatllm_session *session, floatllm_event_fn on_event,
                                            void *user);

/* FLOATLLM_MODE_RUN. Appends `count` tokens to sequence 0 and writes the logits that follow the last of
 * them: `logits` holds `vocab` floats (floatllm_session_vocab). Any count up to the free context. */
FLOATLLM_API floatllm_status floatllm_session_forward(floatllm_session *session, const int32_t *tokens,
                                                      size_t count, float *logits, size_t vocab,
                                                      char **error);

typedef struct floatllm_addition {
    uint32_t sequence; /* below the plan's sequences; named at most once in a call */
    uint32_t outputs;  /* of the last tokens whose logits are wanted; at most count */
    const int32_t *tokens;
    size_t count;
    float *logits; /* receives outputs * vocab floats; NULL where outputs is 0, or only ids are wanted */
    uint32_t top;  /* of each output, the ids of so many largest logits are wanted; 0: none */
    uint32_t *ids; /* receives outputs * top ids, as floatllm_top() orders them; NULL where either is 0 */
} floatllm_addition;

/* FLOATLLM_MODE_RUN. Appends tokens to several sequences; as many as the plan's width go through the
 * weights together. After a failure every sequence is as it was.
 *
 * Weights are looked at when they are first read: where one is NaN or infinite it is FLOATLLM_ERROR_MODEL,
 * naming file, tensor and byte. Where logits are not finite all the same, the weights are read once more, 1
 * MiB at a time, for damage done since; where there is none it is FLOATLLM_ERROR_ENGINE. */
FLOATLLM_API floatllm_status floatllm_session_append(floatllm_session *session,
                                                     const floatllm_addition *additions, size_t count,
                                                     char **error);
/* Writes the ids of the `k` largest of `count` logits, or of all where there are fewer, largest first and of
 * equals the smaller id first; returns how many. k = 1 is greedy decoding. 0 where a logit is NaN, where the
 * largest is infinite, or where a pointer is NULL. */
FLOATLLM_API size_t floatllm_top(const float *logits, size_t count, uint32_t k, uint32_t *ids);
/* Forgets the positions of a sequence from `length` on. */
FLOATLLM_API floatllm_status floatllm_session_truncate(floatllm_session *session, uint32_t sequence,
                                                       size_t length, char **error);
FLOATLLM_API size_t floatllm_session_length(const floatllm_session *session, uint32_t sequence);
FLOATLLM_API size_t floatllm_session_context(const floatllm_session *session);
FLOATLLM_API size_t floatllm_session_vocab(const floatllm_session *session);

/* FLOATLLM_MODE_MAP. Maps, computes and releases every chunk. `sums` receives one number per tensor:
 * the sum over all rows of row · (1, 1, ..., 1), or 0 for a type that no matrix product takes. Damaged
 * weights, and sums that are not finite, are failures as in floatllm_session_append(). */
FLOATLLM_API floatllm_status floatllm_session_map(floatllm_session *session, double *sums, size_t count,
                                                  char **error);

#ifdef __cplusplus
}
#endif

#endif /* FLOATLLM_H */

// A device that computes on the CPU and then tells one number wrong, and the
// engine's proof of it.
//
//   lying_device LIE [OPERATION TYPE POSITIONS]
//
// LIE: none; one: the last number of a result is wrong; nan: it is no number;
// zero: all are zero; unsupported; memory: there is none; compute: it fails.
// OPERATION, by ggml's name, and the TYPE of its first operand choose what is
// lied about, all if they are missing; so do POSITIONS, the columns of its last
// operand. Prints a line for each check: outcome, operation, type and
// positions, separated by tabs. Exits 1 with the error on stderr where the
// proof fails.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "floatllm.h"
#include "ggml-backend-impl.h"

namespace {

std::string g_lie = "none";
std::string g_operation;
std::string g_type;
int64_t g_positions = 0;

ggml_backend_dev_t cpu() { return ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU); }

bool lies_about(const char *lie, const ggml_tensor *node) {
    return g_lie == lie && (g_operation.empty() || (g_operation == ggml_op_name(node->op) &&
                                                    g_type == ggml_type_name(node->src[0]->type) &&
                                                    g_positions == node->src[1]->ne[1]));
}

void spoil(ggml_tensor *node) {
    if (lies_about("zero", node)) {
        std::memset(node->data, 0, ggml_nbytes(node));
    }
    char *last = static_cast<char *>(node->data);
    for (int i = 0; i < GGML_MAX_DIMS; ++i) {
        last += i == 0 && ggml_is_quantized(node->type)
                    ? ggml_row_size(node->type, node->ne[0]) - 1
                    : (node->ne[i] - 1) * static_cast<int64_t>(node->nb[i]);
    }
    if (lies_about("nan", node)) {
        *reinterpret_cast<float *>(last) = std::nanf("");
    }
    if (!lies_about("one", node)) {
        return;
    }
    if (node->type == GGML_TYPE_F32) {
        float *number = reinterpret_cast<float *>(last);
        float largest = 0;
        for (const float *each = number - (node->ne[0] - 1); each <= number; ++each) {
            largest = std::max(largest, std::fabs(*each));
        }
        *number += largest / 2;
    } else {
        // The sign of a Q8_0 number, or the last byte of an F16 one: it becomes
        // another by more than its own size.
        last[node->type == GGML_TYPE_F16 ? 1 : 0] ^= static_cast<char>(0x80);
    }
}

ggml_status compute(ggml_backend_t self, ggml_cgraph *graph) {
    if (g_lie == "compute") {
        return GGML_STATUS_FAILED;
    }
    const ggml_status status = ggml_backend_graph_compute(static_cast<ggml_backend_t>(self->context), graph);
    spoil(ggml_graph_node(graph, ggml_graph_n_nodes(graph) - 1));
    return status;
}

const char *name(ggml_backend_dev_t) { return "Liar0"; }
void memory(ggml_backend_dev_t, size_t *free, size_t *total) { *free = *total = 1 << 30; }
enum ggml_backend_dev_type type(ggml_backend_dev_t) { return GGML_BACKEND_DEVICE_TYPE_GPU; }

void props(ggml_backend_dev_t, ggml_backend_dev_props *out) {
    *out = {};
    out->name = out->description = "Liar0";
    out->type = GGML_BACKEND_DEVICE_TYPE_GPU;
}

ggml_backend_t open(ggml_backend_dev_t self, const char *) {
    ggml_backend_i iface{};
    iface.get_name = [](ggml_backend_t) { return "Liar0"; };
    iface.free = [](ggml_backend_t backend) {
        ggml_backend_free(static_cast<ggml_backend_t>(backend->context));
        delete backend;
    };
    iface.graph_compute = compute;
    static ggml_guid guid = {};
    return new ggml_backend{&guid, iface, self, ggml_backend_dev_init(cpu(), nullptr)};
}

ggml_backend_buffer_type_t buffers(ggml_backend_dev_t self) {
    static ggml_backend_buffer_type none = *ggml_backend_dev_buffer_type(cpu());
    none.iface.alloc_buffer = [](ggml_backend_buffer_type_t, size_t) -> ggml_backend_buffer_t {
        return nullptr;
    };
    none.device = self;
    return g_lie == "memory" ? &none : ggml_backend_dev_buffer_type(cpu());
}

bool supports(ggml_backend_dev_t, const ggml_tensor *node) {
    return !lies_about("unsupported", node) && ggml_backend_dev_supports_op(cpu(), node);
}

ggml_backend_reg_t registry() {
    static ggml_backend_reg reg{};
    reg.api_version = GGML_BACKEND_API_VERSION;
    reg.iface.get_name = [](ggml_backend_reg_t) { return "Liar"; };
    return &reg;
}

int show(const floatllm_check *check, void *) {
    std::printf("%d\t%s\t%s\t%u\n", check->outcome, check->operation, check->type, check->positions);
    return 0;
}

}  // namespace

int main(int argc, char **argv) {
    g_lie = argc > 1 ? argv[1] : "none";
    if (argc > 4) {
        g_operation = argv[2];
        g_type = argv[3];
        g_positions = std::atoll(argv[4]);
    }
    ggml_backend_device liar{};
    liar.reg = registry();
    liar.iface.get_name = name;
    liar.iface.get_description = name;
    liar.iface.get_memory = memory;
    liar.iface.get_type = type;
    liar.iface.get_props = props;
    liar.iface.init_backend = open;
    liar.iface.get_buffer_type = buffers;
    liar.iface.supports_op = supports;
    liar.iface.supports_buft = [](ggml_backend_dev_t, ggml_backend_buffer_type_t) { return true; };
    ggml_backend_device_register(&liar);
    char *error = nullptr;
    if (floatllm_prove("Liar0", 5, show, nullptr, &error) != FLOATLLM_OK) {
        std::fprintf(stderr, "%s\n", error != nullptr ? error : "no message");
        floatllm_free(error);
        return 1;
    }
    return 0;
}

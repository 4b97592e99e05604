#include "proof.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>

#include "device.h"
#include "error.h"
#include "os/os.h"
#include "proof_case.h"

namespace floatllm {

namespace {

constexpr size_t kTensors = 32;
// One number may be 20 standard deviations of the allowed error away: rounding never is, and among 16,000
// numbers a single wrong one hardly moves their mean.
constexpr double kFarAlone = 20 * 20;
// As ggml's own tests allow it there.
constexpr double kAllowedFp4 = 2e-2;

// A device, a graph for it in memory of its own.
class Side {
  public:
    explicit Side(const std::string &name) : device_(name, os::usable_cpus(), 0) {}

    // The result, or nothing where the device does not support one of the operations.
    std::optional<Numbers> run(const Case &one) const {
        ggml_context_ptr context(
            ggml_init({kTensors * ggml_tensor_overhead() + ggml_graph_overhead_custom(kTensors, false),
                       nullptr, true}));
        std::vector<ggml_tensor *> inputs;
        for (const Input &input : one.inputs) {
            inputs.push_back(ggml_new_tensor(context.get(), input.type, 4, input.ne.data()));
        }
        const Built built = one.build(context.get(), inputs);
        ggml_cgraph *graph = ggml_new_graph_custom(context.get(), kTensors, false);
        ggml_build_forward_expand(graph, built.last);
        for (int i = 0; i < ggml_graph_n_nodes(graph); ++i) {
            if (!ggml_backend_dev_supports_op(device_.handle(), ggml_graph_node(graph, i))) {
                return std::nullopt;
            }
        }
        const ggml_backend_buffer_ptr weights = one.repacked ? rearranging(inputs[0]) : nullptr;
        const ggml_backend_buffer_ptr rest(ggml_backend_alloc_ctx_tensors_from_buft(
            context.get(), ggml_backend_dev_buffer_type(device_.handle())));
        if (rest == nullptr) {
            throw Error(FLOATLLM_ERROR_ENGINE,
                        format("%s gave no memory to prove %s with. Free memory on the device.",
                               ggml_backend_dev_name(device_.handle()), one.operation));
        }
        for (size_t i = 0; i < inputs.size(); ++i) {
            ggml_backend_tensor_set(inputs[i], one.inputs[i].bytes.data(), 0, one.inputs[i].bytes.size());
        }
        device_.compute(graph);
        std::vector<char> bytes(ggml_nbytes(built.result));
        ggml_backend_tensor_get(built.result, bytes.data(), 0, bytes.size());
        return to_numbers(built.result->type, bytes);
    }

  private:
    ggml_backend_buffer_ptr rearranging(ggml_tensor *weights) const {
        ggml_backend_buffer_ptr buffer = device_.allocate_repacked(ggml_nbytes(weights));
        if (ggml_backend_tensor_alloc(buffer.get(), weights, ggml_backend_buffer_get_base(buffer.get())) !=
            GGML_STATUS_SUCCESS) {
            throw Error(FLOATLLM_ERROR_ENGINE, "The CPU refused a matrix that it should rearrange.");
        }
        return buffer;
    }

    Device device_;
};

Numbers plainly(const Case &one) {
    std::vector<Numbers> inputs;
    for (const Input &input : one.inputs) {
        inputs.push_back(to_numbers(input.type, input.bytes));
    }
    return one.plain(inputs);
}

// Mesa's Vulkan device on the CPU.
bool is_software(ggml_backend_dev_t device) {
    return std::strstr(ggml_backend_dev_description(device), "llvmpipe") != nullptr;
}

// Whether a device rounds activations to 4 bits where the weights have as many: NVIDIA's Blackwell.
bool rounds_to_fp4(ggml_backend_dev_t device) {
    auto *features = reinterpret_cast<ggml_backend_get_features_t>(
        ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(device), "ggml_backend_get_features"));
    if (features == nullptr) {
        return false;
    }
    for (const ggml_backend_feature *each = features(ggml_backend_dev_backend_reg(device));
         each->name != nullptr; ++each) {
        if (std::strcmp(each->name, "BLACKWELL_NATIVE_FP4") == 0 && std::strcmp(each->value, "0") != 0) {
            return true;
        }
    }
    return false;
}

// Tables that ggml makes to quantise some types.
struct QuantiseTables {
    ~QuantiseTables() { ggml_quantize_free(); }
};

}  // namespace

double distance(const std::vector<float> &found, const std::vector<float> &expected) {
    constexpr double kNothing = std::numeric_limits<double>::infinity();
    if (found.size() != expected.size()) {
        return kNothing;
    }
    double differences = 0;
    double largest = 0;
    double squares = 0;
    for (size_t i = 0; i < found.size(); ++i) {
        const double x = static_cast<double>(expected[i]);
        const double off = static_cast<double>(found[i]) - x;
        differences += off * off;
        largest = std::max(largest, off * off);
        squares += x * x;
    }
    if (!std::isfinite(differences) || !std::isfinite(squares) || squares <= 0) {
        return kNothing;
    }
    return std::max(differences, largest * static_cast<double>(found.size()) / kFarAlone) / squares;
}

void prove(const std::string &name, const CheckListener &tell) {
    const QuantiseTables tables;
    const ggml_backend_dev_t handle = find_device(name);
    const DeviceFacts facts = device_facts(handle);
    const bool software = is_software(handle);
    const Side side(facts.name);
    std::optional<Side> cpu;
    if (!facts.cpu) {
        cpu.emplace("CPU");
    }
    const bool fp4 = rounds_to_fp4(handle);
    const auto check = [&](const Case &one) {
        const bool coarse = fp4 && (one.type == GGML_TYPE_MXFP4 || one.type == GGML_TYPE_NVFP4);
        floatllm_check told{one.operation,
                            ggml_type_name(one.type),
                            static_cast<uint32_t>(one.positions),
                            FLOATLLM_CHECK_UNSUPPORTED,
                            one.needed ? 1 : 0,
                            0.0,
                            coarse ? kAllowedFp4 : one.allowed};
        if (const std::optional<Numbers> found = side.run(one)) {
            const std::optional<Numbers> expected = cpu ? cpu->run(one) : plainly(one);
            told.nmse = distance(*found, expected ? *expected : plainly(one));
            told.outcome = told.nmse <= told.allowed ? FLOATLLM_CHECK_AGREES : FLOATLLM_CHECK_DIFFERS;
        }
        return tell(told);
    };
    if (!each_layer_operation(check) || !each_rotation(check) || !each_attention(software, check) ||
        !each_product(facts.repacks, software, check)) {
        throw Error(FLOATLLM_ERROR_ENGINE, "The proof was stopped by its listener.");
    }
}

}  // namespace floatllm

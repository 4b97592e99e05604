#include <cstring>

#include "device.h"
#include "error.h"

namespace floatllm {

namespace {

// ggml's CPU kernels for one column differ from those for many, and some need 2, 4 or 8 of them; from 8 on,
// each column of a product is summed in the same order whatever their number. Kernels that take two rows and
// two columns at once are chosen by how the work falls on the threads, so there no number is safe.
uint32_t column_grain(ggml_backend_dev_t device) {
    auto *features = reinterpret_cast<ggml_backend_get_features_t>(
        ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(device), "ggml_backend_get_features"));
    if (!is_cpu(device) || features == nullptr) {
        return 0;
    }
    for (const ggml_backend_feature *each = features(ggml_backend_dev_backend_reg(device));
         each->name != nullptr; ++each) {
        if (std::strcmp(each->name, "MATMUL_INT8") == 0 && std::strcmp(each->value, "0") != 0) {
            return 0;
        }
    }
    return 8;
}

// Whether a second stream of the device copies while the first computes. Vulkan's contexts share a queue.
bool overlaps(ggml_backend_dev_t device, const ggml_backend_dev_props &props) {
    const std::string backend = ggml_backend_reg_name(ggml_backend_dev_backend_reg(device));
    return props.caps.async && props.caps.events && props.caps.host_buffer &&
           (backend == "CUDA" || backend == "ROCm" || backend == "MUSA");
}

// Whether matrices of a type are rearranged, in place of the same size, and groups of rows apart from each
// other: tried, for ggml does not tell.
bool repacks(ggml_backend_dev_t device, ggml_backend_buffer_type_t buffers, ggml_type type) {
    const QuietThread quiet;
    constexpr int64_t kColumns = 1024;
    const size_t half = ggml_row_size(type, kColumns) * kRowGrain;
    ggml_context_ptr context(ggml_init({ggml_tensor_overhead() * 8, nullptr, true}));
    ggml_tensor *whole = ggml_new_tensor_2d(context.get(), type, kColumns, 2 * kRowGrain);
    if (ggml_backend_buft_get_alloc_size(buffers, whole) != 2 * half) {
        return false;
    }
    ggml_backend_buffer_ptr buffer(ggml_backend_buft_alloc_buffer(buffers, 4 * half));
    if (buffer == nullptr) {
        // Which kernels run must not depend on memory (DESIGN.md, Exactness).
        throw Error(FLOATLLM_ERROR_ENGINE, "Memory ran out. Close other programs.");
    }
    char *base = static_cast<char *>(ggml_backend_buffer_get_base(buffer.get()));
    const auto put = [&](ggml_tensor *tensor, char *at) {
        return ggml_backend_tensor_alloc(buffer.get(), tensor, at) == GGML_STATUS_SUCCESS &&
               tensor->extra != nullptr;
    };
    if (!put(whole, base)) {
        return false;
    }
    ggml_tensor *column = ggml_new_tensor_2d(context.get(), GGML_TYPE_F32, kColumns, 1);
    if (!ggml_backend_dev_supports_op(device, ggml_mul_mat(context.get(), whole, column))) {
        return false;
    }
    std::vector<char> bytes(2 * half);
    for (size_t i = 0; i < bytes.size(); ++i) {
        bytes[i] = static_cast<char>(i * 2654435761u >> 24);
    }
    ggml_backend_tensor_set(whole, bytes.data(), 0, bytes.size());
    for (size_t i = 0; i < 2; ++i) {
        ggml_tensor *part = ggml_new_tensor_2d(context.get(), type, kColumns, kRowGrain);
        if (!put(part, base + (2 + i) * half)) {
            return false;
        }
        ggml_backend_tensor_set(part, bytes.data() + i * half, 0, half);
    }
    return std::memcmp(base, base + 2 * half, 2 * half) == 0;
}

std::vector<bool> repacked_types(ggml_backend_dev_t device) {
    ggml_backend_buffer_type_t buffers = repack_type(device);
    std::vector<bool> types(GGML_TYPE_COUNT, false);
    for (size_t i = 0; buffers != nullptr && i < types.size(); ++i) {
        const ggml_type type = static_cast<ggml_type>(i);
        types[i] = ggml_is_quantized(type) && ggml_type_size(type) > 0 && repacks(device, buffers, type);
    }
    return types;
}

}  // namespace

ggml_backend_buffer_type_t repack_type(ggml_backend_dev_t device) {
    auto *extra = reinterpret_cast<ggml_backend_dev_get_extra_bufts_t>(ggml_backend_reg_get_proc_address(
        ggml_backend_dev_backend_reg(device), "ggml_backend_dev_get_extra_bufts"));
    for (ggml_backend_buffer_type_t *each = extra != nullptr && is_cpu(device) ? extra(device) : nullptr;
         each != nullptr && *each != nullptr; ++each) {
        if (std::strcmp(ggml_backend_buft_name(*each), "CPU_REPACK") == 0) {
            return *each;
        }
    }
    return nullptr;
}

DeviceFacts device_facts(ggml_backend_dev_t device) {
    const auto link = RpcLink::to(device);
    ggml_backend_dev_props props;
    ggml_backend_dev_get_props(device, &props);
    ggml_backend_buffer_type_t type = ggml_backend_dev_buffer_type(device);
    // CUDA pads the last row of a quantised tensor to 512 elements: at most 512 elements of four bytes.
    constexpr uint64_t kSlack = 2048;
    return {props.name,
            props.caps.buffer_from_host_ptr,
            props.memory_free,
            ggml_backend_buft_get_alignment(type),
            kSlack,
            ggml_backend_buft_get_max_size(type),
            os::map_granularity(),
            column_grain(device),
            is_cpu(device),
            overlaps(device, props),
            props.type == GGML_BACKEND_DEVICE_TYPE_IGPU,
            repacked_types(device)};
}

}  // namespace floatllm

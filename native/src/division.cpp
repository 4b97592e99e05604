#include <algorithm>
#include <numeric>
#include <optional>

#include "error.h"
#include "plan.h"

namespace floatllm {

namespace {

// Ends of the devices' parts of a program, at borders of layers.
std::vector<size_t> divide(const GgufFile &model, const Program &program,
                           const std::vector<uint64_t> &capacities) {
    const auto bytes = [&](const Op &op) {
        if (op.weight < 0) {
            return 0.0;
        }
        const Tensor &tensor = model.tensors()[static_cast<size_t>(op.weight)];
        const double rows = op.rows > 0 ? static_cast<double>(op.rows) : static_cast<double>(tensor.rows());
        return rows * static_cast<double>(tensor.row_bytes());
    };
    double all = 0;
    for (const Op &op : program.ops) {
        all += bytes(op);
    }
    const double capacity = std::max(1.0, std::accumulate(capacities.begin(), capacities.end(), 0.0));
    std::vector<size_t> ends;
    double used = 0;
    double due = 0;
    size_t op = 0;
    for (size_t device = 0; device + 1 < capacities.size(); ++device) {
        due += all * static_cast<double>(capacities[device]) / capacity;
        while (op < program.ops.size()) {
            size_t end = op;
            double layer = 0;
            do {
                layer += bytes(program.ops[end++]);
            } while (end < program.ops.size() && program.arch != nullptr &&
                     program.ops[end].layer == program.ops[op].layer);
            // What follows the layers stays together: only some positions go there.
            if (used + layer / 2 > due || (program.arch != nullptr && program.ops[op].layer < 0)) {
                break;
            }
            used += layer;
            op = end;
        }
        ends.push_back(op);
    }
    ends.push_back(program.ops.size());
    return ends;
}

// Plans for several devices. Those with memory of their own share the layers in proportion to it; the CPU,
// where it is among them, gets what they cannot hold.
class Division {
  public:
    Division(std::shared_ptr<const GgufFile> model, std::vector<DeviceFacts> devices,
             const PlanRequest &request)
        : model_(std::move(model)), devices_(std::move(devices)), request_(request) {
        request_.several = true;
        bool any_width = false;
        for (const DeviceFacts &device : devices_) {
            request_.attention_blocks |= device.cpu;
            any_width |= device.column_grain == 0;
            const uint64_t free = device.memory_free - device.memory_free / 20;
            capacities_.push_back(
                device.maps_host
                    ? 0
                    : std::max<uint64_t>(
                          request.device_memory > 0 ? std::min(request.device_memory, free) : free, 1));
        }
        for (DeviceFacts &device : devices_) {
            device.column_grain = any_width ? 0 : device.column_grain;
        }
        program_ = request.mode == FLOATLLM_MODE_MAP ? map_program(*model_) : forward_program(*model_);
    }

    Plans make() {
        if (program_.ops.empty()) {
            // Refused as for one device.
            return {make_plan(model_, devices_.front(), request_)};
        }
        // KV cache and activations are known only behind planning: where there is a CPU to give to, what does
        // not fit beside them goes there.
        const std::vector<uint64_t> most = capacities_;
        std::vector<std::optional<Plan>> plans;
        for (size_t full = 0; full < devices_.size();) {
            full = plan_all(plans);
            if (full < devices_.size()) {
                const uint64_t step = std::max<uint64_t>(most[full] / 16, 1);
                capacities_[full] -= std::min(capacities_[full], step);
            }
        }
        uint32_t ctx = UINT32_MAX;
        for (const std::optional<Plan> &plan : plans) {
            ctx = plan ? std::min(ctx, plan->ctx) : ctx;
        }
        const bool differ = std::any_of(plans.begin(), plans.end(), [ctx](const std::optional<Plan> &plan) {
            return plan && plan->ctx != ctx;
        });
        if (differ) {
            request_.ctx = ctx;
            plan_all(plans);
        }
        Plans found;
        for (size_t i = 0; i < devices_.size(); ++i) {
            if (plans[i]) {
                plans[i]->budget = request_.budget;
                found.push_back(std::move(*plans[i]));
            } else if (!devices_[i].maps_host) {
                throw Error(
                    FLOATLLM_ERROR_ENGINE,
                    format("%s holds no layer of this model beside its KV cache. Leave it out of --device, "
                           "give it more memory, or take a smaller context.",
                           devices_[i].name.c_str()));
            }
        }
        return found;
    }

  private:
    bool gives_to_cpu() const {
        return std::any_of(devices_.begin(), devices_.end(),
                           [](const DeviceFacts &d) { return d.maps_host; });
    }

    std::vector<uint64_t> shares() const {
        std::vector<uint64_t> shares = capacities_;
        const uint64_t held = std::accumulate(shares.begin(), shares.end(), uint64_t{0});
        uint64_t all = 0;
        for (const Tensor &tensor : model_->tensors()) {
            all += tensor.size;
        }
        for (size_t i = 0; i < shares.size(); ++i) {
            shares[i] = devices_[i].maps_host ? all - std::min(all, held) : shares[i];
        }
        return shares;
    }

    // Returns the first device that does not keep its part though a CPU could take some of it.
    size_t plan_all(std::vector<std::optional<Plan>> &found) {
        const std::vector<size_t> ends = divide(*model_, program_, shares());
        found.assign(devices_.size(), std::nullopt);
        PlanRequest each = request_;
        // Who computes in the host's memory gets what the others leave of it.
        for (const bool maps_host : {false, true}) {
            for (size_t i = 0; i < devices_.size(); ++i) {
                each.first_op = i == 0 ? 0 : ends[i - 1];
                each.end_op = ends[i];
                if (devices_[i].maps_host != maps_host || each.first_op == each.end_op) {
                    continue;
                }
                const bool gives = gives_to_cpu() && !maps_host && request_.chunk == 0 && capacities_[i] > 0;
                try {
                    found[i] = make_plan(model_, devices_[i], each);
                } catch (const Error &error) {
                    if (!gives || error.status() != FLOATLLM_ERROR_ENGINE) {
                        throw;
                    }
                    return i;
                }
                if (gives && found[i]->slots > 0) {
                    return i;
                }
                each.budget.bytes -= std::min(each.budget.bytes, found[i]->host_bytes);
                each.others = request_.budget.bytes - each.budget.bytes;
            }
        }
        return devices_.size();
    }

    std::shared_ptr<const GgufFile> model_;
    std::vector<DeviceFacts> devices_;
    PlanRequest request_;
    Program program_;
    std::vector<uint64_t> capacities_;  // of devices with memory of their own; 0: of the host's
};

}  // namespace

Plans make_plans(std::shared_ptr<const GgufFile> model, std::vector<DeviceFacts> devices,
                 const PlanRequest &request) {
    if (devices.size() == 1) {
        return {make_plan(std::move(model), devices.front(), request)};
    }
    return Division(std::move(model), std::move(devices), request).make();
}

}  // namespace floatllm

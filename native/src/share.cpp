#include <algorithm>

#include "plan.h"

namespace floatllm {

Plan plan_of_share(const Plan &plan, const DeviceFacts &cpu) {
    Plan share = plan;
    share.device = cpu;
    share.width = kShareWidth;
    share.layout = lay_out(plan.program, {kShareWidth, 0, 0, true, 0});
    share.chunks.clear();
    return share;
}

void share_with_cpu(Plan &plan, double share) {
    const auto op_of = [&plan](const Step &step) -> const Op & {
        return plan.program.ops[static_cast<size_t>(step.op)];
    };
    struct Half {
        size_t begin;
        size_t end;
        double bytes;
    };
    std::vector<Half> halves;
    double streamed = 0;
    double shareable = 0;
    for (size_t begin = 0, end = 0; begin < plan.chunks.size(); begin = end) {
        Half half{begin, begin, 0};
        bool fit = true;
        for (end = begin; end < plan.chunks.size() && plan.chunks[end].unit == plan.chunks[begin].unit;
             ++end) {
            const Chunk &chunk = plan.chunks[end];
            streamed += chunk.pinned ? 0 : static_cast<double>(chunk.weight_bytes);
            half.bytes += static_cast<double>(chunk.weight_bytes);
            fit &= chunk.hosted && std::all_of(chunk.steps.begin(), chunk.steps.end(), [&](const Step &step) {
                       return op_of(step).layer >= 0 && op_of(step).half == 1;
                   });
        }
        half.end = end;
        // The first reads the residual stream and the last adds to it: nothing else comes and goes.
        const Op &first = op_of(plan.chunks[begin].steps.front());
        const Op &last = op_of(plan.chunks[end - 1].steps.back());
        if (fit && first.kind == OpKind::Norm && first.in == Act::X && last.kind == OpKind::Add) {
            halves.push_back(half);
            shareable += half.bytes;
        }
    }
    const double wanted = std::min(share * streamed, shareable);
    double due = 0;
    double shared = 0;
    for (const Half &half : halves) {
        due += wanted * half.bytes / shareable;
        if (due >= half.bytes / 2) {
            for (size_t i = half.begin; i < half.end; ++i) {
                plan.chunks[i].shared = true;
            }
            due -= half.bytes;
            shared += half.bytes;
        }
    }
    plan.cpu_share = streamed > 0 ? shared / streamed : 0;
}

}  // namespace floatllm

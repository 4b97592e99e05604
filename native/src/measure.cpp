#include "measure.h"

#include <algorithm>
#include <array>
#include <memory>

#include "chunks.h"
#include "cut.h"
#include "error.h"
#include "rates.h"
#include "session.h"
#include "stopwatch.h"

namespace floatllm {

namespace {

// More than the last cache of most CPUs holds, so that weights come from memory as they do in a whole pass.
constexpr uint64_t kComputed = uint64_t{64} << 20;
// Where nothing is streamed computing is all there is to tell, so more of it is looked at; most where it need
// not come from the disk, for the caches of large CPUs hold hundreds of MiB.
constexpr uint64_t kComputedAlone = uint64_t{256} << 20;
constexpr uint64_t kComputedCached = uint64_t{2} << 30;
constexpr uint64_t kStreamed = uint64_t{512} << 20;
constexpr uint64_t kKept = uint64_t{16} << 20;
constexpr double kSeconds = 0.12;
// Others may use the machine at the same time; half of the passes not being disturbed is enough.
double median(std::vector<double> values) {
    std::nth_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(values.size() / 2),
                     values.end());
    return values[values.size() / 2];
}

// Passes over a small plan, after one that reads what stays.
class Trial {
  public:
    explicit Trial(Plan plan) : plans_(std::make_shared<const Plans>(1, std::move(plan))), session_(plans_) {
        pass();
    }

    // Runs as many passes as fit the time, three where they are short, but at least one; returns the median
    // of their seconds.
    template <typename AfterEach>
    double run(AfterEach after_each) {
        std::vector<double> seconds;
        const Stopwatch all;
        while (seconds.empty() || all.seconds() < kSeconds || (seconds.size() < 3 && all.seconds() < 1)) {
            const Stopwatch each;
            pass();
            seconds.push_back(each.seconds());
            after_each();
        }
        return median(std::move(seconds));
    }

    const Plan &plan() const { return plans_->front(); }
    Session &session() { return session_; }

  private:
    void pass() {
        const int32_t token = 0;
        session_.truncate(0, 0);
        session_.append({{0, &token, 1, nullptr, 1, 0, nullptr}});
    }

    std::shared_ptr<const Plans> plans_;
    Session session_;
};

// Time and weight bytes of what was computed, apart for the layers and for what only the wanted positions
// see: the output matrix is often of another type.
struct Share {
    uint64_t all = 0;
    uint64_t sampled = 0;
    double now = 0;  // of the pass that runs
    std::vector<double> seconds;
};

bool is_output(const Program &program, const Chunk &chunk) {
    return std::any_of(chunk.steps.begin(), chunk.steps.end(), [&program](const Step &step) {
        const Op &op = program.ops[static_cast<size_t>(step.op)];
        return op.gathered && op.weight >= 0;
    });
}

// The first chunks and one of the output, as many as `room` holds, but at least one.
std::vector<Chunk> some_of(const Plan &plan, const std::vector<Chunk> &all, uint64_t room) {
    const auto output = std::find_if(all.begin(), all.end(),
                                     [&plan](const Chunk &chunk) { return is_output(plan.program, chunk); });
    const uint64_t last = output == all.end() ? 0 : chunk_cost(plan.device, *output);
    std::vector<Chunk> taken;
    uint64_t used = 0;
    for (auto chunk = all.begin(); chunk != output; ++chunk) {
        used += chunk_cost(plan.device, *chunk);
        if (!taken.empty() && used + last > room) {
            break;
        }
        taken.push_back(*chunk);
    }
    if (output != all.end() && (taken.empty() || used + last <= room)) {
        taken.push_back(*output);
    }
    for (Chunk &chunk : taken) {
        chunk.pinned = true;
    }
    return taken;
}

// Bytes per second of the first few reads, by one thread: enough to know how many more there is time for.
double first_rate(const Plan &plan) {
    constexpr size_t kStep = size_t{1} << 20;
    const auto chunk = std::find_if(plan.chunks.begin(), plan.chunks.end(),
                                    [](const Chunk &each) { return !each.extents.empty(); });
    const Extent &extent = chunk->extents.front();
    const os::File &file = plan.model->file(extent.file);
    os::Pages buffer(plan.io == IoMode::Direct ? kStep : 1);
    const Stopwatch watch;
    uint64_t done = 0;
    while (done < 8 * kStep && done < extent.size && watch.seconds() < kSeconds / 4) {
        const size_t step = static_cast<size_t>(std::min<uint64_t>(kStep, extent.size - done));
        if (plan.io == IoMode::Direct) {
            file.read_direct(extent.offset + done, buffer.data(), step);
        } else {
            os::Mapping(file, extent.offset + done, step).populate(0, step);
        }
        done += step;
    }
    return static_cast<double>(done) / std::max(watch.seconds(), 1e-9);
}

// Seconds of a pass with all weights in memory, of which at most `most` bytes are read.
double compute_seconds(const Plan &plan, uint64_t most) {
    const bool cached = plan.slots == 0 && os::cached_share(plan.model->largest_file()) > 0.9;
    most = std::min(most, cached ? kComputedCached : plan.slots == 0 ? kComputedAlone : kComputed);
    const uint64_t room = std::min(most, plan.memory.pinned + plan.memory.ring);
    const uint64_t cap = std::max(smallest_chunk(*plan.model, plan.program, plan.device), room / 4);
    const std::vector<Chunk> all = cut_program(*plan.model, plan.program, plan.device, 1, cap);
    std::array<Share, 2> shares;
    for (const Chunk &chunk : all) {
        shares[is_output(plan.program, chunk)].all += chunk.weight_bytes;
    }
    Trial trial(plan_over(plan, some_of(plan, all, room), 0));
    const std::vector<Chunk> &chunks = trial.plan().chunks;
    for (const Chunk &chunk : chunks) {
        shares[is_output(plan.program, chunk)].sampled += chunk.weight_bytes;
    }
    trial.session().on_event([&](const floatllm_event &event) {
        if (event.kind == FLOATLLM_EVENT_CHUNK) {
            shares[is_output(plan.program, chunks[static_cast<size_t>(event.chunk)])].now += event.seconds;
        }
        return true;
    });
    trial.run([&shares] {
        for (Share &share : shares) {
            share.seconds.push_back(share.now);
            share.now = 0;
        }
    });
    double seconds = 0;
    for (size_t i = 0; i < shares.size(); ++i) {
        // What was too large to be sampled is as fast as the other.
        Share &from = shares[i].sampled > 0 ? shares[i] : shares[1 - i];
        if (from.sampled > 0) {
            seconds +=
                median(from.seconds) / static_cast<double>(from.sampled) * static_cast<double>(shares[i].all);
        }
    }
    return seconds;
}

struct Traffic {
    uint64_t computed = 0;
    uint64_t streamed = 0;
};

Traffic traffic(const std::vector<Chunk> &chunks) {
    Traffic sum;
    for (const Chunk &chunk : chunks) {
        sum.computed += chunk.weight_bytes;
        sum.streamed += chunk.pinned ? 0 : chunk.mapped_bytes;
    }
    return sum;
}

// The plan's first chunks, kept and streamed ones as they come, with `bytes` to stream or enough to fill the
// ring.
std::vector<Chunk> first_of(const Plan &plan, uint64_t bytes) {
    std::vector<Chunk> taken;
    uint64_t streamed = 0;
    uint64_t kept = 0;
    size_t turns = 0;
    for (const Chunk &chunk : plan.chunks) {
        if (streamed >= bytes && turns > plan.slots) {
            break;
        }
        if (chunk.pinned && kept + chunk_cost(plan.device, chunk) > kKept) {
            continue;
        }
        (chunk.pinned ? kept : streamed) += chunk_cost(plan.device, chunk);
        turns += chunk.pinned ? 0 : 1;
        taken.push_back(chunk);
    }
    return taken;
}

// Bytes per second at which chunks come in, with nothing computed beside.
double read_rate(const Plan &plan) {
    Plan part = plan;
    part.chunks.clear();
    uint64_t bytes = 0;
    for (const Chunk &chunk : plan.chunks) {
        if (!chunk.pinned && bytes < kStreamed) {
            bytes += chunk.mapped_bytes;
            part.chunks.push_back(chunk);
        }
    }
    const Device device(part.device.name, part.threads, 0);
    GraphBuilder contexts(part, State{nullptr, nullptr});
    const Stopwatch watch;
    ChunkStore store(part, device, false);
    uint64_t done = 0;
    for (size_t i = 0; i < part.chunks.size() && (i < part.slots || watch.seconds() < kSeconds); ++i) {
        store.acquire(i, contexts.reset());
        done += part.chunks[i].mapped_bytes;
        store.release(i);
    }
    return static_cast<double>(done) / std::max(watch.seconds(), 1e-9);
}

floatllm_prediction predict_host(const Plan &plan) {
    const Traffic whole = traffic(plan.chunks);
    floatllm_prediction found{};
    found.computed_bytes = whole.computed;
    found.streamed_bytes = whole.streamed;
    const double slowest = first_rate(plan);
    found.compute_seconds = compute_seconds(plan, static_cast<uint64_t>(slowest * 4 * kSeconds));
    if (whole.streamed == 0) {
        found.seconds = found.compute_seconds;
        return found;
    }
    // A ring of a slow disk would take long to fill.
    const double ring = static_cast<double>(plan.slots * ring_slot_bytes(plan));
    const double rate = ring > slowest ? slowest : read_rate(plan);
    const double per_computed = found.compute_seconds / static_cast<double>(whole.computed);
    found.read_seconds = static_cast<double>(whole.streamed) / rate;
    const auto ideal = [&](const Traffic &of) {
        const double read = static_cast<double>(of.streamed) / rate;
        const double computed = per_computed * static_cast<double>(of.computed);
        return plan.slots > 1 ? std::max(read, computed) : read + computed;
    };
    found.seconds = ideal(whole);
    // How far reading and computing get in each other's way is seen best by doing both.
    const uint64_t bytes = std::min(kStreamed, static_cast<uint64_t>(rate * kSeconds / 3));
    std::vector<Chunk> first = first_of(plan, bytes);
    const double expected = ideal(traffic(first));
    // Beside a disk so slow that this would take long, computing is lost.
    if (expected < 5 * kSeconds) {
        Trial trial(plan_over(plan, std::move(first), plan.slots));
        found.seconds *= trial.run([] {}) / expected;
    }
    return found;
}

// Of a device with memory of its own: uploads, the disk and the CPU's share go on beside each other.
floatllm_prediction predict_device(const Plan &plan) {
    floatllm_prediction found{};
    uint64_t shared = 0;
    uint64_t disk = 0;
    const Chunk *example = nullptr;
    for (const Chunk &chunk : plan.chunks) {
        found.computed_bytes += chunk.weight_bytes;
        shared += chunk.shared ? chunk.weight_bytes : 0;
        example = chunk.shared ? &chunk : example;
        found.streamed_bytes += chunk.pinned || chunk.shared ? 0 : chunk.weight_bytes;
        disk += chunk.pinned || chunk.hosted ? 0 : chunk.mapped_bytes;
    }
    const double slowest = first_rate(plan);
    const double own = compute_seconds(plan, static_cast<uint64_t>(slowest * 4 * kSeconds));
    const double cpu = shared == 0 ? 0 : static_cast<double>(shared) / cpu_rate(plan, *example);
    const double link =
        found.streamed_bytes == 0 ? 0 : static_cast<double>(found.streamed_bytes) / link_rate(plan);
    // By several readers; only a run tells how many times faster than by one.
    const double read = static_cast<double>(disk) / slowest;
    found.read_seconds = std::max(link, read);
    found.compute_seconds = own + cpu;
    found.seconds = plan.device.overlaps ? std::max({found.read_seconds, cpu, own})
                                         : found.read_seconds + found.compute_seconds;
    return found;
}

}  // namespace

floatllm_prediction predict(const Plans &plans) {
    floatllm_prediction sum{};
    for (const Plan &plan : plans) {
        if (plan.program.arch == nullptr) {
            throw Error(FLOATLLM_ERROR_USAGE,
                        "Only a plan to run the model has a pass whose time can be told.");
        }
        const floatllm_prediction each = plan.device.maps_host ? predict_host(plan) : predict_device(plan);
        sum.seconds += each.seconds;
        sum.read_seconds += each.read_seconds;
        sum.compute_seconds += each.compute_seconds;
        sum.streamed_bytes += each.streamed_bytes;
        sum.computed_bytes += each.computed_bytes;
    }
    return sum;
}

}  // namespace floatllm

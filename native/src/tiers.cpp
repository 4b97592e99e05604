#include "tiers.h"

#include <algorithm>

#include "bounds.h"

namespace floatllm {

namespace {

// Marks chunks that `left` bytes hold, spread evenly, so that what brings the others never waits for a
// run of these to be computed; returns what they take.
template <typename Cost>
uint64_t spread(Plan &plan, uint64_t left, bool Chunk::*mark, Cost cost) {
    uint64_t total = 0;
    for (const Chunk &c : plan.chunks) {
        total += c.pinned ? 0 : cost(c);
    }
    const uint64_t before = left;
    const double share = total == 0 ? 0 : static_cast<double>(left) / static_cast<double>(total);
    double due = 0;
    std::vector<Chunk> &chunks = plan.chunks;
    // By whole units at their turn, then by those that still fit, then by chunks.
    for (const int round : {0, 1, 2}) {
        for (size_t begin = 0, end = 0; begin < chunks.size(); begin = end) {
            uint64_t bytes = 0;
            bool free = true;
            for (end = begin; end < chunks.size() &&
                              (end == begin || (round < 2 && chunks[end].unit == chunks[begin].unit));
                 ++end) {
                free &= !chunks[end].pinned && !chunks[end].hosted;
                bytes += cost(chunks[end]);
            }
            if (!free) {
                continue;
            }
            due += round == 0 ? share * static_cast<double>(bytes) : 0;
            if (bytes <= left && (round > 0 || due >= static_cast<double>(bytes))) {
                for (size_t i = begin; i < end; ++i) {
                    chunks[i].*mark = true;
                }
                due -= static_cast<double>(bytes);
                left -= bytes;
            }
        }
    }
    return before - left;
}

// Chooses the chunks that stay in the host's memory; the others pass through it.
void host(Plan &plan, const Bounds &bounds, bool keep) {
    const auto held = [](const Chunk &c) { return staging_bytes(c.mapped_bytes); };
    uint64_t all = 0;
    for (const Chunk &c : plan.chunks) {
        all += c.pinned ? 0 : held(c);
    }
    const uint64_t used = bounds.joint() ? plan.memory.pinned + plan.memory.ring : 0;
    const uint64_t room = bounds.host_room() - std::min(bounds.host_room(), used);
    if (keep && all <= room) {
        plan.staging_slots = 0;
    }
    const uint64_t ring = plan.staging_slots * staging_slot_bytes(plan);
    plan.memory.staging += ring;
    if (keep) {
        plan.memory.host = spread(plan, room - std::min(room, ring), &Chunk::hosted, held);
    }
}

}  // namespace

uint64_t ring_slot_bytes(const Plan &plan) {
    uint64_t widest = 0;
    for (const Chunk &c : plan.chunks) {
        widest = std::max(widest, chunk_cost(plan.device, c));
    }
    return widest;
}

uint64_t staging_slot_bytes(const Plan &plan) {
    uint64_t widest = 0;
    for (const Chunk &c : plan.chunks) {
        widest = std::max(widest, c.pinned || c.hosted ? 0 : staging_bytes(c.mapped_bytes));
    }
    return widest;
}

uint64_t slots_taken(const Plan &plan) {
    return plan.slots + (plan.slots > 0 && plan.repack_block > 0 ? 1 : 0);
}

void choose_tiers(Plan &plan, const PlanRequest &request, uint64_t slot_bytes) {
    const Bounds bounds(request, plan);
    const auto cost = [&plan](const Chunk &c) { return chunk_cost(plan.device, c); };
    const bool keep = request.chunk == 0 && plan.mode != FLOATLLM_MODE_MAP;
    if (plan.slots == 0) {
        for (Chunk &c : plan.chunks) {
            c.pinned = true;
            plan.memory.pinned += cost(c);
        }
    } else if (keep) {
        const uint64_t staged = bounds.joint() ? plan.staging_slots * staging_slot_bytes(plan) : 0;
        const uint64_t beside = slots_taken(plan) * slot_bytes + staged;
        const uint64_t left = bounds.room() - std::min(bounds.room(), beside);
        plan.memory.pinned = spread(plan, left, &Chunk::pinned, cost);
    }
    plan.memory.ring = slots_taken(plan) * ring_slot_bytes(plan);
    if (!plan.device.maps_host && plan.slots > 0) {
        host(plan, bounds, keep);
    }
    // A model that is uploaded once goes through mapped windows. Metal wires all that it wraps, so of a
    // stream it wraps the ring, once.
    const bool chosen = (plan.device.maps_host && request.explicit_io) || plan.slots > 0;
    const bool wires = plan.device.maps_host && !plan.device.cpu;
    plan.io = !chosen ? IoMode::Mmap : wires && !request.explicit_io ? IoMode::Direct : request.io;
}

}  // namespace floatllm

// Graphs of a chunk over fixed memory.
//
// Every tensor that outlives an operation has its place in one buffer (Layout), so nothing is allocated
// between passes, and an activation written by one chunk is where the next looks for it.
#pragma once

#include <array>
#include <vector>

#include "device.h"
#include "plan.h"

namespace floatllm {

// Positions of one sequence in a pass.
struct Segment {
    uint32_t sequence;
    int64_t first;  // of the pass's positions
    int64_t count;
    int64_t cells;  // of the sequence's KV cache that attention looks at, a multiple of kKvGrain
    int64_t mask;   // where the segment's mask begins, in elements
};

// What a pass sees beside the weights.
struct PassShape {
    std::vector<Segment> segments;
    int64_t tokens;     // of all segments
    int64_t positions;  // with the padding behind them, at most the plan's width
    int64_t outputs;    // positions whose logits are computed, with padding too
};

bool operator==(const PassShape &a, const PassShape &b);

// The memory of a session outside its chunks. Without any, graphs are for looking at.
struct State {
    ggml_backend_buffer_t activations;
    ggml_backend_buffer_t kv;  // nullptr in mode map
};

// Builds graphs in a context of its own, whose memory is reused by the next build.
class GraphBuilder {
  public:
    // With room for so many tensors; 0: for any chunk's.
    GraphBuilder(const Plan &plan, const State &state, uint64_t tensors = 0);
    ~GraphBuilder();
    GraphBuilder(const GraphBuilder &) = delete;
    GraphBuilder &operator=(const GraphBuilder &) = delete;

    // Forgets the last graph and its tensors. New weight tensors go into the returned context.
    ggml_context *reset();
    // Graph of a chunk whose weights are bound; `weights` is parallel to chunk.parts.
    ggml_cgraph *build(const Chunk &chunk, const std::vector<ggml_tensor *> &weights, const PassShape &shape);
    // Graph of one step of a chunk in mode map: sums of rows. nullptr where nothing is computed.
    ggml_cgraph *build_touch(const Step &step, ggml_tensor *weight);

    // A tensor over a region of the activation buffer, for setting inputs and getting results.
    ggml_tensor *over(ggml_type type, int64_t ne0, int64_t ne1, const Region &region, uint64_t begin = 0);

  private:
    // What this graph last wrote there, so that a device may join operations, or a tensor over its place.
    ggml_tensor *act(Act act, int64_t positions);
    void wrote(Act act, ggml_tensor *node);
    ggml_tensor *kv(int layer, bool value);
    void write(ggml_tensor *node, const Region &region);
    void add(ggml_tensor *node);
    void norm(const Op &op, ggml_tensor *weight, int64_t positions);
    void matmul(const Op &op, const Step &step, ggml_tensor *weight, int64_t positions);
    void attention(const Op &op, ggml_tensor *factors, const PassShape &shape);

    const Plan &plan_;
    State state_;
    const size_t tensors_;
    std::vector<char> memory_;
    ggml_context *context_ = nullptr;
    ggml_cgraph *graph_ = nullptr;
    std::array<ggml_tensor *, kActs> latest_{};
};

// Throws Error(FLOATLLM_ERROR_ENGINE) naming the first operation that the plan's device lacks, and where.
void require_operations(const Plan &plan);

}  // namespace floatllm

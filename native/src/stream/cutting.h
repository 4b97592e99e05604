// Where a graph is cut, so that the weights of each segment fit one slot of the ring. Pure: it sees sizes and
// places in files, no tensor and no memory.
#pragma once

#include <cstdint>
#include <vector>

namespace floatllm::stream {

// Bytes of one of a model's files.
struct Range {
    uint32_t file;
    uint64_t offset;
    uint64_t size;

    uint64_t end() const { return offset + size; }
    bool operator==(const Range &other) const {
        return file == other.file && offset == other.offset && size == other.size;
    }
};

// A node of a graph, as far as cutting needs to know it.
struct Node {
    // Of the weights that are neither kept nor read by rows, each once.
    std::vector<Range> weights;
    // It picks rows of a weight, and only these are read. It is a segment of its own.
    bool rows = false;
    // It is computed in one with the node before it, so no cut comes between.
    bool fused = false;
    // Of its one weight, if the product may be computed some rows at a time with the same numbers; else 0.
    int64_t split_rows = 0;
};

enum class Kind : uint8_t {
    Run,    // nodes as they are
    Rows,   // one node that picks rows
    Split,  // some rows of the product of one node
};

struct Segment {
    Kind kind;
    int begin;  // nodes
    int end;
    int64_t row_begin = 0;  // of Split
    int64_t row_end = 0;
    std::vector<Range> ranges;  // that the slot must hold, by file and offset
};

// Every other matrix lies whole in a slot: some kernels choose by how many rows there are, so that a part of
// a matrix would give other numbers. They look at less than this.
constexpr int64_t kSplitGrain = 64;

// Bytes of a slot that a range takes: it is read in whole blocks of the disk.
uint64_t slot_bytes(const Range &range);

// Ranges as they are read: rounded to blocks of the disk, those that touch joined, by file and offset.
std::vector<Range> extents_of(const std::vector<Range> &ranges);

// Throws Error(FLOATLLM_ERROR_ENGINE) for a weight that fits no slot of so many bytes.
std::vector<Segment> cut(const std::vector<Node> &nodes, uint64_t slot);

}  // namespace floatllm::stream

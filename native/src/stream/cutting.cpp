#include "stream/cutting.h"

#include <algorithm>

#include "error.h"
#include "layout.h"
#include "os/os.h"

namespace floatllm::stream {

namespace {

bool by_place(const Range &a, const Range &b) {
    return a.file != b.file ? a.file < b.file : a.offset < b.offset;
}

class Cutter {
  public:
    explicit Cutter(uint64_t slot) : slot_(slot) {}

    void add(const std::vector<Node> &nodes, int begin, int end);
    std::vector<Segment> finish(int end) {
        close(end);
        return std::move(segments_);
    }

  private:
    void close(int end);
    void alone(Kind kind, int node);
    void split(const Node &node, int index);
    uint64_t missing(const std::vector<Range> &ranges) const;

    const uint64_t slot_;
    uint64_t used_ = 0;
    Segment open_{Kind::Run, 0, 0, 0, 0, {}};
    std::vector<Segment> segments_;
};

// Bytes that these add to the open segment.
uint64_t Cutter::missing(const std::vector<Range> &ranges) const {
    uint64_t bytes = 0;
    for (const Range &range : ranges) {
        if (std::find(open_.ranges.begin(), open_.ranges.end(), range) == open_.ranges.end()) {
            bytes += slot_bytes(range);
        }
    }
    return bytes;
}

void Cutter::close(int end) {
    open_.end = end;
    if (open_.begin < open_.end) {
        segments_.push_back(std::move(open_));
    }
    open_ = {Kind::Run, end, end, 0, 0, {}};
    used_ = 0;
}

void Cutter::alone(Kind kind, int node) {
    close(node);
    open_.kind = kind;
    close(node + 1);
}

void Cutter::split(const Node &node, int index) {
    const Range &weight = node.weights[0];
    const uint64_t row = weight.size / static_cast<uint64_t>(node.split_rows);
    const uint64_t edges = 2 * os::kDirectAlignment;
    const int64_t step =
        static_cast<int64_t>((slot_ - std::min(slot_, edges)) / row) / kSplitGrain * kSplitGrain;
    if (step == 0) {
        throw Error(FLOATLLM_ERROR_ENGINE,
                    format("%lld rows of a matrix take %s, and a slot holds %s. Give a larger --memory.",
                           static_cast<long long>(kSplitGrain), human_size(kSplitGrain * row + edges).c_str(),
                           human_size(slot_).c_str()));
    }
    close(index);
    for (int64_t begin = 0; begin < node.split_rows; begin += step) {
        const int64_t end = std::min(begin + step, node.split_rows);
        const Range part{weight.file, weight.offset + static_cast<uint64_t>(begin) * row,
                         static_cast<uint64_t>(end - begin) * row};
        segments_.push_back({Kind::Split, index, index + 1, begin, end, {part}});
    }
    open_ = {Kind::Run, index + 1, index + 1, 0, 0, {}};
}

// Nodes that no cut may come between.
void Cutter::add(const std::vector<Node> &nodes, int begin, int end) {
    const Node &first = nodes[static_cast<size_t>(begin)];
    if (first.rows) {
        alone(Kind::Rows, begin);
        return;
    }
    std::vector<Range> wanted;
    for (int i = begin; i < end; ++i) {
        for (const Range &range : nodes[static_cast<size_t>(i)].weights) {
            if (std::find(wanted.begin(), wanted.end(), range) == wanted.end()) {
                wanted.push_back(range);
            }
        }
    }
    uint64_t more = missing(wanted);
    if (more > 0 && used_ + more > slot_) {
        close(begin);
        more = missing(wanted);
    }
    if (more > slot_) {
        if (end == begin + 1 && first.split_rows > 0) {
            split(first, begin);
            return;
        }
        throw Error(FLOATLLM_ERROR_ENGINE,
                    format("Weights that are computed together take %s, and a slot holds %s. Give a larger "
                           "--memory.",
                           human_size(more).c_str(), human_size(slot_).c_str()));
    }
    for (const Range &range : wanted) {
        if (std::find(open_.ranges.begin(), open_.ranges.end(), range) == open_.ranges.end()) {
            open_.ranges.push_back(range);
        }
    }
    used_ += more;
}

}  // namespace

uint64_t slot_bytes(const Range &range) {
    const uint64_t begin = range.offset / os::kDirectAlignment * os::kDirectAlignment;
    return round_up(range.end(), os::kDirectAlignment) - begin;
}

std::vector<Range> extents_of(const std::vector<Range> &ranges) {
    std::vector<Range> sorted = ranges;
    std::sort(sorted.begin(), sorted.end(), by_place);
    std::vector<Range> extents;
    for (const Range &range : sorted) {
        const uint64_t begin = range.offset / os::kDirectAlignment * os::kDirectAlignment;
        const Range extent{range.file, begin, slot_bytes(range)};
        if (!extents.empty() && extents.back().file == extent.file && extents.back().end() >= begin) {
            Range &last = extents.back();
            last.size = std::max(last.end(), extent.end()) - last.offset;
        } else {
            extents.push_back(extent);
        }
    }
    return extents;
}

std::vector<Segment> cut(const std::vector<Node> &nodes, uint64_t slot) {
    Cutter cutter(slot);
    const int count = static_cast<int>(nodes.size());
    for (int begin = 0; begin < count;) {
        int end = begin + 1;
        while (end < count && nodes[static_cast<size_t>(end)].fused) {
            ++end;
        }
        cutter.add(nodes, begin, end);
        begin = end;
    }
    return cutter.finish(count);
}

}  // namespace floatllm::stream

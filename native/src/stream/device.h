// A ggml device whose weights lie in files: it wraps the device that computes, and brings each weight there
// in time.
//
// libllama, or any program on ggml, builds its graphs on it as on any other device. A graph is cut into
// segments. While the wrapped device computes one, readers fill the slots of the next.
#pragma once

#include <mutex>
#include <string>

#include "ggml-backend.h"
#include "stream/kept.h"
#include "stream/ring.h"
#include "stream/weights.h"

namespace floatllm::stream {

struct Limits {
    Io io;
    uint64_t slot_bytes;  // of the ring
    unsigned slots;
    unsigned readers;
};

// Rows of an embedding are read into so much memory at a time.
constexpr uint64_t kRowBytes = uint64_t{1} << 20;

// One for each model; all of its contexts share the ring, the kept weights and the readers.
class Device {
  public:
    // Throws Error(FLOATLLM_ERROR_ENGINE). `base` computes; it must read the host's memory.
    Device(ggml_backend_dev_t base, Files files, const Limits &limits);
    ~Device();
    Device(const Device &) = delete;
    Device &operator=(const Device &) = delete;

    ggml_backend_dev_t handle();
    // Keeps these in memory, read now. Throws as Landing::wait().
    void keep(const std::vector<Range> &ranges) { kept_.add(weights_.files(), ranges, readers_); }
    // What made the last pass on this thread fail, or nothing. It is told once.
    std::string take_failure();

    struct Count {
        uint64_t passes = 0;
        uint64_t cuttings = 0;  // graphs that were cut; the others were known
        uint64_t segments = 0;
        uint64_t splits = 0;  // of these, products of some rows of a matrix
        uint64_t read = 0;    // bytes that passed through the ring
        double waited = 0;    // seconds for the ring
    };
    const Count &count() const { return count_; }
    uint64_t kept_bytes() const { return kept_.bytes(); }

  private:
    friend struct Glue;
    friend class Pass;
    struct Handles;

    // For good: what the weights are is no longer known.
    void fail(const std::string &why);
    bool failed();
    // What is kept is looked up anew, and graphs are cut anew.
    void forget_kept() {
        weights_.forget_kept();
        ++kept_changed_;
    }

    const Limits limits_;
    std::unique_ptr<Handles> handles_;
    std::mutex one_pass_;
    Weights weights_;
    ReadPool readers_;
    Ring ring_;
    Kept kept_;
    uint64_t kept_changed_ = 0;  // how often; what a graph was cut for is then gone
    std::mutex failure_lock_;
    std::string failure_;
    Count count_;
};

}  // namespace floatllm::stream

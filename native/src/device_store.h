// The weights of chunks in a device's own memory: some stay there, the others are uploaded in every pass,
// from memory of the host that holds them or from the disk through it.
#pragma once

#include <memory>
#include <vector>

#include "slot.h"
#include "weights.h"

namespace floatllm {

class DeviceStore : public WeightStore {
  public:
    // Takes all memory, begins to read what the host holds and to upload what comes first.
    DeviceStore(const Plan &plan, const Device &device, const Device *cpu, bool inspect);
    ~DeviceStore() override;

    void begin(bool narrow) override;
    std::vector<ggml_tensor *> acquire(size_t index, ggml_context *context) override;
    const std::optional<ReadPool::Span> &came(size_t) const override { return came_; }
    void release(size_t index) override;
    void restart() override;

  private:
    // Memory of the device, and the tensors of the chunk in it.
    struct Place {
        ggml_backend_buffer_ptr memory;
        ggml_context_ptr context;
        std::vector<ggml_tensor *> tensors;
        ggml_backend_event_ptr uploaded;
        ggml_backend_event_ptr computed;
        bool used = false;  // `computed` was recorded
        bool full = false;  // of a chunk that stays
        std::optional<ReadPool::Span> came;
    };
    // Memory of the host that chunks pass through on their way from the disk.
    struct Staging {
        std::unique_ptr<Slot> slot;
        ggml_backend_event_ptr sent;
    };

    // Until all uploads that were begun are done.
    void settle() const;
    void take_places();
    void take_host_memory();
    ggml_backend_event_ptr new_event() const;
    bool on_host(size_t index) const { return narrow_ && plan_.chunks[index].shared; }
    // Reads the next chunk from the disk into the staging memory whose turn it is.
    void stage();
    Slot &source(size_t index);
    void lay(Place &place, const Chunk &chunk) const;
    // Uploads the next chunk of the order.
    void upload_next();
    // Uploads what there is room for, without waiting for the disk.
    void pump();
    void keep(size_t index);

    const Plan &plan_;
    const Device &device_;
    const Device *cpu_;
    ggml_backend_ptr stream_;  // of uploads; nullptr where the device does not copy while it computes
    std::vector<std::unique_ptr<Place>> kept_;   // by chunk
    std::vector<std::unique_ptr<Slot>> hosted_;  // by chunk
    std::vector<Place> ring_;
    std::vector<Staging> staging_;
    std::vector<bool> sound_;     // by chunk: it was looked at for damage
    std::vector<size_t> order_;   // chunks that are uploaded in a pass
    std::vector<size_t> staged_;  // of these, chunks that come from the disk
    bool narrow_ = false;
    // Since restart(): chunks given to the ring and taken out of it, read into the staging memory and sent.
    size_t uploads_ = 0;
    size_t taken_ = 0;
    size_t reads_ = 0;
    size_t sent_ = 0;
    std::optional<ReadPool::Span> came_;
    std::unique_ptr<ReadPool> pool_;  // last: its threads end before the slots do
};

}  // namespace floatllm

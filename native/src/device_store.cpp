#include "device_store.h"

#include <algorithm>
#include <stdexcept>

#include "chunks.h"
#include "damage.h"
#include "error.h"

namespace floatllm {

std::unique_ptr<WeightStore> open_weights(const Plan &plan, const Device &device, const Device *cpu,
                                          bool inspect) {
    if (device.maps_host()) {
        return std::make_unique<ChunkStore>(plan, device, inspect);
    }
    return std::make_unique<DeviceStore>(plan, device, cpu, inspect);
}

DeviceStore::DeviceStore(const Plan &plan, const Device &device, const Device *cpu, bool inspect)
    : plan_(plan), device_(device), cpu_(cpu) {
    kept_.resize(plan.chunks.size());
    hosted_.resize(plan.chunks.size());
    sound_.resize(plan.chunks.size(), !inspect);
    if (plan.device.overlaps && plan.slots > 1) {
        stream_.reset(ggml_backend_dev_init(device.handle(), nullptr));
        if (stream_ == nullptr) {
            throw Error(FLOATLLM_ERROR_ENGINE, format("%s gave no second stream to upload on.",
                                                      ggml_backend_dev_name(device.handle())));
        }
    }
    pool_ = std::make_unique<ReadPool>(kReaders);
    take_places();
    take_host_memory();
    try {
        begin(false);
    } catch (...) {
        // Nothing is freed while it is copied from.
        settle();
        throw;
    }
}

DeviceStore::~DeviceStore() {
    pool_.reset();
    settle();
}

void DeviceStore::settle() const {
    if (stream_ != nullptr) {
        ggml_backend_synchronize(stream_.get());
    }
}

ggml_backend_event_ptr DeviceStore::new_event() const {
    if (stream_ == nullptr) {
        return nullptr;
    }
    ggml_backend_event_ptr event(ggml_backend_event_new(device_.handle()));
    if (event == nullptr) {
        throw Error(FLOATLLM_ERROR_ENGINE,
                    format("%s gave no event to order uploads by.", ggml_backend_dev_name(device_.handle())));
    }
    return event;
}

void DeviceStore::take_places() {
    for (size_t i = 0; i < plan_.chunks.size(); ++i) {
        const Chunk &chunk = plan_.chunks[i];
        if (chunk.pinned) {
            kept_[i] = std::make_unique<Place>();
            kept_[i]->memory = device_.allocate(chunk.device_bytes, "weights");
            ggml_backend_buffer_set_usage(kept_[i]->memory.get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
        }
    }
    for (uint32_t i = 0; i < plan_.slots; ++i) {
        Place place;
        place.memory = device_.allocate(ring_slot_bytes(plan_), "a chunk of weights");
        // With this usage CUDA clears the padding behind a tensor when it computes, in its stream's order,
        // instead of now, when another chunk's bytes may still be read there.
        ggml_backend_buffer_set_usage(place.memory.get(), GGML_BACKEND_BUFFER_USAGE_COMPUTE);
        place.uploaded = new_event();
        place.computed = new_event();
        ring_.push_back(std::move(place));
    }
}

void DeviceStore::take_host_memory() {
    for (size_t i = 0; i < plan_.chunks.size(); ++i) {
        const Chunk &chunk = plan_.chunks[i];
        if (chunk.hosted) {
            hosted_[i] =
                std::make_unique<Slot>(plan_, cpu_, device_.pinned(staging_bytes(chunk.mapped_bytes)));
            hosted_[i]->load(chunk, *pool_, !sound_[i]);
        }
    }
    const uint64_t size = staging_slot_bytes(plan_);
    for (uint32_t i = 0; i < plan_.staging_slots && size > 0; ++i) {
        staging_.push_back({std::make_unique<Slot>(plan_, nullptr, device_.pinned(size)), new_event()});
    }
}

void DeviceStore::begin(bool narrow) {
    std::vector<size_t> order;
    for (size_t i = 0; i < plan_.chunks.size(); ++i) {
        if (!plan_.chunks[i].pinned && !(narrow && plan_.chunks[i].shared)) {
            order.push_back(i);
        }
    }
    narrow_ = narrow;
    if (order == order_) {
        return;
    }
    order_ = std::move(order);
    staged_.clear();
    std::copy_if(order_.begin(), order_.end(), std::back_inserter(staged_),
                 [this](size_t i) { return hosted_[i] == nullptr; });
    restart();
}

void DeviceStore::restart() {
    settle();
    device_.wait();
    uploads_ = taken_ = reads_ = sent_ = 0;
    for (size_t i = 0; i < hosted_.size(); ++i) {
        if (hosted_[i] != nullptr && hosted_[i]->failed()) {
            hosted_[i]->load(plan_.chunks[i], *pool_, !sound_[i]);
        }
    }
    for (size_t i = 0; i < staging_.size() && !staged_.empty(); ++i) {
        stage();
    }
    pump();
}

void DeviceStore::stage() {
    Staging &staging = staging_[reads_ % staging_.size()];
    const size_t index = staged_[reads_ % staged_.size()];
    const bool sending = reads_ >= staging_.size() && stream_ != nullptr;
    ggml_backend_event_t sent = sending ? staging.sent.get() : nullptr;
    staging.slot->load(plan_.chunks[index], *pool_, !sound_[index], [sent] {
        if (sent != nullptr) {
            ggml_backend_event_synchronize(sent);
        }
    });
    ++reads_;
}

Slot &DeviceStore::source(size_t index) {
    return hosted_[index] != nullptr ? *hosted_[index] : *staging_[sent_ % staging_.size()].slot;
}

void DeviceStore::lay(Place &place, const Chunk &chunk) const {
    place.context.reset(ggml_init({ggml_tensor_overhead() * chunk.parts.size(), nullptr, true}));
    place.tensors.clear();
    char *address = static_cast<char *>(ggml_backend_buffer_get_base(place.memory.get()));
    for (const Part &part : chunk.parts) {
        place.tensors.push_back(
            part_tensor(place.context.get(), plan_.model->tensors()[static_cast<size_t>(part.tensor)], part));
        floatllm::place(place.memory.get(), place.tensors.back(), address);
        address += round_up(part.size + plan_.device.tensor_slack, plan_.device.alignment);
    }
}

void DeviceStore::upload_next() {
    const size_t index = order_[uploads_ % order_.size()];
    const Chunk &chunk = plan_.chunks[index];
    Slot &from = source(index);
    from.wait();
    sound_[index] = true;
    Place &place = ring_[uploads_ % ring_.size()];
    lay(place, chunk);
    if (stream_ != nullptr && place.used) {
        ggml_backend_event_wait(stream_.get(), place.computed.get());
    }
    for (size_t i = 0; i < chunk.parts.size(); ++i) {
        const size_t size = static_cast<size_t>(chunk.parts[i].size);
        if (stream_ != nullptr) {
            ggml_backend_tensor_set_async(stream_.get(), place.tensors[i], from.address(chunk.parts[i]), 0,
                                          size);
        } else {
            ggml_backend_tensor_set(place.tensors[i], from.address(chunk.parts[i]), 0, size);
        }
    }
    if (stream_ != nullptr) {
        ggml_backend_event_record(place.uploaded.get(), stream_.get());
    }
    ++uploads_;
    if (hosted_[index] == nullptr) {
        place.came = from.span();
        if (stream_ != nullptr) {
            ggml_backend_event_record(staging_[sent_ % staging_.size()].sent.get(), stream_.get());
        }
        ++sent_;
        stage();
    }
}

void DeviceStore::pump() {
    while (stream_ != nullptr && !order_.empty() && uploads_ < taken_ + ring_.size()) {
        const Slot &next = source(order_[uploads_ % order_.size()]);
        // What failed is told by acquire(), to the pass that needs it.
        if (!next.ready() || next.failed()) {
            return;
        }
        upload_next();
    }
}

// Through windows of the file: it is done once.
void DeviceStore::keep(size_t index) {
    const Chunk &chunk = plan_.chunks[index];
    const auto began = std::chrono::steady_clock::now();
    lay(*kept_[index], chunk);
    const uint64_t grain = plan_.device.granularity;
    for (size_t i = 0; i < chunk.parts.size(); ++i) {
        const Part &part = chunk.parts[i];
        const Tensor &tensor = plan_.model->tensors()[static_cast<size_t>(part.tensor)];
        const uint64_t block = ggml_type_size(tensor.type);
        for (uint64_t done = 0; done < part.size;) {
            const uint64_t begin = (part.offset + done) / grain * grain;
            const uint64_t skip = part.offset + done - begin;
            const uint64_t step = std::min(part.size - done, (kStagingWindow - skip) / block * block);
            const os::Mapping window(plan_.model->file(part.file), begin, static_cast<size_t>(skip + step));
            window.populate(0, window.size());
            const char *bytes = static_cast<const char *>(window.data()) + skip;
            if (!sound_[index]) {
                require_sound(*plan_.model, tensor, part.offset + done, bytes, step);
            }
            ggml_backend_tensor_set(kept_[index]->tensors[i], bytes, static_cast<size_t>(done),
                                    static_cast<size_t>(step));
            window.require_intact();
            done += step;
        }
    }
    sound_[index] = kept_[index]->full = true;
    came_ = ReadPool::Span{began, std::chrono::steady_clock::now()};
}

std::vector<ggml_tensor *> DeviceStore::acquire(size_t index, ggml_context *context) {
    came_.reset();
    if (kept_[index] != nullptr) {
        if (!kept_[index]->full) {
            keep(index);
        }
        return kept_[index]->tensors;
    }
    if (on_host(index)) {
        std::vector<ggml_tensor *> tensors = hosted_[index]->bind(context);
        sound_[index] = true;
        return tensors;
    }
    if (order_[taken_ % order_.size()] != index) {
        throw std::logic_error("chunks came out of their order; this is a defect of FloatLLM");
    }
    while (uploads_ <= taken_) {
        upload_next();
    }
    Place &place = ring_[taken_ % ring_.size()];
    std::swap(came_, place.came);
    if (stream_ != nullptr) {
        ggml_backend_event_wait(device_.stream(), place.uploaded.get());
    }
    return place.tensors;
}

void DeviceStore::release(size_t index) {
    if (kept_[index] == nullptr && !on_host(index)) {
        Place &place = ring_[taken_ % ring_.size()];
        if (stream_ != nullptr) {
            ggml_backend_event_record(place.computed.get(), device_.stream());
            place.used = true;
        }
        ++taken_;
    }
    pump();
}

}  // namespace floatllm

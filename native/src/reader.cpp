#include "reader.h"

#include <algorithm>
#include <system_error>

#include "error.h"

namespace floatllm {

void ReadPool::Batch::wait() {
    std::unique_lock<std::mutex> held(lock_);
    done_.wait(held, [this] { return open_ == 0; });
    if (error_) {
        std::rethrow_exception(error_);
    }
}

bool ReadPool::Batch::done() {
    const std::lock_guard<std::mutex> held(lock_);
    return open_ == 0;
}

bool ReadPool::Batch::failed() {
    const std::lock_guard<std::mutex> held(lock_);
    return open_ == 0 && error_ != nullptr;
}

ReadPool::ReadPool(unsigned threads) {
    try {
        for (unsigned i = 0; i < threads; ++i) {
            threads_.emplace_back([this] { work(); });
        }
    } catch (const std::system_error &reason) {
        // Fewer readers are slower; none cannot read.
        if (threads_.empty()) {
            throw Error(
                FLOATLLM_ERROR_ENGINE,
                format("Cannot start a thread to read with: %s. Raise the limit on processes or on address "
                       "space (ulimit -u, ulimit -v).",
                       reason.what()));
        }
    }
}

ReadPool::~ReadPool() {
    std::deque<Item> dropped;
    {
        const std::lock_guard<std::mutex> held(lock_);
        stopping_ = true;
        dropped.swap(queue_);
    }
    // Whoever waits for these must not wait for ever.
    for (const Item &item : dropped) {
        finish(*item.batch, std::chrono::steady_clock::now(),
               std::make_exception_ptr(Error(FLOATLLM_ERROR_ENGINE, "Stopped.")));
    }
    more_.notify_all();
    for (std::thread &thread : threads_) {
        thread.join();
    }
}

std::shared_ptr<ReadPool::Batch> ReadPool::submit(std::vector<Task> tasks) {
    auto batch = std::make_shared<Batch>();
    batch->open_ = tasks.size();
    {
        const std::lock_guard<std::mutex> held(lock_);
        for (Task &task : tasks) {
            queue_.push_back({std::move(task), batch});
        }
    }
    more_.notify_all();
    return batch;
}

void ReadPool::work() {
    while (true) {
        Item item;
        std::chrono::steady_clock::time_point began;
        {
            std::unique_lock<std::mutex> held(lock_);
            more_.wait(held, [this] { return stopping_ || !queue_.empty(); });
            if (stopping_) {
                return;
            }
            item = std::move(queue_.front());
            queue_.pop_front();
            // Under the lock, so that batches begin in the order of submission.
            began = std::chrono::steady_clock::now();
        }
        std::exception_ptr error;
        try {
            item.task();
        } catch (...) {
            error = std::current_exception();
        }
        finish(*item.batch, began, error);
    }
}

void ReadPool::finish(Batch &batch, std::chrono::steady_clock::time_point began, std::exception_ptr error) {
    const std::lock_guard<std::mutex> held(batch.lock_);
    if (error && !batch.error_) {
        batch.error_ = error;
    }
    batch.span_.began = batch.begun_ ? std::min(batch.span_.began, began) : began;
    batch.begun_ = true;
    if (--batch.open_ == 0) {
        batch.span_.ended = std::chrono::steady_clock::now();
        batch.done_.notify_all();
    }
}

}  // namespace floatllm

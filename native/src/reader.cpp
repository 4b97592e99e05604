#include "reader.h"

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
    {
        const std::lock_guard<std::mutex> held(lock_);
        stopping_ = true;
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
        {
            std::unique_lock<std::mutex> held(lock_);
            more_.wait(held, [this] { return stopping_ || !queue_.empty(); });
            if (stopping_) {
                return;
            }
            item = std::move(queue_.front());
            queue_.pop_front();
        }
        std::exception_ptr error;
        try {
            item.task();
        } catch (...) {
            error = std::current_exception();
        }
        const std::lock_guard<std::mutex> held(item.batch->lock_);
        if (error && !item.batch->error_) {
            item.batch->error_ = error;
        }
        if (--item.batch->open_ == 0) {
            item.batch->done_.notify_all();
        }
    }
}

}  // namespace floatllm

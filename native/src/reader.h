// Threads that read ahead.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace floatllm {

// Runs tasks on a few threads, in the order of submission. Tasks wait on a disk, not on a CPU, so there
// may be more threads than CPUs: their number is the disk's queue depth.
class ReadPool {
  public:
    using Task = std::function<void()>;

    // From when a thread turned to the first of some tasks until the last was done.
    struct Span {
        std::chrono::steady_clock::time_point began;
        std::chrono::steady_clock::time_point ended;
    };

    // Tasks submitted together. wait() returns when all are done, and throws the first one's exception.
    class Batch {
      public:
        void wait();
        bool done();
        // Done, and wait() throws.
        bool failed();
        // Behind wait() only.
        Span span() const { return span_; }

      private:
        friend class ReadPool;
        std::mutex lock_;
        std::condition_variable done_;
        size_t open_ = 0;
        bool begun_ = false;
        Span span_;
        std::exception_ptr error_;
    };

    explicit ReadPool(unsigned threads);
    // Drops tasks that have not begun and waits for those that have.
    ~ReadPool();
    ReadPool(const ReadPool &) = delete;
    ReadPool &operator=(const ReadPool &) = delete;

    std::shared_ptr<Batch> submit(std::vector<Task> tasks);

  private:
    struct Item {
        Task task;
        std::shared_ptr<Batch> batch;
    };
    void work();
    static void finish(Batch &batch, std::chrono::steady_clock::time_point began, std::exception_ptr error);

    std::mutex lock_;
    std::condition_variable more_;
    std::deque<Item> queue_;
    bool stopping_ = false;
    std::vector<std::thread> threads_;
};

}  // namespace floatllm

// TCP over IPv4, as far as the engine itself speaks it: every step has a deadline.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>

namespace floatllm::os {

struct Address {
    uint32_t host = 0;  // 127.0.0.1 is 0x7f000001
    uint16_t port = 0;

    bool loopback() const { return host >> 24 == 127; }
    // "127.0.0.1:50052"
    std::string text() const;
};

// The first IPv4 address of a name or dotted number. Throws Error(FLOATLLM_ERROR_ENGINE).
uint32_t resolve(const std::string &host);

class Connection {
  public:
    using Deadline = std::chrono::steady_clock::time_point;

    // These throw Error(FLOATLLM_ERROR_ENGINE) with the mere reason, such as "connection refused", for the
    // caller to put into a sentence.
    Connection(const Address &address, Deadline deadline);
    ~Connection();
    Connection(const Connection &) = delete;
    Connection &operator=(const Connection &) = delete;
    void send(const void *data, size_t size);
    void receive(void *data, size_t size);

  private:
    void wait(bool writing) const;

    intptr_t handle_;
    Deadline deadline_;
};

// Throws Error(FLOATLLM_ERROR_ENGINE), with the mere reason, where nobody can listen at `address`.
void require_free(const Address &address);

// Makes the system notice, within a minute, where the machine at the other end of a connection to `address`
// has gone without a word; any connection of this process, whoever opened it. Does nothing on Windows.
void watch_connections(const Address &address);

}  // namespace floatllm::os

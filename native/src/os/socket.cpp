#include "os/socket.h"

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <winsock2.h>
#include <ws2tcpip.h>
#else
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#endif

#include <algorithm>
#include <cstring>
#include <string>
#include <system_error>

#include "error.h"

namespace floatllm::os {

namespace {

#if defined(_WIN32)
using Handle = SOCKET;
using Length = int;
constexpr Handle kNone = INVALID_SOCKET;
constexpr int kSendFlags = 0;

int last_error() { return WSAGetLastError(); }
bool must_wait(int code) { return code == WSAEWOULDBLOCK || code == WSAEINPROGRESS; }
void close_handle(Handle handle) { closesocket(handle); }
int poll_one(pollfd *entry, int milliseconds) { return WSAPoll(entry, 1, milliseconds); }

bool set_nonblocking(Handle handle) {
    u_long on = 1;
    return ioctlsocket(handle, FIONBIO, &on) == 0;
}

void start_sockets() {
    static const bool started = [] {
        WSADATA data;
        return WSAStartup(MAKEWORD(2, 2), &data) == 0;
    }();
    (void)started;
}
#else
using Handle = int;
using Length = size_t;
constexpr Handle kNone = -1;
#if defined(MSG_NOSIGNAL)
constexpr int kSendFlags = MSG_NOSIGNAL;
#else
constexpr int kSendFlags = 0;
#endif

int last_error() { return errno; }
bool must_wait(int code) {
    return code == EINPROGRESS || code == EAGAIN || code == EWOULDBLOCK || code == EINTR;
}
void close_handle(Handle handle) { close(handle); }
int poll_one(pollfd *entry, int milliseconds) { return poll(entry, 1, milliseconds); }
bool set_nonblocking(Handle handle) {
    return fcntl(handle, F_SETFL, fcntl(handle, F_GETFL, 0) | O_NONBLOCK) == 0;
}
void start_sockets() {}
#endif

[[noreturn]] void fail(int code) {
    std::string why = std::system_category().message(code);
    while (!why.empty() && (why.back() == '.' || why.back() == '\n' || why.back() == '\r')) {
        why.pop_back();
    }
    throw Error(FLOATLLM_ERROR_ENGINE, why);
}

sockaddr_in native(const Address &address) {
    sockaddr_in out{};
    out.sin_family = AF_INET;
    out.sin_addr.s_addr = htonl(address.host);
    out.sin_port = htons(address.port);
    return out;
}

Handle open_socket() {
    start_sockets();
    const Handle handle = socket(AF_INET, SOCK_STREAM, 0);
    if (handle == kNone) {
        fail(last_error());
    }
    return handle;
}

template <typename Value>
bool set(Handle handle, int level, int name, Value value) {
    return setsockopt(handle, level, name, reinterpret_cast<const char *>(&value), sizeof value) == 0;
}

}  // namespace

std::string Address::text() const {
    return format("%u.%u.%u.%u:%u", host >> 24, host >> 16 & 255, host >> 8 & 255, host & 255, port);
}

uint32_t resolve(const std::string &host) {
    start_sockets();
    addrinfo wanted{};
    wanted.ai_family = AF_INET;
    wanted.ai_socktype = SOCK_STREAM;
    addrinfo *found = nullptr;
    const int code = getaddrinfo(host.c_str(), nullptr, &wanted, &found);
    if (code != 0 || found == nullptr) {
        throw Error(FLOATLLM_ERROR_ENGINE,
                    format("There is no IPv4 address for %s (%s). Check the name, or give the number.",
                           host.c_str(), gai_strerror(code)));
    }
    sockaddr_in first{};
    std::memcpy(&first, found->ai_addr, std::min<size_t>(sizeof first, found->ai_addrlen));
    freeaddrinfo(found);
    return ntohl(first.sin_addr.s_addr);
}

Connection::Connection(const Address &address, Deadline deadline)
    : handle_(static_cast<intptr_t>(open_socket())), deadline_(deadline) {
    const Handle handle = static_cast<Handle>(handle_);
    try {
#if defined(SO_NOSIGPIPE)
        set(handle, SOL_SOCKET, SO_NOSIGPIPE, 1);
#endif
        const sockaddr_in to = native(address);
        if (!set_nonblocking(handle)) {
            fail(last_error());
        }
        if (connect(handle, reinterpret_cast<const sockaddr *>(&to), sizeof to) == 0) {
            return;
        }
        if (!must_wait(last_error())) {
            fail(last_error());
        }
        wait(true);
        int code = 0;
        socklen_t size = sizeof code;
        if (getsockopt(handle, SOL_SOCKET, SO_ERROR, reinterpret_cast<char *>(&code), &size) != 0 ||
            code != 0) {
            fail(code != 0 ? code : last_error());
        }
    } catch (...) {
        close_handle(handle);
        throw;
    }
}

Connection::~Connection() { close_handle(static_cast<Handle>(handle_)); }

void Connection::wait(bool writing) const {
    using std::chrono::milliseconds;
    for (;;) {
        const auto left =
            std::chrono::duration_cast<milliseconds>(deadline_ - std::chrono::steady_clock::now());
        if (left.count() <= 0) {
            throw Error(FLOATLLM_ERROR_ENGINE, "no answer in time");
        }
        pollfd entry{};
        entry.fd = static_cast<Handle>(handle_);
        entry.events = writing ? POLLOUT : POLLIN;
        const int ready = poll_one(&entry, static_cast<int>(left.count()));
        if (ready > 0) {
            return;
        }
        if (ready < 0 && !must_wait(last_error())) {
            fail(last_error());
        }
    }
}

void Connection::send(const void *data, size_t size) {
    const char *from = static_cast<const char *>(data);
    while (size > 0) {
        wait(true);
        const auto sent = ::send(static_cast<Handle>(handle_), from, static_cast<Length>(size), kSendFlags);
        if (sent >= 0) {
            from += sent;
            size -= static_cast<size_t>(sent);
        } else if (!must_wait(last_error())) {
            fail(last_error());
        }
    }
}

void Connection::receive(void *data, size_t size) {
    char *to = static_cast<char *>(data);
    while (size > 0) {
        wait(false);
        const auto got = recv(static_cast<Handle>(handle_), to, static_cast<Length>(size), 0);
        if (got == 0) {
            throw Error(FLOATLLM_ERROR_ENGINE, "it closed the connection");
        }
        if (got > 0) {
            to += got;
            size -= static_cast<size_t>(got);
        } else if (!must_wait(last_error())) {
            fail(last_error());
        }
    }
}

void require_free(const Address &address) {
    const Handle handle = open_socket();
#if !defined(_WIN32)
    // As ggml does, for connections that have just ended; on Windows it would let two listen at once.
    set(handle, SOL_SOCKET, SO_REUSEADDR, 1);
#endif
    const sockaddr_in at = native(address);
    const bool fits =
        bind(handle, reinterpret_cast<const sockaddr *>(&at), sizeof at) == 0 && listen(handle, 1) == 0;
    const int code = fits ? 0 : last_error();
    close_handle(handle);
    if (!fits) {
        fail(code);
    }
}

void watch_connections(const Address &address) {
#if defined(_WIN32)
    (void)address;
#else
    const long limit = std::min(sysconf(_SC_OPEN_MAX), 4096L);
    for (int handle = 3; handle < limit; ++handle) {
        sockaddr_in peer{};
        socklen_t size = sizeof peer;
        if (getpeername(handle, reinterpret_cast<sockaddr *>(&peer), &size) != 0 ||
            peer.sin_family != AF_INET || peer.sin_addr.s_addr != htonl(address.host) ||
            peer.sin_port != htons(address.port)) {
            continue;
        }
        set(handle, SOL_SOCKET, SO_KEEPALIVE, 1);
#if defined(TCP_KEEPIDLE)
        set(handle, IPPROTO_TCP, TCP_KEEPIDLE, 15);
        set(handle, IPPROTO_TCP, TCP_KEEPINTVL, 5);
        set(handle, IPPROTO_TCP, TCP_KEEPCNT, 6);
#elif defined(TCP_KEEPALIVE)
        set(handle, IPPROTO_TCP, TCP_KEEPALIVE, 15);
#endif
#if defined(TCP_USER_TIMEOUT)
        // Of bytes that are on their way, for which nothing is kept alive.
        set(handle, IPPROTO_TCP, TCP_USER_TIMEOUT, 45000u);
#endif
    }
#endif
}

}  // namespace floatllm::os

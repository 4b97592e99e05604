#include "rpc.h"

#include <array>
#include <cctype>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "device.h"
#include "error.h"
#include "ggml-rpc.h"
#include "log.h"
#include "os/socket.h"

namespace floatllm {

namespace {

constexpr auto kPatience = std::chrono::seconds(5);
// More than any machine has; a number beyond it is another protocol's.
constexpr uint32_t kMostDevices = 64;

std::mutex g_lock;
std::map<std::string, std::weak_ptr<const RpcLink>> g_links;  // by endpoint, of every server that was added
floatllm_abort_fn g_stop = nullptr;
void *g_stop_user = nullptr;

// ggml tells neither which server nor what to do, and ends the process when this returns.
void before_abort(const char *message) {
    std::string text = message;
    if (text.find("Remote RPC server") != std::string::npos) {
        // One that is in use, or else one that just was to be.
        std::string used;
        std::string all;
        for (const auto &[endpoint, link] : g_links) {
            std::string &servers = link.expired() ? all : used;
            servers += (servers.empty() ? "" : " or ") + endpoint;
        }
        const std::string servers = used.empty() ? all : used;
        text =
            "The RPC server at " + servers +
            " was lost while it was in use, or answered what it should not. See what became of it, start it "
            "again, and repeat the command.";
    } else {
        const std::string said = last_error();
        text =
            "ggml gave up" + (said.empty() ? "" : ": " + said) + " (" + text +
            "). Where a device ran out of memory, free some there or give a smaller --device-memory; where "
            "it was lost, see its driver's log; --device CPU computes without it.";
    }
    if (g_stop == nullptr) {
        std::fprintf(stderr, "floatllm: %s\n", text.c_str());
        return;
    }
    // On a thread of its own: a signal may have come to this one, and an interpreter would first do what that
    // asks for.
    std::thread([&text] { g_stop(text.c_str(), g_stop_user); }).join();
}

os::Address parse(const std::string &endpoint) {
    const size_t colon = endpoint.find(':');
    const std::string port = colon == std::string::npos ? "" : endpoint.substr(colon + 1);
    unsigned number = 0;
    for (const char digit : port) {
        const bool fits = std::isdigit(static_cast<unsigned char>(digit)) != 0 && number <= UINT16_MAX;
        number = fits ? number * 10 + static_cast<unsigned>(digit - '0') : UINT16_MAX + 1u;
    }
    const bool cut = endpoint.find('\0') != std::string::npos;
    if (cut || colon == 0 || number == 0 || number > UINT16_MAX) {
        throw Error(FLOATLLM_ERROR_USAGE,
                    format("%s is not the address of an RPC server: give HOST:PORT, with a name or an IPv4 "
                           "number and a port from 1 to 65535, such as 192.168.1.5:50052.",
                           endpoint.empty() ? "The empty text" : endpoint.c_str()));
    }
    os::Address address;
    address.host = os::resolve(endpoint.substr(0, colon));
    address.port = static_cast<uint16_t>(number);
    return address;
}

template <typename Function>
Function *rpc_function(const char *name) {
    ggml_backend_reg_t rpc = ggml_backend_reg_by_name("RPC");
    void *found = rpc == nullptr ? nullptr : ggml_backend_reg_get_proc_address(rpc, name);
    if (found == nullptr) {
        throw Error(FLOATLLM_ERROR_MISSING,
                    "This engine was built without ggml's RPC backend. Build it with -DGGML_RPC=ON, as every "
                    "preset does.");
    }
    return reinterpret_cast<Function *>(found);
}

template <typename Answer>
Answer ask(os::Connection &server, uint8_t command, const std::vector<uint8_t> &request) {
    const uint64_t size = request.size();
    std::vector<uint8_t> bytes(1 + sizeof size);
    bytes[0] = command;
    std::memcpy(&bytes[1], &size, sizeof size);
    bytes.insert(bytes.end(), request.begin(), request.end());
    server.send(bytes.data(), bytes.size());
    uint64_t answered = 0;
    server.receive(&answered, sizeof answered);
    Answer answer;
    if (answered != sizeof answer) {
        throw Error(FLOATLLM_ERROR_ENGINE, "it does not speak this protocol");
    }
    server.receive(&answer, sizeof answer);
    return answer;
}

// Says hello as ggml does. Its client waits for ever where nobody answers, and aborts at a wrong answer.
void try_server(const os::Address &address) {
    constexpr uint8_t kHello = 14;
    constexpr uint8_t kDeviceCount = 15;
    constexpr size_t kCapabilities = 24;
    struct Hello {
        uint8_t major, minor, patch, padding;
        std::array<uint8_t, kCapabilities> capabilities;
    };
    const std::string at = address.text();
    const std::string protocol = format("%d.%d", RPC_PROTO_MAJOR_VERSION, RPC_PROTO_MINOR_VERSION);
    try {
        os::Connection server(address, os::Connection::Deadline::clock::now() + kPatience);
        const auto hello = ask<Hello>(server, kHello, std::vector<uint8_t>(kCapabilities));
        if (hello.major != RPC_PROTO_MAJOR_VERSION || hello.minor > RPC_PROTO_MINOR_VERSION) {
            throw Error(FLOATLLM_ERROR_ENGINE,
                        format("it speaks version %d.%d of it", hello.major, hello.minor));
        }
        const auto devices = ask<uint32_t>(server, kDeviceCount, {});
        if (devices == 0 || devices > kMostDevices) {
            throw Error(FLOATLLM_ERROR_ENGINE, format("it names %u devices", devices));
        }
    } catch (const Error &e) {
        throw Error(
            FLOATLLM_ERROR_ENGINE,
            format("There is no server of ggml's RPC protocol %s at %s: %s. Start one there with "
                   "`floatllm rpc-server`, of the same version; a server serves one client at a time.",
                   protocol.c_str(), at.c_str(), e.what()));
    }
}

}  // namespace

bool is_remote(ggml_backend_dev_t device) {
    ggml_backend_reg_t backend = ggml_backend_dev_backend_reg(device);
    return backend != nullptr && std::strcmp(ggml_backend_reg_name(backend), "RPC") == 0;
}

void add_rpc_server(const std::string &endpoint) {
    auto *add = rpc_function<decltype(ggml_backend_rpc_add_server)>("ggml_backend_rpc_add_server");
    const os::Address address = parse(endpoint);
    const std::lock_guard<std::mutex> held(g_lock);
    // Asked again, a server that serves this very process would not answer.
    if (g_links.count(address.text()) > 0) {
        return;
    }
    try_server(address);
    ggml_set_abort_callback(before_abort);
    g_links[address.text()];
    ggml_backend_reg_t server = add(address.text().c_str());
    if (server == nullptr) {
        g_links.erase(address.text());
        throw Error(FLOATLLM_ERROR_ENGINE,
                    format("The RPC server at %s was lost. Start it again.", address.text().c_str()));
    }
    ggml_backend_register(server);
}

void serve_rpc(const std::string &endpoint, const std::string &device, const char *cache, unsigned threads) {
    auto *start = rpc_function<decltype(ggml_backend_rpc_start_server)>("ggml_backend_rpc_start_server");
    const os::Address address = parse(endpoint);
    std::vector<ggml_backend_dev_t> devices;
    if (!device.empty()) {
        devices.push_back(find_device(device));
        if (is_remote(devices.front())) {
            throw Error(FLOATLLM_ERROR_USAGE,
                        format("%s belongs to another server. Serve it from there.", device.c_str()));
        }
    }
    for (size_t i = 0; device.empty() && i < ggml_backend_dev_count(); ++i) {
        ggml_backend_dev_t each = ggml_backend_dev_get(i);
        const auto type = ggml_backend_dev_type(each);
        if (!is_remote(each) &&
            (type == GGML_BACKEND_DEVICE_TYPE_GPU || type == GGML_BACKEND_DEVICE_TYPE_IGPU)) {
            devices.push_back(each);
        }
    }
    if (devices.empty()) {
        devices.push_back(find_device("CPU"));
    }
    try {
        os::require_free(address);
    } catch (const Error &e) {
        throw Error(FLOATLLM_ERROR_ENGINE,
                    format("Cannot listen at %s: %s. Give another --port, or a --host of this machine.",
                           address.text().c_str(), e.what()));
    }
    start(address.text().c_str(), cache, threads, devices.size(), devices.data());
    throw Error(FLOATLLM_ERROR_ENGINE,
                format("The RPC server at %s ended: a device could not be opened, or no "
                       "connection be taken. Its own lines say which.",
                       address.text().c_str()));
}

std::shared_ptr<const RpcLink> RpcLink::to(ggml_backend_dev_t device) {
    if (!is_remote(device)) {
        return nullptr;
    }
    const std::lock_guard<std::mutex> held(g_lock);
    std::weak_ptr<const RpcLink> &known = g_links[ggml_backend_dev_description(device)];
    auto link = known.lock();
    if (link == nullptr) {
        link = std::shared_ptr<const RpcLink>(new RpcLink(device));
        known = link;
    }
    return link;
}

RpcLink::RpcLink(ggml_backend_dev_t device) : device_(device) {
    const os::Address address = parse(ggml_backend_dev_description(device));
    try_server(address);
    ggml_backend_buffer_type_t type = ggml_backend_dev_buffer_type(device);
    held_ = type == nullptr ? nullptr : ggml_backend_buft_alloc_buffer(type, 64);
    if (held_ == nullptr) {
        throw Error(FLOATLLM_ERROR_ENGINE,
                    format("%s has no memory left for anything. Restart the server at %s.",
                           ggml_backend_dev_name(device), address.text().c_str()));
    }
    os::watch_connections(address);
}

RpcLink::~RpcLink() { ggml_backend_buffer_free(held_); }

// Answers come in the order of what was asked; computing alone has none of its own.
void RpcLink::wait() const {
    size_t free = 0;
    size_t total = 0;
    ggml_backend_dev_memory(device_, &free, &total);
}

void set_abort(floatllm_abort_fn stop, void *user) {
    g_stop = stop;
    g_stop_user = user;
    ggml_set_abort_callback(before_abort);
}

}  // namespace floatllm

"""A sentence for whatever goes wrong with ggml's RPC: no server, another's, one that is lost or hangs."""

from __future__ import annotations

import json
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest
from installed import Installed
from serving import PATIENCE, Server, free_port, serving

# What a server of this engine's protocol answers to hello, and to how many devices it has.
_HELLO = struct.pack("<Q4B24x", 28, 8, 0, 0, 0)
_ONE_DEVICE = struct.pack("<QI", 4, 1)


@pytest.fixture(scope="module")
def server(engine: Installed) -> Iterator[Server]:
    """One that every test may use, one after the other."""
    with serving(engine) as running:
        yield running


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "here",
        ":50052",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "127.0.0.1:1x",
        "::1:9",
    ],
)
def test_what_is_no_address_is_a_usage_error(engine: Installed, endpoint: str) -> None:
    done = engine.run("devices", f"--rpc={endpoint}")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{endpoint or 'The empty text'} is not the address of an RPC server" in done.stderr
    assert done.stderr.count("\n") == 1


@dataclass(frozen=True)
class Impostor:
    """Something that is no server; `silent` is set when it begins to say nothing."""

    endpoint: str
    silent: threading.Event


def _take_request(client: socket.socket) -> None:
    """A command's byte, its size, and so many bytes."""
    (size,) = struct.unpack("<xQ", client.recv(9, socket.MSG_WAITALL))
    client.recv(size, socket.MSG_WAITALL)


@contextmanager
def _answering(*connections: Sequence[bytes | None]) -> Iterator[Impostor]:
    """Takes so many connections, gives each its answers and closes it; at None it falls silent."""
    silent, done = threading.Event(), threading.Event()

    def answer() -> None:
        for answers in connections:
            client, _ = listener.accept()
            with client:
                for each in answers:
                    if each is None:
                        silent.set()
                        done.wait(PATIENCE)
                        return
                    _take_request(client)
                    client.sendall(each)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        thread = threading.Thread(target=answer)
        thread.start()
        yield Impostor(f"127.0.0.1:{listener.getsockname()[1]}", silent)
        done.set()
        thread.join()


_OTHER_VERSION = struct.pack("<Q4B24x", 28, 3, 5, 1, 0)
_NEWER_VERSION = struct.pack("<Q4B24x", 28, 8, 9, 1, 0)


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ((None,), "no answer in time"),
        ((b"",), "it closed the connection"),
        ((b"HTTP/1.1 400 Bad Request\r\n\r\n",), "it does not speak this protocol"),
        ((_HELLO[:20], None), "no answer in time"),
        ((_HELLO[:20],), "it closed the connection"),
        ((_OTHER_VERSION,), "it speaks version 3.5 of it"),
        ((_NEWER_VERSION,), "it speaks version 8.9 of it"),
        ((_HELLO, None), "no answer in time"),
        ((_HELLO, struct.pack("<QI", 4, 0)), "it names 0 devices"),
        ((_HELLO, struct.pack("<QI", 4, 2**31)), "it names 2147483648 devices"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_server_is_told(engine: Installed, answers: tuple[bytes | None, ...], said: str) -> None:
    began = time.monotonic()
    with _answering(answers) as impostor:
        done = engine.run("devices", "--rpc", impostor.endpoint)
    assert (done.returncode, done.stdout) == (8, "")
    assert f"protocol 8.0 at {impostor.endpoint}: {said}" in done.stderr
    assert done.stderr.count("\n") == 1
    assert time.monotonic() - began < PATIENCE


def test_where_nobody_listens_is_told(engine: Installed, tiny: Path) -> None:
    for command in (("devices",), ("plan", tiny), ("run", tiny, "-p", "hi")):
        done = engine.run(*command, "--rpc", f"127.0.0.1:{free_port()}")
        assert (done.returncode, done.stdout) == (8, "")
        assert "refused" in done.stderr
        assert "floatllm rpc-server" in done.stderr
    done = engine.run("devices", "--rpc", "no-such-host.invalid:50052")
    assert done.returncode == 8
    assert "There is no IPv4 address for no-such-host.invalid" in done.stderr


def test_a_busy_server_is_told(engine: Installed, server: Server) -> None:
    host, port = server.endpoint.split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(struct.pack("<BQ24x", 14, 24))
        assert client.recv(len(_HELLO), socket.MSG_WAITALL) == _HELLO
        done = engine.run("devices", "--rpc", server.endpoint)
    assert done.returncode == 8
    assert "no answer in time" in done.stderr
    assert "one client at a time" in done.stderr
    assert engine.run("devices", "--rpc", server.endpoint).returncode == 0


@contextmanager
def _writing(engine: Installed, model: Path, server: Server) -> Iterator[subprocess.Popen[str]]:
    """A run on the server that would go on for long, behind its first words."""
    options = ("-n", 2000, "--ctx", 4096, *server.device)
    command = engine.command("run", model, "-p", "Once upon a time", *options)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=engine.env, stdout=pipe, stderr=pipe, text=True) as child:
        assert child.stdout is not None
        child.stdout.read(8)
        yield child


def test_a_server_that_is_lost_ends_the_run_with_a_sentence(engine: Installed, smollm: Path) -> None:
    with serving(engine) as running, _writing(engine, smollm, running) as child:
        running.child.kill()
        _, said = child.communicate(timeout=PATIENCE)
    assert child.returncode == 8
    assert f"floatllm: The RPC server at {running.endpoint} was lost while it was in use" in said
    assert said.count("\n") == 1


@pytest.mark.ci
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_run_on_a_server_that_hangs_can_be_stopped(engine: Installed, smollm: Path) -> None:
    with serving(engine) as running:
        with _writing(engine, smollm, running) as child:
            running.child.send_signal(signal.SIGSTOP)
            time.sleep(0.5)
            child.send_signal(signal.SIGINT)
            time.sleep(0.5)
            assert child.poll() is None
            child.send_signal(signal.SIGINT)
            assert child.wait(PATIENCE) == 130
            running.child.send_signal(signal.SIGCONT)
        # One is enough where the server answers.
        with _writing(engine, smollm, running) as child:
            child.send_signal(signal.SIGINT)
            _, said = child.communicate(timeout=PATIENCE)
        assert child.returncode == 130
        assert "RPC0" in said
        assert "lost" not in said


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("hanging", [True, False])
def test_ctrl_c_is_not_taken_for_a_lost_server(engine: Installed, hanging: bool) -> None:
    # Asked by this engine, by ggml, by this engine again; then ggml asks for more.
    good = (_HELLO, _ONE_DEVICE)
    with _answering(good, good, good, (_HELLO, None) if hanging else (_HELLO,)) as impostor:
        command = engine.command("devices", "--rpc", impostor.endpoint)
        pipe = subprocess.PIPE
        with subprocess.Popen(command, env=engine.env, stdout=pipe, stderr=pipe, text=True) as child:
            if hanging:
                assert impostor.silent.wait(PATIENCE)
                time.sleep(0.2)
                child.send_signal(signal.SIGINT)
            printed, said = child.communicate(timeout=PATIENCE)
    assert printed == ""
    if hanging:
        assert (child.returncode, said) == (130, "")
    else:
        assert child.returncode == 8
        assert f"The RPC server at {impostor.endpoint} was lost" in said


_USED_AFTER_LOSS = """
import json, os, signal, sys, time
from floatllm import Engine, EngineError, Model, devices, rpc
endpoint, path, pid, inside = sys.argv[1:5]
rpc.add(endpoint)
model = Model.open(path)
plan = model.plan("1GiB", "RPC0", 64)
engine = Engine(plan) if inside == "yes" else None
if engine:
    engine.forward([1, 2, 3])
os.kill(int(pid), signal.SIGKILL)
time.sleep(0.5)
if engine:
    engine.forward([4])
said = []
for use in (devices, lambda: model.plan("1GiB", "RPC0", 64), lambda: Engine(plan)):
    try:
        use()
    except EngineError as error:
        said.append(str(error))
print(json.dumps(said))
"""


def test_a_server_lost_while_it_is_not_used_is_an_error(engine: Installed, tiny: Path) -> None:
    with serving(engine) as running:
        said = engine.script(_USED_AFTER_LOSS, running.endpoint, tiny, running.child.pid, "no")
    assert len(said) == 3
    assert all(running.endpoint in each and "refused" in each for each in said)


@pytest.mark.skipif(sys.platform == "win32", reason="aborts are signals elsewhere")
def test_without_a_listener_the_sentence_comes_before_the_abort(engine: Installed, tiny: Path) -> None:
    with serving(engine) as running:
        arguments = [running.endpoint, str(tiny), str(running.child.pid), "yes"]
        done = subprocess.run(
            [engine.python, "-c", _USED_AFTER_LOSS, *arguments],
            env=engine.env,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert done.returncode == -signal.SIGABRT
    assert done.stderr.startswith(f"floatllm: The RPC server at {running.endpoint} was lost")


_RESTARTED = """
import json, os, signal, subprocess, sys, time
from floatllm import Engine, EngineError, Model, rpc
endpoint, path, command = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
def start():
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    for _ in range(300):
        try:
            rpc.add(endpoint)
            with Engine(Model.open(path).plan("1GiB", "RPC0", 64)) as engine:
                return server, list(engine.generate([5, 6, 7], 8, ignore_end=True))
        except EngineError:
            time.sleep(0.1)
found = []
for _ in range(2):
    server, tokens = start()
    found.append(tokens)
    server.kill()
    server.wait()
print(json.dumps(found))
"""


def test_a_server_that_was_started_again_is_used_again(engine: Installed, tiny: Path) -> None:
    port = free_port()
    command = engine.command("rpc-server", "--port", port, "--device", "CPU")
    first, second = engine.script(_RESTARTED, f"127.0.0.1:{port}", tiny, json.dumps(command))
    assert len(first) == 8
    assert first == second


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at its own sockets")
def test_a_machine_that_goes_silently_will_be_noticed(engine: Installed, server: Server, tiny: Path) -> None:
    watched = engine.script(
        """
import json, os, socket, sys
from floatllm import Engine, Model, rpc
rpc.add(sys.argv[1])
found = []
with Engine(Model.open(sys.argv[2]).plan("1GiB", "RPC0", 64)):
    for name in os.listdir("/proc/self/fd"):
        try:
            with socket.socket(fileno=os.dup(int(name))) as each:
                found.append((each.getpeername(), each.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                              each.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)))
        except OSError:
            pass
print(json.dumps(found))
""",
        server.endpoint,
        tiny,
    )
    host, port = server.endpoint.split(":")
    assert watched == [[[host, int(port)], 1, 45000]]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
@pytest.mark.parametrize("busy", [False, True])
def test_a_server_ends_in_order(engine: Installed, number: signal.Signals, code: int, busy: bool) -> None:
    with serving(engine) as running:
        host, port = running.endpoint.split(":")
        with socket.create_connection((host, int(port))) if busy else nullcontext():
            running.child.send_signal(number)
            said = running.child.communicate(timeout=PATIENCE)[1]
        assert running.child.returncode == code
    assert "Traceback" not in said
    assert "warning" not in said


def test_a_server_that_all_can_reach_warns(engine: Installed) -> None:
    with serving(engine, "--host", "0.0.0.0") as running:  # noqa: S104 (that is what is warned of)
        assert engine.run("devices", "--rpc", running.endpoint).returncode == 0
        assert running.child.stderr is not None
        lines = [running.child.stderr.readline() for _ in range(2)]
    assert "RPC server at 0.0.0.0:" in lines[0]
    assert "neither authentication nor encryption" in lines[1]


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--host", "192.0.2.1"), 8, "Cannot listen at 192.0.2.1:"),
        (("--host", "no-such-host.invalid"), 8, "no IPv4 address for no-such-host.invalid"),
        (("--port", "0"), 2, "port from 1 to 65535"),
        (("--port", "70000"), 2, "port from 1 to 65535"),
        (("--port", "x"), 2, "--port"),
        (("--device", "Abacus0"), 3, "There is no device Abacus0"),
        (("--device", ""), 2, "name of the device is empty"),
        (("--threads", "0"), 2, "--threads is 0"),
        (("--cache", f"{__file__}/in"), 8, "cannot be made"),
    ],
    ids=str,
)
def test_a_server_that_cannot_be(engine: Installed, options: tuple[str, ...], code: int, said: str) -> None:
    done = engine.run("rpc-server", "--port", free_port(), *options)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_port_that_is_taken_is_told(engine: Installed, server: Server) -> None:
    done = engine.run("rpc-server", "--port", server.endpoint.split(":")[1])
    assert (done.returncode, done.stdout) == (8, "")
    assert f"Cannot listen at {server.endpoint}: " in done.stderr
    assert done.stderr.count("\n") == 1

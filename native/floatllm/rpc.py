"""Devices of other machines, over ggml's RPC protocol, and this machine's devices for others.

The protocol has neither authentication nor encryption: who can reach a server can use its machine, and read
and change what passes by. A server serves one client at a time.
"""

from __future__ import annotations

import ipaddress
import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from floatllm import _lib
from floatllm._early import INTERRUPTED
from floatllm.errors import EngineError, FloatLLMError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

HOST, PORT = "127.0.0.1", 50052
_ANNOUNCED_AFTER = 0.3  # seconds; by then what is wrong with the address is known
_LOOK_SECONDS = 0.5


def add(endpoint: str) -> None:
    """Adds the devices of the server at `endpoint`, "HOST:PORT", behind those that devices() lists: RPC0, ...

    Does nothing for one that was added before. Raises UsageError for another form of address, MissingError
    where the engine was built without RPC, and EngineError, within some seconds, where no server of the same
    protocol answers. A server that is lost while it is in use ends the process; see set_abort().
    """
    encoded = os.fsencode(endpoint)
    _lib.call(_lib.library(), "floatllm_rpc_add", encoded, len(encoded))


def serve(
    host: str = HOST,
    port: int = PORT,
    *,
    device: str | None = None,
    cache: str | None = None,
    threads: int | None = None,
) -> NoReturn:
    """Serves `device`, or all GPUs, else the CPU, for as long as the process lives.

    `cache` is a folder, made where it is not there, for tensors above 10 MiB that need then be sent only
    once; `threads` are the CPU's. Raises UsageError, MissingError, or EngineError where nobody can listen
    there. The lines of ggml's server go to stdout.
    """
    if device == "":
        msg = "The name of the device is empty: leave it out for all GPUs, else the CPU."
        raise UsageError(msg)
    if threads is not None and not 1 <= threads <= _MOST_THREADS:
        msg = f"--threads is {threads}, but it must be from 1 to {_MOST_THREADS}."
        raise UsageError(msg)
    if cache is not None:
        try:
            Path(cache).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            msg = f"The folder {cache} cannot be made: {error.strerror}. Give another --cache."
            raise EngineError(msg) from error
    endpoint = os.fsencode(f"{host}:{port}")
    _lib.call(
        _lib.library(),
        "floatllm_rpc_serve",
        endpoint,
        len(endpoint),
        None if device is None else os.fsencode(device),
        None if cache is None else os.fsencode(cache),
        threads or 0,
    )
    msg = "The RPC server ended."  # not reached: it returns only to report a failure
    raise EngineError(msg)


_MOST_THREADS = 512
_abort_function: Any = None


def set_abort(tell: Callable[[str], None] | None) -> None:
    """Calls `tell(message)` before the process ends because ggml gives up; None: the message goes to stderr.

    `tell` may end the process in its own way (os._exit); when it returns the process is aborted.
    Process-wide; called on a thread of its own.
    """
    global _abort_function  # noqa: PLW0603 (the library keeps the pointer, so something must keep the object)

    def forward(text: bytes, _user: Any) -> None:
        if tell is not None:
            tell(text.decode("utf-8", "replace"))

    function = _lib.AbortFunction(forward) if tell is not None else _lib.AbortFunction()
    _lib.library().floatllm_set_abort(function, None)
    _abort_function = function


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `floatllm rpc-server`."""
    parser.add_argument(
        "--host", default=HOST, help=f"address to listen at (default {HOST}: this machine alone)"
    )
    parser.add_argument("--port", metavar="N", type=int, default=PORT, help=f"port (default {PORT})")
    parser.add_argument("--device", metavar="NAME", help="device to serve (default: all GPUs, else the CPU)")
    parser.add_argument(
        "--cache", metavar="DIR", help="keep large tensors here, so that they are sent only once"
    )
    parser.add_argument("--threads", metavar="N", type=int, help="CPU threads")


def run_server(arguments: argparse.Namespace, say: Callable[[str], None]) -> NoReturn:
    """`floatllm rpc-server`: serves until SIGINT (exit code 130) or SIGTERM (0)."""
    failure: list[FloatLLMError] = []

    def work() -> None:
        try:
            serve(
                arguments.host,
                arguments.port,
                device=arguments.device,
                cache=arguments.cache,
                threads=arguments.threads,
            )
        except FloatLLMError as error:
            failure.append(error)

    # Only the thread that Python signals run on would notice Ctrl-C, and only between calls of C.
    server = threading.Thread(target=work, daemon=True)
    signal.signal(signal.SIGTERM, lambda *_: _end(0))
    # ggml's server tells of each connection on stdout, which is not for logs.
    os.dup2(2 if arguments.verbose else os.open(os.devnull, os.O_WRONLY), 1)
    try:
        server.start()
        server.join(_ANNOUNCED_AFTER)
        if server.is_alive():
            say(f"[FloatLLM] RPC server at {arguments.host}:{arguments.port}; Ctrl-C ends it")
            if not _is_loopback(arguments.host):
                say(_WARNING)
        while server.is_alive():
            server.join(_LOOK_SECONDS)
    except KeyboardInterrupt:
        _end(INTERRUPTED)
    raise failure[0]


_WARNING = (
    "[FloatLLM] warning: the RPC protocol has neither authentication nor encryption. Whoever can reach this "
    "address can use this machine: keep it on a network where you trust everyone."
)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _end(code: int) -> NoReturn:
    """Ends the process while the server's thread is still in C, which an ordinary exit would pull away."""
    with suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(code)


def add_option(parser: argparse.ArgumentParser) -> None:
    """`--rpc`, of every command that uses devices."""
    parser.add_argument(
        "--rpc",
        metavar="HOST:PORT",
        action="append",
        default=[],
        help="add the devices of a `floatllm rpc-server`, as RPC0 and on; repeat it for more servers",
    )


def connect(arguments: argparse.Namespace, say: Callable[[str], None]) -> None:
    """Adds the servers of `--rpc`. A server or device that is lost later ends the command with a sentence."""
    endpoints: list[str] | None = getattr(arguments, "rpc", None)
    if endpoints is None:
        return

    # Only a server that hangs needs Ctrl-C to be seen at once.
    interrupts = _Interrupts() if endpoints else None

    def tell(message: str) -> None:
        # Where nobody notes it, the signal itself cuts off what ggml waits for.
        if interrupts is not None and interrupts.came():
            _end(INTERRUPTED)
        say(f"floatllm: {message}")
        # What was generated so far is whole text; nothing else can be saved from here.
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        _end(EngineError.exit_code)

    set_abort(tell)
    for endpoint in endpoints:
        add(endpoint)


class _Interrupts:
    """Ctrl-C, seen at once; a server that hangs keeps the main thread in C, where Python runs no handler.

    The first is left to those handlers; the second ends the process.
    """

    def __init__(self) -> None:
        self._first = threading.Event()
        if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
            return
        self._reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing)
        threading.Thread(target=self._watch, daemon=True).start()

    def came(self) -> bool:
        """Whether the first was there, or just comes."""
        return self._first.wait(0.1)

    def _watch(self) -> None:
        for _ in range(2):
            while os.read(self._reading, 1) != bytes([signal.SIGINT]):
                pass
            if self._first.is_set():
                _end(INTERRUPTED)
            self._first.set()

"""Servers of ggml's RPC, started for real, for the tests to talk to."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from installed import Installed

PATIENCE = 60


@dataclass(frozen=True)
class Server:
    """A running `floatllm rpc-server`."""

    endpoint: str
    child: subprocess.Popen[str]

    @property
    def device(self) -> tuple[str, ...]:
        """Options that choose its one device."""
        return ("--rpc", self.endpoint, "--device", "RPC0")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def serving(engine: Installed, *options: object, port: int | None = None) -> Iterator[Server]:
    port = port or free_port()
    command = engine.command("rpc-server", "--port", port, "--device", "CPU", "--threads", 2, *options)
    with subprocess.Popen(command, env=engine.env, stderr=subprocess.PIPE, text=True) as child:
        try:
            deadline = time.monotonic() + PATIENCE
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except ConnectionRefusedError:
                    assert child.poll() is None, child.communicate()[1]
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
            yield Server(f"127.0.0.1:{port}", child)
        finally:
            child.kill()

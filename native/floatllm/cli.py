"""The `floatllm` command: parses, calls the engine, prints. Exit codes are those of errors.py."""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import floatllm
from floatllm import render
from floatllm.engine import Engine, check_fit
from floatllm.errors import EngineError, FloatLLMError, UsageError
from floatllm.model import Model
from floatllm.report import Report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from floatllm.plan import Plan

_TOKENS = 128
_SIZE_HELP = "512M or 2GiB (M and MiB are both 2**20 bytes)"
_IO_HELP = "windows of the file, reads past the page cache, or by what is cached (auto)"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One sentence instead of the whole usage."""
        sys.stderr.write(f"{self.prog}: {message}; see `{self.prog} --help`.\n")
        raise SystemExit(2)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    try:
        parser = _parser()
        if not (sys.argv[1:] if argv is None else argv):
            parser.print_help(sys.stderr)
            return UsageError.exit_code
        arguments = parser.parse_args(argv)
        _utf8(sys.stdout)
        _log(arguments.verbose)
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except FloatLLMError as error:
        _say(render.printable(f"floatllm: {error}"))
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        _say(f"floatllm: The output cannot be written: {error.strerror}. Free space or choose another place.")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EngineError.exit_code
    return code


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="floatllm", description="Runs GGUF models larger than memory.")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the versions and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    devices = _command(commands, "devices", _devices, "list ggml's devices")
    inspect = _command(commands, "inspect", _inspect, "show a model's metadata and tensors")
    plan = _command(commands, "plan", _plan, "show the budget and the chunks that a model is cut into")
    map_ = _command(commands, "map", _map, "map every chunk, compute over it, release it")
    run = _command(commands, "run", _run, "generate text; stdout holds the text alone")

    for command in (inspect, plan, map_, run):
        command.add_argument("model", metavar="MODEL", help="a GGUF file")
    for command in (devices, inspect, plan):
        command.add_argument("--json", action="store_true", help="print JSON")
    for command in (plan, map_, run):
        command.add_argument("--memory", metavar="SIZE", help=f"bound on all memory: {_SIZE_HELP}")
        command.add_argument("--chunk", metavar="SIZE", help="bound on one chunk")
        command.add_argument("--device", metavar="NAME", help="ggml's name, such as CPU or CUDA0")
        command.add_argument("--io", choices=("auto", "mmap", "direct"), default="auto", help=_IO_HELP)
        command.add_argument("--threads", metavar="N", type=int, help="CPU threads")
    for command in (plan, run):
        command.add_argument("--ctx", metavar="N", type=int, help="positions of context")
    plan.add_argument("--mode", choices=("run", "map"), default="run", help="what is planned for")
    run.add_argument("-p", "--prompt", required=True, metavar="TEXT", help="raw text to continue")
    run.add_argument("-n", "--tokens", metavar="N", type=int, help=f"tokens at most (default {_TOKENS})")
    return parser


def _command(commands: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run)
    parser.add_argument("-v", "--verbose", action="count", default=0, help="say more; twice for ggml's log")
    return parser


class _Version(argparse.Action):
    def __call__(self, *_: Any) -> NoReturn:
        versions = floatllm.versions()
        commit = versions.ggml_commit[:10]
        sys.stdout.write(f"floatllm {versions.engine} (ABI {versions.abi}, ggml {versions.ggml} {commit})\n")
        raise SystemExit(0)


def _devices(arguments: argparse.Namespace) -> int:
    found = floatllm.devices()
    if arguments.json:
        document = {
            "schema_version": render.SCHEMA_VERSION,
            "versions": asdict(floatllm.versions()),
            "devices": [asdict(device) for device in found],
        }
        _print(render.to_json(document))
    else:
        _print(render.devices_text(found))
    return 0


def _inspect(arguments: argparse.Namespace) -> int:
    with Model.open(arguments.model) as model:
        if arguments.json:
            _print(render.to_json(render.inspect_json(model)))
        else:
            _print(render.inspect_text(model))
    return 0


def _plan(arguments: argparse.Namespace) -> int:
    with Model.open(arguments.model) as model:
        plan = _make_plan(model, arguments, arguments.mode)
        _print(plan.json if arguments.json else render.plan_text(plan))
    return 0


def _map(arguments: argparse.Namespace) -> int:
    with Model.open(arguments.model) as model:
        plan = _make_plan(model, arguments, "map")
        report = Report(model, _print, tensors=arguments.verbose > 0)
        with Engine(plan) as engine:
            engine.map(report)
    return 0


def _run(arguments: argparse.Namespace) -> int:
    with Model.open(arguments.model) as model:
        tokenizer = model.tokenizer
        prompt = tokenizer.encode(arguments.prompt)
        plan = _make_plan(model, arguments, "run")
        wanted = arguments.tokens
        if wanted is None:
            wanted = max(1, min(_TOKENS, plan.ctx - len(prompt)))
        check_fit(len(prompt), wanted, plan.ctx)
        with Engine(plan) as engine:
            if arguments.verbose:
                engine.on_event(Report(model, _say, tensors=True))
            _generate(engine, prompt, wanted)
    return 0


def _generate(engine: Engine, prompt: list[int], wanted: int) -> None:
    decoder = engine.plan.model.tokenizer.decoder()
    started = time.monotonic()
    first = started
    count = 0
    try:
        for token in engine.generate(prompt, wanted):
            if count == 0:
                first = time.monotonic()
            count += 1
            _write(decoder.push(token))
        _write(decoder.finish())
    finally:
        if sys.stdout.isatty():
            _write("\n")
    rate = (count - 1) / max(time.monotonic() - first, 1e-9) if count > 1 else 0.0
    _say(
        f"[FloatLLM] prompt of {len(prompt)} tokens in {first - started:.2f} s | {count} tokens"
        + (f" at {rate:.2f} tokens/s" if count > 1 else "")
        + f" | {render.chunks_text(engine.plan)} | {engine.plan.device}"
    )


def _make_plan(model: Model, arguments: argparse.Namespace, mode: str) -> Plan:
    return model.plan(
        memory=arguments.memory,
        device=arguments.device,
        ctx=getattr(arguments, "ctx", None),
        mode=mode,
        chunk=arguments.chunk,
        threads=arguments.threads,
        io=arguments.io,
    )


def _print(text: str) -> None:
    _write(text + "\n")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def _log(verbose: int) -> None:
    lowest = {0: 5, 1: 3}.get(verbose, 1)
    if lowest < 5:
        floatllm.set_log(lambda level, text: _say(text.rstrip("\n")) if level >= lowest else None)


def _utf8(stream: TextIO) -> None:
    """Generated text is UTF-8 whatever the locale says; a name that is not must not stop the output."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(encoding="utf-8", errors="replace")

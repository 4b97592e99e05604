"""The `floatllm` command: parses, calls the engine, prints. Exit codes are those of errors.py."""

from __future__ import annotations

import argparse
import os
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import floatllm
from floatllm import atomic, batch, bench, chat, plot, predict, render, speculate
from floatllm.engine import Engine, check_fit, default_tokens
from floatllm.errors import EngineError, FloatLLMError, UsageError
from floatllm.model import Model
from floatllm.report import Report
from floatllm.sampler import Sampling, fresh_seed
from floatllm.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from floatllm.engine import Event
    from floatllm.plan import Plan

_SIZE_HELP = "512M or 2GiB (M and MiB are both 2**20 bytes)"
_KV_HELP = "type of the KV cache: q8_0 takes half the memory of f16 (the default) and rounds a little more"
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
    batch_ = _command(commands, "batch", _batch, "generate for every row of a JSONL file; resumable")

    bench_ = _command(commands, "bench", _bench, "measure the speed, beside what disk and memory allow")

    for command in (inspect, plan, map_, run, batch_, bench_):
        command.add_argument("model", metavar="MODEL", help="a GGUF file")
    for command in (devices, inspect, plan, bench_):
        command.add_argument("--json", action="store_true", help="print JSON")
    for command in (plan, map_, run, batch_, bench_):
        command.add_argument("--memory", metavar="SIZE", help=f"bound on all memory: {_SIZE_HELP}")
        command.add_argument("--chunk", metavar="SIZE", help="bound on one chunk")
        command.add_argument("--device", metavar="NAME", help="ggml's name, such as CPU or CUDA0")
        command.add_argument("--io", choices=("auto", "mmap", "direct"), default="auto", help=_IO_HELP)
        command.add_argument("--threads", metavar="N", type=int, help="CPU threads")
    for command in (plan, run, batch_, bench_):
        command.add_argument("--ctx", metavar="N", type=int, help="positions of context")
        command.add_argument("--kv", choices=("f16", "q8_0"), help=_KV_HELP)
    for command in (map_, run):
        command.add_argument(
            "--trace", metavar="F.json", help="write when what was done, for ui.perfetto.dev"
        )
    plan.add_argument("--plot", metavar="F.svg", help="write a picture of the plan")
    plan.add_argument("--mode", choices=("run", "map"), default="run", help="what is planned for")
    _run_options(run)
    batch.add_arguments(batch_)
    bench.add_arguments(bench_)
    return parser


def _run_options(run: argparse.ArgumentParser) -> None:
    run.add_argument("-p", "--prompt", required=True, metavar="TEXT", help="raw text to continue")
    run.add_argument("-n", "--tokens", metavar="N", type=int, help="tokens at most (default 128)")
    run.add_argument(
        "--draft",
        metavar="N",
        default="auto",
        help="tokens guessed at a time, off, or auto (where the disk binds)",
    )
    run.add_argument("--chat", action="store_true", help="answer the prompt, by the model's chat template")
    run.add_argument("--system", metavar="TEXT", help="with --chat: what the model is told before")
    group = run.add_argument_group("sampling", "Without --temp the likeliest token is taken each time.")
    default = Sampling()
    for name, kind, metavar, text in (
        ("--temp", float, "T", "above 0: draw tokens, the bolder the higher, such as 0.8"),
        ("--top-k", int, "K", f"draw from the K likeliest; 0: all (default {default.top_k})"),
        ("--top-p", float, "P", f"from the fewest that add up to P; 1: all (default {default.top_p})"),
        ("--min-p", float, "P", f"from those as likely as P times the best (default {default.min_p})"),
        ("--repeat-penalty", float, "X", "make recent tokens less likely, such as 1.1 (default 1: off)"),
        ("--seed", int, "N", "draw the same tokens as another run with this seed"),
    ):
        group.add_argument(name, type=kind, metavar=metavar, help=text)


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
        found = predict.predict(plan) if arguments.mode == "run" else None
        if arguments.plot is not None:
            atomic.write_text(arguments.plot, plot.svg(plan, found))
        if arguments.json:
            _print(render.to_json(render.plan_json(plan, found)))
        else:
            _print(render.plan_text(plan, found))
    return 0


def _map(arguments: argparse.Namespace) -> int:
    with Model.open(arguments.model) as model:
        plan = _make_plan(model, arguments, "map")
        report = Report(model, _print, tensors=arguments.verbose > 0)
        with _traced(arguments, plan) as trace, Engine(plan) as engine:
            engine.map(_all(report, trace))
    return 0


def _run(arguments: argparse.Namespace) -> int:
    sampling = _sampling(arguments)
    if arguments.system is not None and not arguments.chat:
        msg = "--system is a message of a chat: add --chat, or put the text into the prompt."
        raise UsageError(msg)
    with Model.open(arguments.model) as model:
        prompt = _prompt(model, arguments)
        plan, draft = speculate.choose(
            arguments.draft, lambda outputs: _make_plan(model, arguments, "run", outputs)
        )
        wanted = arguments.tokens
        if wanted is None:
            wanted = default_tokens(len(prompt), plan.ctx)
        check_fit(len(prompt), wanted, plan.ctx)
        with _traced(arguments, plan) as trace, Engine(plan) as engine:
            engine.on_event(_all(Report(model, _say, tensors=True) if arguments.verbose else None, trace))
            _generate(engine, prompt, wanted, sampling, draft)
    return 0


def _traced(arguments: argparse.Namespace, plan: Plan) -> AbstractContextManager[Trace | None]:
    return nullcontext() if arguments.trace is None else Trace(arguments.trace, plan)


def _all(*listeners: Callable[[Event], None] | None) -> Callable[[Event], None] | None:
    """One listener that tells each of those that are there."""
    present = [listener for listener in listeners if listener is not None]

    def tell(event: Event) -> None:
        for listener in present:
            listener(event)

    return tell if present else None


def _sampling(arguments: argparse.Namespace) -> Sampling:
    names = {
        "temp": "temperature",
        "top_k": "top_k",
        "top_p": "top_p",
        "min_p": "min_p",
        "repeat_penalty": "repeat_penalty",
        "seed": "seed",
    }
    given = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    drawing = sorted(given.keys() - {"temp", "repeat_penalty"})
    if drawing and "temp" not in given:
        options = ", ".join("--" + name.replace("_", "-") for name in drawing)
        msg = f"{options} only matter where tokens are drawn: add --temp, such as --temp 0.8."
        raise UsageError(msg)
    sampling = Sampling(**{names[name]: value for name, value in given.items()})
    if sampling.temperature > 0 and sampling.seed is None:
        sampling = replace(sampling, seed=fresh_seed())
    return sampling


def _prompt(model: Model, arguments: argparse.Namespace) -> list[int]:
    if not arguments.chat:
        return model.tokenizer.encode(arguments.prompt)
    messages = [{"role": "user", "content": arguments.prompt}]
    if arguments.system is not None:
        messages.insert(0, {"role": "system", "content": arguments.system})
    return chat.encode(model, messages)


def _bench(arguments: argparse.Namespace) -> int:
    with Model.open(arguments.model) as model:
        plan = _make_plan(model, arguments, "run")
        found = bench.measure(plan, arguments.prompt_tokens, arguments.tokens)
        if arguments.json:
            _print(render.to_json(bench.document(plan, found)))
        else:
            _print(bench.text(plan, found))
    return 0


def _batch(arguments: argparse.Namespace) -> int:
    with Model.open(arguments.model) as model:
        batch.run(model, arguments, _say)
    return 0


def _generate(engine: Engine, prompt: list[int], wanted: int, sampling: Sampling, draft: int) -> None:
    decoder = engine.plan.model.tokenizer.decoder()
    started = time.monotonic()
    first: float | None = None
    count = 0

    def say_speed() -> None:
        now = time.monotonic()
        reading, writing = (first or now) - started, now - (first or now)
        _say(render.run_text(engine.plan, len(prompt), reading, count, writing, sampling, draft))

    try:
        for token in engine.generate(prompt, wanted, sampling=sampling, draft=draft):
            first = first or time.monotonic()
            count += 1
            _write(decoder.push(token))
        _write(decoder.finish())
    except KeyboardInterrupt:
        _end_line()
        say_speed()
        raise
    _end_line()
    say_speed()


def _end_line() -> None:
    if sys.stdout.isatty():
        _write("\n")


def _make_plan(model: Model, arguments: argparse.Namespace, mode: str, outputs: int | None = None) -> Plan:
    return model.plan(
        memory=arguments.memory,
        device=arguments.device,
        ctx=getattr(arguments, "ctx", None),
        mode=mode,
        chunk=arguments.chunk,
        threads=arguments.threads,
        io=arguments.io,
        outputs=outputs,
        kv=getattr(arguments, "kv", None) or "f16",
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

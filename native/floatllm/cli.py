"""The `floatllm` command: parses, calls the engine, prints. Exit codes are those of errors.py."""

from __future__ import annotations

import argparse
import difflib
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NoReturn, TextIO, cast

import floatllm
from floatllm import atomic, batch, bench, chat, plot, predict, render, rpc, sampler, speculate, streams
from floatllm.engine import Engine, check_fit, default_tokens
from floatllm.errors import UsageError
from floatllm.interrupt import terminated_in_order
from floatllm.model import Model
from floatllm.report import Report
from floatllm.streams import say, write
from floatllm.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from floatllm.engine import Event
    from floatllm.plan import Plan
    from floatllm.sampler import Sampling

_SIZE_HELP = "512M or 2GiB (M and MiB are both 2**20 bytes)"
_KV_HELP = "type of the KV cache: q8_0 takes half the memory of f16 (the default) and rounds a little more"
_DEVICE_HELP = (
    "name from `floatllm devices`; CUDA0,CUDA1 divides the layers (default: the first GPU, else the CPU)"
)
_DEVICE_MEMORY_HELP = "limit on each device's own memory (default: what is free)"
_CPU_SHARE_HELP = "share of the weights outside the device that the CPU computes: 0 to 1 (default: measured)"
_IO_HELP = "mmap: mapped; direct: past the page cache; auto: chosen by what is cached (default: auto)"


class _Parser(argparse.ArgumentParser):
    commands: Mapping[str, argparse.ArgumentParser] = {}

    def refuse_slips(self, words: Sequence[str]) -> None:
        """A slip in an option's name is told before what is missing, which argparse tells first."""
        command = self.commands.get(words[0]) if words else None
        if command is None:
            return
        known = command._option_string_actions  # noqa: SLF001  argparse has no public list of them
        for word in words[1 : words.index("--") if "--" in words else None]:
            name = word.partition("=")[0]
            # To argparse a word with a space is no option: it may be a prompt.
            if " " in word or not name.startswith("--"):
                continue
            if not any(option.startswith(name) for option in known):
                close = difflib.get_close_matches(name, known, 1, 0.8)
                command.error(
                    f"unrecognized arguments: {name}" + (f" (did you mean {close[0]}?)" if close else "")
                )

    def error(self, message: str) -> NoReturn:
        """One sentence instead of the whole usage."""
        say(f"{self.prog}: {message}; see `{self.prog} --help`.")
        raise SystemExit(UsageError.exit_code)

    def print_help(self, _file: object = None) -> None:
        """By itself argparse drops what stdout does not take, without a word."""
        write(self.format_help())


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    return streams.guarded(lambda: _command_line(argv))


def _command_line(argv: Sequence[str] | None) -> int:
    parser = _parser()
    if not (sys.argv[1:] if argv is None else argv):
        say(parser.format_help().rstrip("\n"))
        return UsageError.exit_code
    parser.refuse_slips(sys.argv[1:] if argv is None else argv)
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        # By itself the parser of all commands would complain, and point to its own help.
        arguments.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    _utf8(sys.stdout)
    _log(arguments.verbose)
    rpc.connect(arguments, say)
    code: int = arguments.run(arguments)
    return code


def _parser() -> _Parser:
    parser = _Parser(prog="floatllm", description="Runs GGUF models larger than memory.")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the versions and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    parser.commands = commands.choices

    devices = _command(commands, "devices", _devices, "list ggml's devices")
    inspect = _command(commands, "inspect", _inspect, "show a model's metadata and tensors")
    plan = _command(commands, "plan", _plan, "show the budget and the chunks that a model is cut into")
    map_ = _command(commands, "map", _map, "map every chunk, compute over it, release it")
    run = _command(commands, "run", _run, "generate text; stdout holds the text alone")
    batch_ = _command(commands, "batch", _batch, "generate for every row of a JSONL file; resumable")

    bench_ = _command(commands, "bench", _bench, "measure the speed, beside what disk and memory allow")
    server = _command(
        commands, "rpc-server", _rpc_server, "serve this machine's devices to others; see --rpc"
    )

    for command in (inspect, plan, map_, run, batch_, bench_):
        command.add_argument("model", metavar="MODEL", help="a GGUF file")
    for command in (devices, plan, map_, run, batch_, bench_):
        rpc.add_option(command)
    for command in (devices, inspect, plan, bench_):
        command.add_argument("--json", action="store_true", help="print JSON")
    for command in (plan, map_, run, batch_, bench_):
        command.add_argument(
            "--memory", metavar="SIZE", help=f"limit on all memory: {_SIZE_HELP} (default: what is free)"
        )
        command.add_argument(
            "--chunk", metavar="SIZE", help="limit on one chunk (default: chosen by the plan)"
        )
        command.add_argument("--device", metavar="NAME", help=_DEVICE_HELP)
        command.add_argument("--device-memory", metavar="SIZE", help=_DEVICE_MEMORY_HELP)
        command.add_argument("--cpu-share", metavar="X", type=float, help=_CPU_SHARE_HELP)
        command.add_argument("--io", choices=("auto", "mmap", "direct"), default="auto", help=_IO_HELP)
        command.add_argument(
            "--threads", metavar="N", type=int, help="CPU threads (default: the usable CPUs)"
        )
    for command in (plan, run, batch_, bench_):
        command.add_argument(
            "--ctx",
            metavar="N",
            type=int,
            help="context in tokens (default: up to 4096)",
        )
        command.add_argument("--kv", choices=("f16", "q8_0"), help=_KV_HELP)
    for command in (map_, run):
        command.add_argument(
            "--trace", metavar="F.json", help="write a timeline of reads and computation, for ui.perfetto.dev"
        )
    plan.add_argument("--plot", metavar="F.svg", help="write a picture of the plan")
    plan.add_argument(
        "--mode", choices=("run", "map"), default="run", help="the command to plan for (default: run)"
    )
    _run_options(run)
    batch.add_arguments(batch_)
    bench.add_arguments(bench_)
    rpc.add_arguments(server)
    return parser


def _run_options(run: argparse.ArgumentParser) -> None:
    run.add_argument(
        "-p",
        "--prompt",
        required=True,
        metavar="TEXT",
        help="raw text to continue; - reads it from stdin, without its last line break",
    )
    run.add_argument(
        "-n", "--tokens", metavar="N", type=int, help="maximum number of tokens to generate (default 128)"
    )
    run.add_argument(
        "--draft",
        metavar="N",
        default="auto",
        help="N tokens guessed ahead per pass; off; auto: only if the disk is the limit (default: auto)",
    )
    run.add_argument("--chat", action="store_true", help="answer the prompt, by the model's chat template")
    run.add_argument("--system", metavar="TEXT", help="with --chat: the system message")
    sampler.add_arguments(run)


def _command(commands: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run, parser=parser)
    parser.add_argument("-v", "--verbose", action="count", default=0, help="show more; -vv adds ggml's log")
    return parser


class _Version(argparse.Action):
    def __call__(self, *_: Any) -> NoReturn:
        versions = floatllm.versions()
        source = f"ggml {versions.ggml}, llama.cpp {versions.llama_release}"
        write(f"floatllm {versions.engine} (ABI {versions.abi}, {source})\n")
        raise SystemExit(0)


def _devices(arguments: argparse.Namespace) -> int:
    found = floatllm.devices()
    if arguments.json:
        document = {
            "schema_version": render.SCHEMA_VERSION,
            "versions": asdict(floatllm.versions()),
            "devices": [asdict(device) for device in found],
            "plugins": [asdict(plugin) for plugin in floatllm.plugins()],
        }
        _print(render.to_json(document))
    else:
        _print(render.devices_text(found, floatllm.versions().cpu_variant, floatllm.plugins()))
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
        _warn_of_context(model, arguments)
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
    sampling = sampler.from_arguments(arguments)
    if arguments.system is not None and not arguments.chat:
        msg = "--system is a message of a chat: add --chat, or put the text into the prompt."
        raise UsageError(msg)
    with Model.open(arguments.model) as model:
        prompt = _prompt(model, arguments)
        _warn_of_context(model, arguments)
        plan, draft = speculate.choose(
            arguments.draft, lambda outputs: _make_plan(model, arguments, "run", outputs)
        )
        wanted = arguments.tokens
        if wanted is None:
            wanted = default_tokens(len(prompt), plan.ctx)
        check_fit(len(prompt), wanted, plan.ctx)
        with _traced(arguments, plan) as trace, Engine(plan) as engine:
            engine.on_event(_all(Report(model, say, tensors=True) if arguments.verbose else None, trace))
            _generate(engine, prompt, wanted, sampling, draft)
    return 0


@contextmanager
def _traced(arguments: argparse.Namespace, plan: Plan) -> Iterator[Trace | None]:
    if arguments.trace is None:
        yield None
        return
    with terminated_in_order(), Trace(arguments.trace, plan) as trace:
        yield trace


def _all(*listeners: Callable[[Event], None] | None) -> Callable[[Event], None] | None:
    """One listener that tells each of those that are there."""
    present = [listener for listener in listeners if listener is not None]

    def tell(event: Event) -> None:
        for listener in present:
            listener(event)

    return tell if present else None


def _prompt(model: Model, arguments: argparse.Namespace) -> list[int]:
    text = _stdin_text() if arguments.prompt == "-" else arguments.prompt
    if not arguments.chat:
        return model.tokenizer.encode(text)
    messages = [{"role": "user", "content": text}]
    if arguments.system is not None:
        messages.insert(0, {"role": "system", "content": arguments.system})
    return chat.encode(model, messages)


def _stdin_text() -> str:
    # A closed one is None, which typeshed does not tell.
    if cast("TextIO | None", sys.stdin) is None:
        msg = "stdin is closed, and the prompt is to come from there: give it as text, or open stdin."
        raise UsageError(msg)
    try:
        text = sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        msg = f"The prompt on stdin is not UTF-8 from byte {error.start} on: convert it first."
        raise UsageError(msg) from error
    except OSError as error:
        msg = f"The prompt on stdin cannot be read: {error.strerror}. Give it as text."
        raise UsageError(msg) from error
    return text.removesuffix("\n").removesuffix("\r")


def _warn_of_context(model: Model, arguments: argparse.Namespace) -> None:
    trained = model.trained_context
    if arguments.ctx is not None and trained is not None and arguments.ctx > trained:
        say(
            f"[FloatLLM] warning: --ctx {arguments.ctx} goes beyond the {trained} positions that the model "
            "was trained on; text beyond them is often poor"
        )


def _bench(arguments: argparse.Namespace) -> int:
    with Model.open(arguments.model) as model:
        _warn_of_context(model, arguments)
        plan = _make_plan(model, arguments, "run")
        found = bench.measure(plan, arguments.prompt_tokens, arguments.tokens)
        if arguments.json:
            _print(render.to_json(bench.document(plan, found)))
        else:
            _print(bench.text(plan, found))
    return 0


def _batch(arguments: argparse.Namespace) -> int:
    with Model.open(arguments.model) as model:
        _warn_of_context(model, arguments)
        batch.run(model, arguments, say)
    return 0


def _rpc_server(arguments: argparse.Namespace) -> NoReturn:
    rpc.run_server(arguments, say)


def _generate(engine: Engine, prompt: list[int], wanted: int, sampling: Sampling, draft: int) -> None:
    decoder = engine.plan.model.tokenizer.decoder()
    started = time.monotonic()
    first: float | None = None
    count = 0

    def say_speed() -> None:
        now = time.monotonic()
        reading, writing = (first or now) - started, now - (first or now)
        say(render.run_text(engine.plan, len(prompt), reading, count, writing, sampling, draft))

    try:
        for token in engine.generate(prompt, wanted, sampling=sampling, draft=draft):
            first = first or time.monotonic()
            count += 1
            write(decoder.push(token))
        write(decoder.finish())
    except KeyboardInterrupt:
        _end_line()
        say_speed()
        raise
    _end_line()
    say_speed()


def _end_line() -> None:
    if sys.stdout.isatty():
        write("\n")


def _make_plan(model: Model, arguments: argparse.Namespace, mode: str, outputs: int | None = None) -> Plan:
    plan = model.plan(
        memory=arguments.memory,
        device=arguments.device,
        ctx=getattr(arguments, "ctx", None),
        mode=mode,
        chunk=arguments.chunk,
        threads=arguments.threads,
        io=arguments.io,
        outputs=outputs,
        kv=getattr(arguments, "kv", None) or "f16",
        device_memory=arguments.device_memory,
        cpu_share=arguments.cpu_share,
    )
    if plan.device_note:
        say(render.printable(f"floatllm: The CPU computes. {plan.device_note} Give --device CPU to say so."))
    return plan


def _print(text: str) -> None:
    write(text + "\n")


def _log(verbose: int) -> None:
    lowest = {0: 5, 1: 3}.get(verbose, 1)
    if lowest < 5:
        floatllm.set_log(lambda level, text: say(text.rstrip("\n")) if level >= lowest else None)


def _utf8(stream: TextIO) -> None:
    """Generated text is UTF-8 whatever the locale says; a name that is not must not stop the output."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(encoding="utf-8", errors="replace")

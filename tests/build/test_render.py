"""The screens: what they say, that nothing is cut, and that no text from outside commands a terminal."""

from __future__ import annotations

import dataclasses
import io
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import machines
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import FULL
from plans import PLAN
from rich.console import Console

from floatllm_build.events import Hint, Proving, Said, StepDone, UnitProgress
from floatllm_build.plain import printable
from floatllm_build.render import show
from floatllm_build.render.paint import paint
from floatllm_build.render.progress import listening
from floatllm_build.render.screens import detect_screen, plan_screen
from floatllm_build.render.text import plain_text
from floatllm_build.render.words import encodable, fold
from floatllm_build.sizes import GIB
from floatllm_build.values import (
    CpuBound,
    CudaDevice,
    Host,
    Lack,
    MemoryBound,
    Plan,
    Reason,
)

ROOT = Path(__file__).resolve().parents[2]
CPU_PLAN = replace(PLAN, preset="cpu", backend="cpu", device="CPU", architectures=())
LACKS = (Lack(what="a C++ compiler", why="the engine is compiled here", fix="sudo apt install g++"),)
H200 = CudaDevice(name="NVIDIA H200", capability="90", memory=141 * GIB, integrated=False, mig=False)


def plain(host: Host, plan: Plan | None = PLAN, lacks: tuple[Lack, ...] = (), *, why: bool = False) -> str:
    return plain_text(detect_screen(host, plan, "" if plan else "It cannot. Do this.", lacks, why=why))


def painted(host: Host, width: int, *, plan: Plan | None = PLAN, why: bool = False) -> list[str]:
    """Lines as a terminal of that width shows them, without its colours."""
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, color_system=None, legacy_windows=False)
    paint(console, detect_screen(host, plan, "", LACKS, why=why))
    return out.getvalue().splitlines()


def line(text: str, label: str) -> str:
    """The one line that starts with this label."""
    (found,) = [one for one in text.splitlines() if re.match(rf"{re.escape(label)}\s", one)]
    return found


# ---- what is said -----------------------------------------------------------------------------


def test_the_verdict_comes_first_and_names_device_reason_and_command() -> None:
    lines = plain(FULL).splitlines()
    assert lines[0].split() == ["verdict", "ready", "to", "build"]
    head = lines[: lines.index("")]
    assert "preset cuda for NVIDIA GeForce RTX 3060 (CUDA0)" in head[1]
    assert head[2].endswith("the RTX 3060 can be used")
    assert head[-1] == "run       floatllm-build install"
    # What the row about jobs says already is not said as a reason too.
    assert "12.0 GiB to plan with" not in "".join(head)


def test_what_is_missing_stands_in_the_verdict_with_its_fix() -> None:
    text = plain(FULL, lacks=LACKS)
    assert text.startswith("verdict   almost: 1 thing missing\n")
    missing = line(text, "missing")
    assert "a C++ compiler: the engine is compiled here" in missing
    assert missing.endswith("To get it: sudo apt install g++")


def test_without_a_plan_the_problem_is_the_verdict_and_the_facts_stay() -> None:
    text = plain(FULL, None)
    assert text.startswith("verdict   nothing can be built here\nbecause   It cannot. Do this.\n")
    assert "gcc 12.2.0" in line(text, "compiler")
    assert "floatllm-build install" not in text


def test_a_command_of_its_own_is_shown_instead() -> None:
    command = "floatllm-build install --backend cuda"
    text = plain_text(detect_screen(FULL, PLAN, "", (), why=False, command=command))
    assert line(text, "run").endswith(command)


def test_each_fact_that_a_person_asks_for() -> None:
    text = plain(FULL)
    assert "Debian GNU/Linux 12 (bookworm), Linux 6.1, x86_64, glibc 2.36" in line(text, "system")
    installs = line(text, "installs")
    assert "into ~/project/.venv, virtual environment, by VIRTUAL_ENV" in installs
    assert "holds floatllm-0.1.0" in installs
    assert "AMD Ryzen, x86_64, 8 CPUs, avx2" in line(text, "cpu")
    assert "12.0 GiB free of 16.0 GiB, bound by /proc/meminfo, no swap" in line(text, "memory")
    assert "gcc 12.2.0 (c++), linker ld 2.40" in line(text, "compiler")
    assert "cmake 3.25.1, ninja 1.11.1, ccache 4.8" in line(text, "tools")
    cuda = line(text, "cuda")
    assert "NVIDIA GeForce RTX 3060 (12.0 GiB, capability 8.6), driver 550.54.14 for CUDA 12.4" in cuda
    assert cuda.endswith("nvcc 12.4")
    assert "(RADV NAVI22) (discrete), llvmpipe (LLVM 15.0.6, 256 bits) (software)" in line(text, "vulkan")
    assert "gfx1100, ROCm 6.3.1" in line(text, "hip")


def test_what_binds_is_named() -> None:
    group = "control group /box"
    bound = MemoryBound(source=group, limit=2 * GIB, room=GIB)
    host = machines.pc(
        cpu=replace(
            machines.PC.cpu, logical=64, usable=2, bounds=(CpuBound(source=group, cpus=2),), big_cores=4
        ),
        memory=replace(
            machines.PC.memory, bounds=(bound,), capacity=2 * GIB, room=GIB, binding=group, swap_total=GIB
        ),
    )
    text = plain(host, CPU_PLAN)
    assert f"2 of 64 CPUs usable, bound by {group}, 4 big cores" in line(text, "cpu")
    memory = line(text, "memory")
    assert f"1.0 GiB free of 2.0 GiB, bound by {group}, the machine has 16.0 GiB, swap full" in memory


def test_what_is_not_there_is_said() -> None:
    bare = replace(machines.PC.toolchain, c=None, cxx=None, cmake=None, ninja=None)
    text = plain(machines.pc(toolchain=bare, target=None), CPU_PLAN)
    assert line(text, "compiler").endswith("no C++ compiler found")
    assert line(text, "tools").endswith("no cmake, no ninja, no ccache")
    assert line(text, "gpu").endswith("none found; asked CUDA, HIP and Vulkan")
    assert "unknown" in line(text, "installs")


def test_many_equal_gpus_are_one_name() -> None:
    text = plain(machines.pc(cuda=replace(machines.NVIDIA, devices=(H200,) * 8)))
    assert "8 × NVIDIA H200 (CUDA0)" in line(text, "builds")
    assert "8 × NVIDIA H200 (141 GiB, capability 9.0)" in line(text, "cuda")


def test_only_the_gpus_that_are_compiled_for_are_named() -> None:
    old = replace(machines.RTX_3060, name="GTX 1080", capability="61")
    two = machines.pc(cuda=replace(machines.NVIDIA, devices=(old, machines.RTX_3060)))
    told = line(plain(two, replace(PLAN, architectures=("86",), device="CUDA1")), "builds")
    assert told.endswith("for NVIDIA GeForce RTX 3060 (CUDA1)")
    assert "GTX 1080, NVIDIA GeForce RTX 3060" in line(plain(two, replace(PLAN, architectures=())), "builds")
    amd = machines.pc(hip=replace(machines.ROCM, targets=("gfx1036", "gfx1100")))
    hip = replace(PLAN, preset="hip", backend="hip", device="ROCm1", architectures=("gfx1100",))
    assert line(plain(amd, hip), "builds").endswith("for gfx1100 (ROCm1)")


NO_PLACE = Lack(
    what="an environment", why="pipx keeps it", fix="python3 -m venv .venv && floatllm-build install"
)


@pytest.mark.parametrize(
    ("fix", "command", "told"),
    [
        ("floatllm-build install --python v", "floatllm-build install", "floatllm-build install --python v"),
        (
            "mk v && floatllm-build install --python v",
            "floatllm-build install --backend cuda --python '/a b/python' --jobs 2",
            "mk v && floatllm-build install --backend cuda --jobs 2 --python v",
        ),
        (
            "P -m pip install floatllm-build && P -m floatllm_build install",
            "floatllm-build install --low-mem",
            "P -m pip install floatllm-build && P -m floatllm_build install --low-mem",
        ),
    ],
)
def test_where_the_last_fix_installs_nothing_is_left_to_run(fix: str, command: str, told: str) -> None:
    lacks = (*LACKS, replace(NO_PLACE, fix=fix))
    text = plain_text(detect_screen(FULL, PLAN, "", lacks, why=False, command=command))
    assert [one for one in text.splitlines() if one.startswith("missing")][1].endswith(f"To get it: {told}")
    assert "then run" not in text
    assert "then run" in plain(FULL, lacks=LACKS)
    hint = plain_text(plan_screen(PLAN, lacks)).splitlines()[-1]
    assert hint == "The same options behind `install` there build this."


def test_a_list_without_end_is_counted() -> None:
    assert fold([*"aab", *map(str, range(1000))]) == "2 × a, b, 0, 1 and 998 more"


def test_every_rejected_backend_stands_with_its_fix() -> None:
    text = plain(FULL)
    assert line(text, "rejected metal").endswith("this is no Mac. To get it: use a Mac")
    rejected = line(text, "rejected vulkan")
    assert rejected.endswith("the headers are old. To get it: sudo apt install libvulkan-dev")


def test_why_adds_rules_sources_and_notes_one_a_line() -> None:
    before, after = plain(FULL), plain(FULL, why=True)
    told = {
        "rule best-backend": "the RTX 3060 can be used",
        "rule jobs": "8 usable CPUs, 12.0 GiB to plan with",
        "source cpu.features": "/proc/cpuinfo",
        "note nvidia-smi": "exit 9: no answer",
    }
    for label, text in told.items():
        assert line(after, label).endswith(f" {text}")
        assert label not in before
    assert "1 note of the probes" in before


def test_a_plan_is_told_to_its_last_option() -> None:
    text = plain_text(plan_screen(PLAN, LACKS))
    assert line(text, "jobs").endswith("8 compiles at once, 800 MiB each at most")
    assert "about 6.0 GiB at the peak" in line(text, "memory")
    assert "ggml 3.0 MiB, cmake 28.0 MiB, 31.0 MiB in all" in line(text, "fetches")
    assert line(text, "gpu code").endswith("for 86, 89")
    assert "sudo apt install g++" in line(text, "missing")
    cmake = line(text, "cmake").removeprefix("cmake").strip()
    assert tuple(shlex.split(cmake)) == PLAN.cmake
    assert "proof" not in text


def test_a_broken_command_is_still_one_command_to_a_shell() -> None:
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True, color_system=None)
    paint(console, plan_screen(PLAN, ()))
    shown = [line.strip("│ ") for line in out.getvalue().splitlines()]
    start = next(i for i, line in enumerate(shown) if line.startswith("cmake "))
    end = next(i for i, line in enumerate(shown) if i >= start and not line.endswith("\\"))
    assert end > start
    command = "\n".join(shown[start : end + 1]).removeprefix("cmake").strip()
    done = subprocess.run(
        ["sh", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True
    )
    assert tuple(done.stdout.splitlines()) == PLAN.cmake


def test_a_plan_without_proof_says_so() -> None:
    text = plain_text(plan_screen(replace(PLAN, proof="none", portable=True), ()))
    assert line(text, "proof").split()[1] == "none"
    assert "floatllm-build wheel" in text


def test_home_is_a_tilde_and_the_cache_keeps_its_name() -> None:
    reason = Reason(rule="x", text="{home}/cuda and {cache}/tools and {home-1}/x")
    text = plain(FULL, replace(PLAN, reasons=(reason,)))
    assert "~/cuda and {cache}/tools and {home-1}/x" in text


# ---- how it looks -----------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 100, 200])
def test_an_ordinary_machine_is_one_screen(width: int) -> None:
    lines = painted(FULL, width)
    assert len(lines) <= 40
    assert max(map(len, lines)) <= min(width, 100)


@pytest.mark.parametrize("width", [24, 40, 56, 80, 100])
def test_no_width_cuts_anything(width: int) -> None:
    lines = painted(FULL, width, why=True)
    assert max(map(len, lines)) <= width
    shown = re.sub(r"[\s│╭╮╰╯─·→✗]", "", "".join(lines))
    for text in (
        LACKS[0].why,
        LACKS[0].fix,
        "sudo apt install libvulkan-dev",
        "capability 8.6",
        "exit 9: no",
    ):
        assert text.replace(" ", "") in shown


def test_signs_and_words_say_what_the_colours_say() -> None:
    text = "\n".join(painted(FULL, 100))
    assert "! almost: 1 thing missing" in text
    assert re.search(r"✗ metal +this is no Mac *\n +→ use a Mac", text)


def test_plain_text_has_no_frames() -> None:
    assert not re.search(r"[─-╿]", plain(FULL, lacks=LACKS, why=True))


def test_plain_text_is_broken_at_a_given_width_between_words_only() -> None:
    screen = detect_screen(FULL, PLAN, "", LACKS, why=True)
    whole, broken = plain_text(screen), plain_text(screen, 60)
    assert broken.split() == whole.split()
    assert max(map(len, broken.splitlines())) <= 60


def test_a_stream_gets_only_what_its_encoding_has() -> None:
    assert encodable("8 × é", "utf-8") == "8 × é"
    assert encodable("8 × é", "ascii") == "8 x \\xe9"


_SHOW = """
import sys
sys.path[:0] = [{root!r}, {here!r}]
from floatllm_build.render import show
from machines import FULL
from plans import PLAN
show.detect(FULL, PLAN, "", (), why=False)
"""


def _shown_on_a_terminal(**variables: str) -> str:
    pty = pytest.importorskip("pty", reason="no pseudo terminals here")
    ours, theirs = pty.openpty()
    script = _SHOW.format(root=str(ROOT), here=str(Path(__file__).parent))
    kept = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "TERM", "CI"}}
    env = {
        **kept,
        "TERM": "xterm-256color",
        "COLUMNS": "90",
        "PYTHONPATH": os.pathsep.join(sys.path),
        **variables,
    }
    with subprocess.Popen([sys.executable, "-c", script], stdout=theirs, env=env) as child:
        os.close(theirs)
        said = b""
        try:
            while piece := os.read(ours, 65536):
                said += piece
        except OSError:  # so Linux says that the other side is closed
            pass
        assert child.wait(60) == 0
    os.close(ours)
    return said.decode()


@pytest.mark.slow
def test_a_terminal_gets_colours_and_a_frame() -> None:
    said = _shown_on_a_terminal(PYTHONIOENCODING="utf-8")
    assert "\x1b[" in said
    assert "╭─ ✓ ready to build" in re.sub(r"\x1b\[[0-9;]*m", "", said)


@pytest.mark.slow
@pytest.mark.parametrize(
    "variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"PYTHONIOENCODING": "ascii"}], ids=str
)
def test_a_terminal_that_takes_no_colours_gets_plain_text(variables: dict[str, str]) -> None:
    said = _shown_on_a_terminal(**{"PYTHONIOENCODING": "utf-8", **variables})
    assert "\x1b" not in said
    assert said.startswith("verdict   ready to build\r\n")


def test_a_pipe_gets_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    show.detect(FULL, PLAN, "", (), why=True)
    assert capsys.readouterr().out == plain(FULL, why=True)


# ---- texts from outside -----------------------------------------------------------------------

HOSTILE = "[red]x[/red] \x1b[31mred\x1b]0;title\x07\r\nrun       rm -rf ~\u202eevil\x9b2J"


def hostile(value: Any, text: str = HOSTILE) -> Any:
    """A host or plan in which every free text has become another one."""
    if isinstance(value, str):
        return f"{value}{text}"
    if isinstance(value, tuple):
        return tuple(hostile(item, text) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: hostile(getattr(value, f.name), text) for f in dataclasses.fields(value)}
        return replace(value, **fields)
    return value


def test_hostile_names_reach_no_terminal_and_make_no_lines() -> None:
    host, plan = hostile(FULL), hostile(PLAN)
    text = plain(host, plan, hostile(LACKS), why=True)
    assert "[red]x[/red] \\x1b[31mred" in text
    assert not [c for c in text if not c.isprintable() and c != "\n"]
    honest = plain(hostile(FULL, "z"), hostile(PLAN, "z"), hostile(LACKS, "z"), why=True)
    assert len(text.splitlines()) == len(honest.splitlines())
    on_terminal = "".join(painted(host, 100, plan=plan, why=True))
    assert "[red]x[/red]" in on_terminal
    assert on_terminal.isprintable()


def test_a_name_without_end_is_cut_and_a_command_is_not() -> None:
    endless = "x" * 1_000_000
    device = replace(machines.RTX_3060, name=endless)
    text = plain(machines.pc(cuda=replace(machines.NVIDIA, devices=(device,))))
    assert len(text) < 5_000
    command = ("cmake", *(f"-DOPTION_{i}={i}" for i in range(1000)))
    assert " ".join(command) in plain_text(plan_screen(replace(PLAN, cmake=command), ()))


@settings(max_examples=60, deadline=None)
@given(st.text(), st.integers(-5, 10**30), st.integers(20, 120))
@pytest.mark.slow
def test_no_text_and_no_number_breaks_a_screen(text: str, number: int, width: int) -> None:
    host = hostile(FULL, text)
    memory = replace(host.memory, room=number, total=number, swap_total=number, swap_free=-number)
    host = replace(host, memory=memory, cpu=replace(host.cpu, usable=number, logical=number))
    plan = replace(hostile(PLAN, text), memory_peak=number, memory_rung=-number, jobs=number)
    screens = (detect_screen(host, plan, "", LACKS, why=True), plan_screen(plan, LACKS))
    for screen in (*screens, detect_screen(host, None, text, (), why=True)):
        said = plain_text(screen)
        assert not [c for c in said if not c.isprintable() and c != "\n"]
        out = io.StringIO()
        paint(Console(file=out, width=width, force_terminal=True, color_system=None), screen)
        assert not [c for c in out.getvalue() if not c.isprintable() and c != "\n"]


def test_printable_keeps_letters_of_all_scripts() -> None:
    assert printable("Grafikkarte für 日本\tß") == "Grafikkarte für 日本 ß"
    assert printable("a\nb\u2028c\ud800") == "a b c\\ud800"


def test_a_proof_is_told_line_by_line_where_that_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with listening(verbose=True) as tell:
        tell(Proving("mapped \x1b[2J"))
    assert capsys.readouterr().err == "mapped \\x1b[2J\n"


def test_errors_and_events_are_cleaned_too(capsys: pytest.CaptureFixture[str]) -> None:
    show.error("First [b]line.\nSecond \x1b[31mline of {home}.")
    with listening() as tell:
        tell(Said("said \x1b[2J"))
        tell(Proving("one of a hundred"))
        tell(StepDone("probe", "found [red]\x1b[31m"))
        tell(Hint("hint\x07"))
        tell(UnitProgress(9, 10, "unit\x1b[1m", 3.0))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "floatllm-build: First [b]line.",
        "Second \\x1b[31mline of ~.",
        "said \\x1b[2J",
        "probe    found [red]\\x1b[31m",
        "hint\\x07",
        "build    9/10 unit\\x1b[1m (3 s)",
    ]


def test_an_emulated_processor_and_a_system_that_is_an_image_are_shown() -> None:
    cpu = replace(machines.PC.cpu, emulator="QEMU", emulated_on="arm64")
    host = machines.pc(cpu=cpu, os=replace(machines.PC.os, image="ostree"))
    shown = plain(host)
    assert "emulated by QEMU on arm64" in shown
    assert "an image (ostree)" in shown

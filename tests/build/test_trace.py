"""What ninja is going to do and did, and the timeline that is drawn of it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from floatllm_build.build.ninja_log import Span, log_lines, parse_log, planned_units, spans_since
from floatllm_build.build.trace import Moment, lanes, trace

pytestmark = [pytest.mark.programs, pytest.mark.slow]

SPANS = st.lists(
    st.builds(
        lambda unit, start, length: Span(unit, start / 997, (start + length) / 997),
        st.text("abc/.o", min_size=1, max_size=8),
        st.integers(0, 10_000),
        st.integers(0, 3_000),
    ),
    max_size=40,
)


# ---- what is planned --------------------------------------------------------------------------


def test_the_outputs_of_a_dry_run() -> None:
    said = (
        "[1/5/1] : && /usr/bin/ccache /usr/bin/c++ -O3 -MD -MF a.cpp.o.d -o a.cpp.o -c /src/a.cpp && :\n"
        '[2/5/2] /usr/bin/cc -DX=\\"1\\" -o dir/b.c.o -c /src/b.c\n'
        "[2/5/2] /usr/bin/cc -o dir/b.c.o -c /src/b.c\n"
        "[3/5/3] : && /usr/bin/cmake -E rm -f libx.a && /usr/bin/ar qc libx.a a.cpp.o && :\n"
        # CMake's own commands name files as seen from another folder: no target of ninja's.
        "[4/5/4] cd /out/shaders && /usr/bin/glslc -o /out/shaders/mul.spv /src/mul.comp\n"
        '[5/5/5] : && /usr/bin/c++ -shared -o libfloatllm.so a.cpp.o -Wl,-rpath,"$ORIGIN" && :\n'
        "[5/5/5] /usr/bin/cc -c /src/c.c -o\n"
        "ninja: warning: something -output x\n"
    )
    assert planned_units(said) == ("a.cpp.o", "dir/b.c.o", "libfloatllm.so")
    assert planned_units("ninja: no work to do.\n") == ()


def test_the_outputs_of_a_dry_run_with_msvc() -> None:
    said = (
        "[1/3] C:\\VC\\cl.exe /nologo /TP -DX /O2 /Foggml\\ops.cpp.obj /Fdggml\\ /FS -c C:\\src\\ops.cpp\n"
        '[2/3] cmd.exe /C "cd . && C:\\VC\\link.exe /nologo a.obj /out:floatllm.dll /dll && cd ."\n'
        "[3/3] clang-cl.exe -Foa.obj -c a.cpp\n"
    )
    assert planned_units(said) == ("ggml\\ops.cpp.obj", "floatllm.dll", "a.obj")


# ---- what was made ----------------------------------------------------------------------------


@pytest.mark.parametrize("version", [5, 6, 7])
def test_logs_of_all_versions(version: int) -> None:
    text = (
        f"# ninja log v{version}\n"
        "20\t1500\t1795371234567890123\tb.o\t9f3c2a\n"
        "0\t120\t0\ta.o\tdeadbeef\n"
        "130\t140\t7\tone.h\tcafe\n"
        "130\t140\t7\ttwo.h\tcafe\n"
        "130\t140\t7\tthree.o\tbeef\n"
        "\n-1\t3\t0\tx\ty\n1\t2\n12\t" + "9" * 5000 + "\t0\tlong\t1\n"
    )
    # A command with two outputs is one unit; two commands at the same time are two.
    assert parse_log(text.splitlines()) == (
        Span("a.o", 0.0, 0.12),
        Span("b.o", 0.02, 1.5),
        Span("one.h", 0.13, 0.14),
        Span("three.o", 0.13, 0.14),
    )


def test_only_what_is_new_counts_even_where_ninja_wrote_the_log_anew(tmp_path: Path) -> None:
    def line(unit: str, time: int) -> str:
        return f"{time}\t{time + 5}\t{time}\t{unit}\tabc{unit}\n"

    log = tmp_path / ".ninja_log"
    assert not log_lines(tmp_path)
    assert spans_since(tmp_path, frozenset()) == ()
    old = "".join(line("a.o", time) for time in range(1, 50))
    log.write_text(f"# ninja log v6\n{old}")
    before = log_lines(tmp_path)
    assert spans_since(tmp_path, before) == ()
    log.write_text(f"# ninja log v6\n{old}{line('b.o', 3)}")
    assert [span.unit for span in spans_since(tmp_path, before)] == ["b.o"]
    # Recompacted: shorter than it was, the newest line of each output alone, in another order.
    log.write_text(f"# ninja log v6\n{line('b.o', 3)}{line('a.o', 49)}")
    assert [span.unit for span in spans_since(tmp_path, before)] == ["b.o"]
    log.unlink()
    assert spans_since(tmp_path, before) == ()
    log.write_bytes(b"\xff\xfe\0\n")
    assert spans_since(tmp_path, before) == ()


def test_a_real_ninja_recompacts_and_nothing_is_lost(tmp_path: Path) -> None:
    """After a hundred builds of the same three units ninja writes its log anew, in the next build's start."""
    text = "rule c\n  command = cp in.txt $out\n" + "".join(f"build {n}.o: c in.txt\n" for n in "abc")
    (tmp_path / "build.ninja").write_text(text)
    (tmp_path / "in.txt").write_text("0")
    subprocess.run(["ninja", "-C", tmp_path], check=True, capture_output=True)
    log = tmp_path / ".ninja_log"
    lines = log.read_text().splitlines(keepends=True)
    # A hundred builds before this one.
    old = [line.replace(line.split("\t")[2], str(n), 1) for n in range(100) for line in lines[1:]]
    log.write_text("".join([lines[0], *old, *lines[1:]]))
    (tmp_path / "b.o").unlink()
    before = log_lines(tmp_path)
    subprocess.run(["ninja", "-C", tmp_path], check=True, capture_output=True)
    assert len(log.read_text().splitlines()) < 20, "ninja did not write it anew: this test shows nothing"
    assert [span.unit for span in spans_since(tmp_path, before)] == ["b.o"]


# ---- the timeline -----------------------------------------------------------------------------


@given(SPANS)
def test_no_two_spans_overlap_in_a_lane_and_no_lane_is_wasted(spans: list[Span]) -> None:
    placed = lanes(spans)
    assert sorted((span.start, span.end, span.unit) for _, span in placed) == sorted(
        (span.start, span.end, span.unit) for span in spans
    )
    by_lane: dict[int, list[Span]] = {}
    for lane, span in placed:
        assert all(other.end <= span.start for other in by_lane.get(lane, []))
        by_lane.setdefault(lane, []).append(span)
    assert sorted(by_lane) == list(range(len(by_lane)))
    # As many lanes as jobs ran at once at some moment, and no more.
    most = max((sum(o.start <= s.start < o.end or o == s for o in spans) for s in spans), default=0)
    assert len(by_lane) <= most


@given(SPANS, st.lists(st.builds(Moment, st.floats(0, 1e5), st.integers(0), st.integers(0), st.integers(1))))
def test_the_trace_is_what_perfetto_takes(spans: list[Span], moments: list[Moment]) -> None:
    content = json.loads(json.dumps(trace(spans, moments, {})))
    events = content["traceEvents"]
    assert {event["ph"] for event in events} <= {"M", "X", "C"}
    assert all(event["pid"] == 1 and isinstance(event["name"], str) for event in events)
    drawn = [event for event in events if event["ph"] == "X"]
    assert len(drawn) == len(spans)
    assert all(isinstance(event["ts"], int) and event["dur"] >= 0 for event in drawn)
    # Each lane that holds something has a name.
    named = {event["tid"] for event in events if event["name"] == "thread_name"}
    assert named == {event["tid"] for event in drawn}
    # Rounding to microseconds makes no overlap either.
    ends: dict[int, int] = {}
    for event in sorted(drawn, key=lambda event: (event["ts"], event["dur"])):
        assert event["ts"] >= ends.get(event["tid"], 0)
        ends[event["tid"]] = event["ts"] + event["dur"]
    curves = [event for event in events if event["ph"] == "C"]
    assert len(curves) == 3 * len(moments)


def test_a_small_trace_in_full() -> None:
    found = trace([Span("d/a.cpp.o", 0.5, 2.0)], [Moment(1.0, 3 << 20, 5 << 20, 2)], {"d/a.cpp.o": 7 << 20})
    events = found["traceEvents"]
    assert {
        "ph": "X",
        "pid": 1,
        "tid": 1,
        "name": "a.cpp.o",
        "cat": "unit",
        "ts": 500_000,
        "dur": 1_500_000,
        "args": {"output": "d/a.cpp.o", "peak_mib": 7},
    } in events
    curves = {event["name"]: event["args"] for event in events if event["ph"] == "C"}
    assert curves == {
        "memory in use (MiB)": {"MiB": 3},
        "memory free (MiB)": {"MiB": 5},
        "jobs allowed": {"jobs": 2},
    }

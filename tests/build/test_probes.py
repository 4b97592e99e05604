"""What compilers, drivers and files say, and what we make of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from machines import PC

from floatllm_build.errors import UsageFaultError
from floatllm_build.host.cuda import parse_query
from floatllm_build.host.hip import gfx_name
from floatllm_build.host.os_facts import probe_os
from floatllm_build.host.toolchain import parse_compiler, probe_toolchain
from floatllm_build.host.vulkan import parse_summary
from floatllm_build.sizes import parse_size, show_size
from floatllm_build.system import LiveSystem, Recorder, Replay
from floatllm_build.values import Note

GCC_SAYS = "g++ (Debian 12.2.0-14+deb12u1) 12.2.0\nCopyright (C) 2022 Free Software Foundation, Inc.\n"
TERMUX_SAYS = "clang version 21.1.3\nTarget: aarch64-unknown-linux-android24\nThread model: posix\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (GCC_SAYS, ("gcc", "12.2.0")),
        (TERMUX_SAYS, ("clang", "21.1.3")),
        ("Apple clang version 16.0.0 (clang-1600.0.26.6)\n", ("appleclang", "16.0.0")),
        ("Debian clang version 14.0.6\n", ("clang", "14.0.6")),
        ("tcc version 0.9.27\n", None),
    ],
)
def test_compilers_are_what_they_say(text: str, found: tuple[str, str] | None) -> None:
    assert parse_compiler(text) == found


def test_a_link_named_gcc_is_clang_where_it_says_so() -> None:
    record = {
        "schema_version": 1,
        "which": {"cc": "/x/cc", "c++": "/x/c++", "cmake": "/x/cmake"},
        "commands": {
            "cc --version": {"rc": 0, "out": TERMUX_SAYS, "err": ""},
            "c++ --version": {"rc": 0, "out": TERMUX_SAYS, "err": ""},
            "/x/cmake --version": {"rc": 0, "out": "cmake version 3.31.0-rc2\n", "err": ""},
        },
    }
    found = probe_toolchain(Replay(record), PC.os, [])
    assert found.cxx is not None
    assert (found.cxx.kind, found.cxx.version) == ("clang", "21.1.3")
    assert found.cmake is not None
    assert found.cmake.version == "3.31.0-rc2"
    assert found.ninja is None


def test_a_compiler_that_was_named_and_is_not_there_is_not_replaced() -> None:
    record = {"schema_version": 1, "environ": {"CXX": "g++-99"}, "which": {"c++": "/x/c++"}}
    notes: list[Note] = []
    assert probe_toolchain(Replay(record), PC.os, notes).cxx is None
    assert [note.source for note in notes] == ["CXX"]


@pytest.mark.parametrize(
    ("identity", "environ", "name", "termux"),
    [
        ({"system": "Linux", "sys_platform": "linux"}, {"TERMUX_VERSION": "0.118"}, "Android", True),
        ({"system": "Linux", "prefix": "/data/data/com.termux/files/usr"}, {}, "Android", True),
        ({"system": "Android", "sys_platform": "android"}, {}, "Android", False),
        ({"system": "Linux", "sys_platform": "linux"}, {}, "Linux", False),
    ],
)
def test_termux_under_all_its_names(
    identity: dict[str, str], environ: dict[str, str], name: str, termux: bool
) -> None:
    facts = probe_os(Replay({"schema_version": 1, "native": {"identity": identity}, "environ": environ}))
    assert (facts.name, facts.termux) == (name, termux)


def test_nvidia_smi() -> None:
    driver, devices = parse_query(
        "550.54, 8.6, 12288, NVIDIA GeForce RTX 3060\n540.4, 8.7, [N/A], Orin (nvgpu)\n"
    )
    assert driver == "540.4"
    assert [(device.capability, device.memory) for device in devices] == [("86", 12288 << 20), ("87", 0)]
    assert parse_query("NVIDIA-SMI has failed because it couldn't communicate\n") == ("", ())


def test_software_vulkan_devices_do_not_count() -> None:
    text = (
        "GPU0:\n\tdeviceType   = PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU\n\tdeviceName   = Intel UHD\n"
        "GPU1:\n\tdeviceType   = PHYSICAL_DEVICE_TYPE_CPU\n\tdeviceName   = llvmpipe\n"
    )
    assert parse_summary(text) == ("Intel UHD",)


@pytest.mark.parametrize(("version", "name"), [(90010, "gfx90a"), (110001, "gfx1101"), (100300, "gfx1030")])
def test_gfx_names(version: int, name: str) -> None:
    assert gfx_name(version) == name


def test_refusals_are_recorded_and_replayed(tmp_path: Path) -> None:
    here = tmp_path / "file"
    here.write_text("text")
    recorder = Recorder(LiveSystem())
    assert recorder.read(str(here)) == "text"
    with pytest.raises(FileNotFoundError):
        recorder.read(str(tmp_path / "gone"))
    assert recorder.run(("sh", "-c", "echo out; echo err >&2; exit 3")).rc == 3
    assert recorder.run((str(tmp_path / "gone"),)).rc == 127
    assert recorder.run(("sleep", "5"), timeout=0.1).rc == 124
    recorder.which("sh")
    record = tmp_path / "host.json"
    record.write_text(recorder.text())
    here.unlink()
    replayed = Replay.load(record)
    assert replayed.read(str(here)) == "text"
    with pytest.raises(FileNotFoundError):
        replayed.read(str(tmp_path / "gone"))
    assert replayed.run(("sh", "-c", "echo out; echo err >&2; exit 3")).out == "out\n"
    assert replayed.run(("sleep", "5")).rc == 124
    assert replayed.which("sh") == recorder.which("sh")


@pytest.mark.parametrize(
    ("text", "size"),
    [("512M", 512 << 20), ("2GiB", 2 << 30), ("1.5g", 3 << 29), ("48 m", 48 << 20), ("7", 7), ("1kib", 1024)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1M", "1X", "1e9", "0.1", "nan", "M", "9" * 30])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageFaultError):
        parse_size(text)


def test_sizes_are_shown_in_the_largest_unit() -> None:
    assert [show_size(size) for size in (512, 1 << 20, 1500 << 20, 23 << 30)] == [
        *("512 B", "1.0 MiB", "1.5 GiB", "23.0 GiB")
    ]

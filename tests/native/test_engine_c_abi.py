"""The header and the library from C, and the structures that ctypes repeats."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from floatllm import Engine, Model, _lib
from floatllm.sampler import top
from installed import Installed
from llama_numpy import weights
from tool_environment import skip_or_fail

_HERE = Path(__file__).parent
_INCLUDE = _HERE.parents[1] / "native" / "include"


def _compiler() -> str:
    found = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not found:
        skip_or_fail("no C compiler")
    assert found is not None
    return found


def _example(name: str, folder: Path) -> Path:
    """A program of this folder, compiled and linked with the engine."""
    library = Path(os.environ["FLOATLLM_LIBRARY"])
    program = folder / name
    command = [_compiler(), "-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-I{_INCLUDE}"]
    command += [str(_HERE / f"{name}.c"), str(library), f"-Wl,-rpath,{library.parent}", "-o", str(program)]
    subprocess.run(command, check=True)
    return program


def test_an_example_in_c_maps_a_model(engine: Installed, image_like: Path, tmp_path: Path) -> None:
    program = _example("example", tmp_path)
    done = subprocess.run([program, image_like, "131072"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    *tensors, last = done.stdout.splitlines()
    with Model.open(image_like) as model:
        expected = [f"{t.name} {t.type} {list(t.shape)} {t.size}" for t in model.tensors]
        first = weights(image_like)[model.tensors[0].name].sum()
    assert tensors == expected
    chunks, found = last.split(" chunks, first sum ")
    assert int(chunks) > 1
    assert float(found) == pytest.approx(first, abs=0.1)
    missing = subprocess.run([program, "/nowhere.gguf", "1"], capture_output=True, text=True, check=False)
    assert missing.returncode == 7
    assert "/nowhere.gguf" in missing.stderr


@pytest.mark.parametrize("chunk", [0, 65536])
def test_an_example_in_c_runs_a_model(engine: Installed, tiny: Path, tmp_path: Path, chunk: int) -> None:
    program = _example("example_run", tmp_path)
    prompt, steps = [5, 6, 7, 200], 9
    with Model.open(tiny) as model, Engine(model.plan(device="CPU", ctx=256, chunk=chunk or None)) as session:
        tokens = list(session.generate(prompt, steps, ignore_end=True))
        session.truncate(len(prompt) - 1)
        logits = session.forward(prompt[-1:])
        expected = [" ".join(map(str, tokens))]
        expected += [f"{token} {logits[token]:.5f}" for token in top(logits, 3)]
        expected.append(f"{len(prompt)} of 256 positions")
    command = [program, tiny, str(chunk), str(steps), *map(str, prompt)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == expected
    wrong = subprocess.run([*command, "256"], capture_output=True, text=True, check=False)
    assert (wrong.returncode, "vocabulary" in wrong.stderr) == (2, True)


def test_ctypes_repeats_the_header(tmp_path: Path) -> None:
    mirrored = {
        "floatllm_device_info": _lib.DeviceInfo,
        "floatllm_tensor_info": _lib.TensorInfo,
        "floatllm_meta_info": _lib.MetaInfo,
        "floatllm_plan_params": _lib.PlanParams,
        "floatllm_event": _lib.EventInfo,
        "floatllm_addition": _lib.Addition,
    }
    lines = ["#include <floatllm.h>", "#include <stddef.h>", "#include <stdio.h>", "int main(void) {"]
    lines.append('    printf("%d\\n", FLOATLLM_ABI_VERSION);')
    expected = [str(_lib.ABI_VERSION)]
    for name, structure in mirrored.items():
        lines.append(f'    printf("%zu\\n", sizeof({name}));')
        expected.append(str(ctypes.sizeof(structure)))
        for field, *_ in structure._fields_:
            lines.append(f'    printf("%zu\\n", offsetof({name}, {field}));')
            expected.append(str(getattr(structure, field).offset))
    lines.append("    return 0;\n}")
    (tmp_path / "layout.c").write_text("\n".join(lines))
    program = tmp_path / "layout"
    source = str(tmp_path / "layout.c")
    subprocess.run([_compiler(), f"-I{_INCLUDE}", source, "-o", str(program)], check=True)
    found = subprocess.run([program], capture_output=True, text=True, check=True).stdout.split()
    assert found == expected


def test_every_function_of_the_header_is_declared() -> None:
    header = (_INCLUDE / "floatllm.h").read_text(encoding="utf-8")
    declared = {
        word.split("(")[0].lstrip("*")
        for line in header.splitlines()
        if line.startswith("FLOATLLM_API")
        for word in line.split()
        if "(" in word and word.lstrip("*").startswith("floatllm_")
    }
    assert declared == set(_lib._SIGNATURES)

"""Engines for 64-bit Arm, cross-compiled, and the emulator that runs them with a program in C."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from tool_environment import ROOT, skip_or_fail

sys.path.insert(0, str(ROOT / "native"))
from floatllm import _testmodel

TRIPLE = "aarch64-linux-gnu"
SHAPE = _testmodel.Shape()
TOKENS = (1, 7, 300, 42, 42, 128, 0, 319)
# The self-test's own limit: ggml rounds activations to Q8_0 before it multiplies Q8_0 weights.
FROM_PLAIN_PYTHON = 5e-4

TOOLCHAIN = f"""
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER {TRIPLE}-gcc)
set(CMAKE_CXX_COMPILER {TRIPLE}-g++)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
"""
WHAT_CPU = """
#include <stdio.h>
#include <sys/auxv.h>
int main(void) { printf("[%lu, %lu]\\n", getauxval(AT_HWCAP), getauxval(AT_HWCAP2)); return 0; }
"""
# The logits after the tokens, in two calls, so that the second reads what the first left in the KV cache.
PROGRAM = """
#include <floatllm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check(const char *what, floatllm_status status, char *error) {
    if (status != FLOATLLM_OK) {
        fprintf(stderr, "%s: %s\\n", what, error ? error : "no message");
        exit((int)status);
    }
}

int main(int argc, char **argv) {
    char *error = NULL;
    /* The library lies beside this program. */
    char folder[4096];
    snprintf(folder, sizeof folder, "%s", argv[0]);
    *strrchr(folder, '/') = 0;
    check("load", floatllm_load_backends(folder, strlen(folder), &error), error);
    fprintf(stderr, "kernels: %s\\n", floatllm_cpu_variant());
    floatllm_model *model = NULL;
    check("open", floatllm_model_open(argv[1], strlen(argv[1]), &model, &error), error);
    floatllm_plan_params params;
    memset(&params, 0, sizeof params);
    params.struct_size = sizeof params;
    params.memory = 256u << 20;
    params.chunk = strtoull(argv[2], NULL, 10);
    params.threads = 1;
    params.device = "CPU";
    floatllm_plan *plan = NULL;
    check("plan", floatllm_plan_create(model, &params, &plan, &error), error);
    floatllm_session *session = NULL;
    check("session", floatllm_session_open(plan, &session, &error), error);
    const size_t vocab = floatllm_session_vocab(session), count = (size_t)argc - 3;
    float *logits = calloc(vocab, sizeof *logits);
    int32_t *tokens = calloc(count, sizeof *tokens);
    for (size_t i = 0; i < count; ++i) {
        tokens[i] = (int32_t)strtol(argv[3 + i], NULL, 10);
    }
    check("forward", floatllm_session_forward(session, tokens, count - 1, logits, vocab, &error), error);
    check("forward", floatllm_session_forward(session, tokens + count - 1, 1, logits, vocab, &error), error);
    for (size_t i = 0; i < vocab; ++i) {
        printf("%s%.9g", i ? ", " : "[", (double)logits[i]);
    }
    puts("]");
    return 0;
}
"""


@dataclass(frozen=True)
class Engine:
    """A library, and a program linked to it."""

    library: Path
    program: Path
    manifest: Path

    def command(self, model: Path, chunk: int) -> list[str]:
        return [str(self.program), str(model), str(chunk), *map(str, TOKENS)]


# It is looked at what an emulator computes, not how fast: a third of the time of -O3 to compile.
LIGHT = tuple(f"-DCMAKE_{language}_FLAGS_RELEASE=-O1 -DNDEBUG" for language in ("C", "CXX"))


def needs(*programs: str) -> None:
    for program in programs:
        if not shutil.which(program):
            skip_or_fail(
                f"{program} is not on PATH (Debian: apt install cmake ninja-build gcc-{TRIPLE} g++-{TRIPLE} "
                "qemu-user)"
            )


def done(*command: object, **variables: str) -> str:
    """What the command prints, once it has ended well."""
    words = [str(word) for word in command]
    ran = subprocess.run(
        words, env={**os.environ, **variables}, capture_output=True, text=True, timeout=600, check=False
    )
    assert ran.returncode == 0, (
        f"{' '.join(words)}: {ran.returncode}\n{ran.stdout[-2000:]}{ran.stderr[-2000:]}"
    )
    return ran.stdout


def emulated(cpu: str, *command: object, **variables: str) -> list[str]:
    """The command, on an emulated processor."""
    # Debian keeps the libraries of its cross-compilers there; a machine that is itself one has them in place.
    root = Path(f"/usr/{TRIPLE}")
    words = ["qemu-aarch64", "-L", str(root) if (root / "lib").is_dir() else "/", "-cpu", cpu]
    for name, value in variables.items():
        words += ["-E", f"{name}={value}"]
    return [*words, *map(str, command)]


def cross_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a cross build is made from, and the program's source."""
    needs("cmake", "ninja", "qemu-aarch64", f"{TRIPLE}-gcc", f"{TRIPLE}-g++")
    folder = tmp_path_factory.mktemp("aarch64")
    for part in ("native", "presets", "ggml"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("build", "source", "*.so"))
    (folder / "toolchain.cmake").write_text(TOOLCHAIN)
    (folder / "program.c").write_text(PROGRAM)
    return folder


def compiled(compiler: str, source: Path, library: Path) -> Path:
    program = library.parent / "program" if os.access(library.parent, os.W_OK) else source.parent / "program"
    link = (library, f"-Wl,-rpath,{library.parent}", "-Wl,--allow-shlib-undefined")
    done(compiler, "-O1", f"-I{ROOT / 'native' / 'include'}", source, *link, "-o", program)
    return program

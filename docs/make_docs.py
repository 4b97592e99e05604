"""Makes the pages that are tables of what the code says itself: `python docs/make_docs.py` rewrites them."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from floatllm_build.cli import app
from floatllm_build.matrix import FEATURE, WheelRow, excluded, make_matrix, plugins
from floatllm_build.presets import Preset, load_platforms, load_presets
from floatllm_build.versions import CMAKE_MINIMUM

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
COMMAND = "python docs/make_docs.py"

# Read where no option is: variable, who reads it, what it means.
OURS = (
    (
        "FLOATLLM_CACHE_DIR",
        "all, and plain cmake",
        "Folder of ggml's source, build folders, wheels and tools, instead of the user's cache folder",
    ),
    (
        "FLOATLLM_LIBRARY",
        "the engine, `floatllm`",
        "The library file to load instead of the installed one. For developers; proofs ignore it",
    ),
)
FOREIGN = (
    ("CC", "The C compiler, arguments allowed (`ccache gcc`)"),
    ("CXX", "The C++ compiler, arguments allowed"),
    ("CMAKE_ARGS", "Further options for cmake, after the plan's own; what contradicts the plan is refused"),
    ("CMAKE_EXECUTABLE", "The cmake to use, instead of the one on `PATH`"),
    ("NINJA", "The ninja to use, instead of the one on `PATH`"),
    ("CUDACXX", "The nvcc to use, before any other that is found"),
    ("CUDA_PATH", "Folder of a CUDA toolkit, looked into after `CUDACXX`"),
    ("CUDA_HOME", "As `CUDA_PATH`, and after it"),
    ("VULKAN_SDK", "Folder of Vulkan's headers, glslc, SPIRV-Headers and loader, before the system's"),
    ("ROCM_PATH", "Folder of ROCm, before those in `/opt`"),
    ("VIRTUAL_ENV", "The environment to install into, where `--python` names none"),
    ("CONDA_PREFIX", "The same for conda, where `VIRTUAL_ENV` is not set"),
    ("AUDITWHEEL_PLAT", "Platform tag of portable wheels, set in manylinux images, instead of the one found"),
    ("NO_COLOR", "Set to anything: plain text without colours"),
)


@dataclass
class Setting:
    variable: str
    option: str
    meaning: str
    commands: list[str]


def settings(application: typer.Typer) -> tuple[list[Setting], set[str]]:
    """Options that have a variable, in the order in which they come up; and the names of those without."""
    found: dict[str, Setting] = {}
    without: set[str] = set()
    # Of click's own types nothing is named here: newer typers carry a click of their own.
    group: Any = typer.main.get_command(application)
    for name, command in group.commands.items():
        for option in command.params:
            variable = option.envvar if isinstance(option.envvar, str) else ""
            if not variable:
                without.add(option.opts[0])
                continue
            meaning = (getattr(option, "help", None) or "").rstrip(".")
            row = Setting(variable, option.opts[0], meaning, [])
            found.setdefault(variable, row).commands.append(name)
    return list(found.values()), without


def settings_page(application: typer.Typer) -> str:
    rows, _ = settings(application)
    table = [(f"`{row.option}`", f"`{row.variable}`", ", ".join(row.commands), row.meaning) for row in rows]
    table += [("none", f"`{name}`", who, meaning) for name, who, meaning in OURS]
    table += [("none", f"`{name}`", "all", meaning) for name, meaning in FOREIGN]
    return _page(
        "Settings",
        "Whatever `floatllm-build` decides can be decided otherwise, by an option or by its variable in the",
        "environment; the option wins. A switch is on for `1`, `true`, `yes` and `on`. The last rows are",
        "other programs' variables, honoured here as there.",
        "",
        *_table(("option", "variable", "commands", "meaning"), table),
        "",
        "Where pip builds the engine (`pip install ./native`, or the engine's source archive), what `wheel`",
        "can be told comes from the same variables or from `--config-settings floatllm.backend=cuda`, which",
        "wins (from pip 23.1 on also `-C`). Paths are",
        "whole there, and a slip in a name is an error that says what was meant.",
        "",
        "A request that cannot be met is an error that says what is missing, never another build. A package",
        "index is chosen by pip's and uv's own settings, in variables and in files: index, find-links,",
        "proxy, certificates, cache. Their settings for where and how to install (`PIP_USER`, `PIP_TARGET`,",
        "`PIP_REQUIRE_HASHES`, constraints and the like) are ignored.",
    )


def presets_page(presets: Mapping[str, Preset], parts: Mapping[str, Part]) -> str:
    rows = [
        (f"`{name}`", one.backend, one.description, str(one.jobs), _made_of(parts[name]))
        for name, one in presets.items()
    ]
    mixins = [
        (f"`{name}`", part.description, _sets(part)) for name, part in parts.items() if name not in presets
    ]
    minimum = ".".join(map(str, CMAKE_MINIMUM))
    return _page(
        "Presets",
        "What can be built. `floatllm-build` chooses one of them and says why; `--preset NAME` asks for one.",
        "",
        *_table(("preset", "backend", "for", "jobs", "made of"), rows),
        "",
        "They are made of these, which CMake hides. Where two set the same, the one named first wins.",
        "",
        *_table(("part", "for", "sets"), mixins),
        "",
        "## With plain cmake",
        "",
        f"They need CMake {minimum} or newer and Ninja, and nothing of the Python tool:",
        "",
        "```sh",
        "cmake --preset cpu -S native -DGGML_DIR=PATH",
        "cd native && cmake --build --preset cpu",
        "```",
        "",
        "`PATH` is a folder of the pinned ggml. Where `floatllm-build fetch` brought it into the cache once,",
        "`-DGGML_DIR` may be left out. The result is `native/build/cpu/libfloatllm.so` (`.dylib`, `.dll`).",
        "Each build preset has its configure preset's name and carries its jobs; `-j` overrides them, and",
        "further `-D` options override what a preset sets. `android-ndk-arm64` reads `ANDROID_NDK_HOME`.",
        "Only `floatllm-build` adds what depends on the machine: the GPU's architecture, an older host",
        "compiler, and as many jobs as memory holds.",
    )


def wheels_page(rows: tuple[WheelRow, ...], without: Mapping[str, str]) -> str:
    head = ("id", "distribution", "platform", "proven on", "state", "runner", "cibuildwheel", "environment")
    table = [
        (
            *(f"`{row.id}`", f"`{row.distribution}`", f"`{row.tag}`", row.proof, row.state),
            *(f"`{row.runner}`", f"`{row.identifier}`", f"`{row.environment}`"),
        )
        for row in rows
    ]
    prepared = {row.prepare: row.platform.partition("-")[0] for row in rows if row.prepare}
    return _page(
        "Wheels",
        *_prose(
            "What `.github/workflows/wheels.yml` makes for a release. `floatllm-build matrix` lists the "
            "same, and with `--json` as the workflow reads it."
        ),
        *_table(head, table),
        "",
        *_prose(
            "runs: watched running; builds: compiled or configured, not run; untried: written, made nowhere "
            "yet. An untried one does not hold up the others where it fails, and what is proven on nothing "
            "does not leave."
        ),
        *_prose(
            "All are `py3-none`: one wheel serves every Python. `floatllm` is the engine, which chooses "
            "among its CPU variants when it is loaded, and has Metal in it on a Mac; "
            f"{_names(plugins(rows).values())} each add a backend's library to the same version of it. "
            "Android's is for apps that carry Python (PEP 738); Termux builds its own."
        ),
        "There is no wheel of",
        "",
        *(f"- `{name}`: {reason}." for name, reason in without.items()),
        "",
        "## How they are made",
        "",
        *_prose(
            "The engine's own build backend, which cibuildwheel calls, repairs and proves its wheel, so "
            "cibuildwheel does not repair it again. A plugin is made by `floatllm-build wheel` in the same "
            "image, after"
        ),
        *(f"- `{command}` ({family}, for Vulkan)" for command, family in prepared.items()),
        "",
        *_prose(
            "and the tool brings CUDA's compiler from the package index. Each wheel is then installed into a "
            "fresh environment that reaches no compiler and runs its self-test and `floatllm-build verify` "
            "there; then it is attested and published. The images are those that cibuildwheel pins:"
        ),
        *(f"- `{image}`" for image in dict.fromkeys(row.image for row in rows if row.image)),
        "",
        "## Variants (experimental)",
        "",
        *_prose(
            "By the draft of PEP 817 an installer chooses among wheels by what a machine has. "
            "`floatllm-build wheel --variants`, with `pip install 'floatllm-build[variants]'`, writes a "
            "portable wheel, beside it the same engine once for each plugin, which it then depends on, and "
            "the index that the draft wants. What tells them apart is the property "
            + " or ".join(f"`floatllm :: {FEATURE} :: {name}`" for name in plugins(rows))
            + ", and `floatllm_build.variant_provider` says which of them fit. pip takes the plain wheel. So "
            "does uv 0.13 with `--preview-features wheel-variants`, which asks no providers but its own. The "
            "files change with the draft."
        )[:-1],
    )


def _prose(text: str) -> tuple[str, ...]:
    """A paragraph, and the empty line after it."""
    return (*textwrap.wrap(text, 110, break_on_hyphens=False), "")


def _names(words: Iterable[str]) -> str:
    return " and ".join(f"`{word}`" for word in words)


@dataclass(frozen=True)
class Part:
    """A configure preset, hidden or not, with what it says itself."""

    description: str
    inherits: tuple[str, ...]
    variables: Mapping[str, str]


def read_parts(root: Path) -> dict[str, Part]:
    """All configure presets, `base` and its neighbours first."""
    found = {}
    for path in sorted((root / "presets").glob("*.json"), key=lambda path: (path.stem != "base", path.stem)):
        for one in json.loads(path.read_text(encoding="utf-8"))["configurePresets"]:
            inherits = one.get("inherits", ())
            found[one["name"]] = Part(
                description=one.get("description", ""),
                inherits=(inherits,) if isinstance(inherits, str) else tuple(inherits),
                variables=one.get("cacheVariables", {}),
            )
    return found


def pages() -> dict[str, str]:
    """File name -> text."""
    return {
        "presets.md": presets_page(load_presets(ROOT), read_parts(ROOT)),
        "settings.md": settings_page(app),
        "wheels.md": wheels_page(
            make_matrix(load_presets(ROOT), load_platforms(ROOT)), excluded(load_presets(ROOT))
        ),
    }


def _made_of(part: Part) -> str:
    return ", ".join((*(f"`{name}`" for name in part.inherits), *filter(None, (_sets(part),))))


def _sets(part: Part) -> str:
    # Its own name, which every preset sets, says nothing here.
    return " ".join(f"`{key}={value}`" for key, value in part.variables.items() if key != "FLOATLLM_PRESET")


def _page(title: str, *lines: str) -> str:
    made = f"<!-- Made by `{COMMAND}`; change what it reads instead. -->"
    return "\n".join((f"# {title}", "", made, "", *lines, ""))


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    lines = [head, tuple("---" for _ in head), *rows]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines]


if __name__ == "__main__":
    for name, text in pages().items():
        (DOCS / name).write_text(text, encoding="utf-8", newline="\n")

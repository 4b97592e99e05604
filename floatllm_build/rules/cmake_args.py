"""What CMAKE_ARGS says against a plan. Pure.

Other projects' instructions put options there (`CMAKE_ARGS="-DGGML_CUDA=on" pip install ...`), and shells
keep them. CMake takes them after the plan's own, so that they win.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from floatllm_build.values import BACKENDS, Backend

# Suffixes of the switches of ggml and of programs on it, former ones included, by the backend they turn on.
# Sources: CMakeLists.txt of ggml 0.26.0, read in November 2026; README of llama-cpp-python 0.2 and 0.3 and
# CMakeLists.txt of llama.cpp, whisper.cpp and stable-diffusion.cpp of 2023 to 2025, for the former names.
_SWITCHES: Mapping[str, Backend] = {
    "CUDA": "cuda",
    "CUBLAS": "cuda",
    "HIP": "hip",
    "HIPBLAS": "hip",
    "METAL": "metal",
    "VULKAN": "vulkan",
}
_OTHERS = {
    *("BLAS", "OPENBLAS", "CLBLAST", "OPENCL", "SYCL", "KOMPUTE", "MUSA", "CANN", "WEBGPU", "OPENVINO"),
    *("ZDNN", "ZENDNN", "HEXAGON", "VIRTGPU"),
}
_SWITCH = re.compile(rf"(?:GGML|LLAMA|WHISPER|SD)_(?P<kind>{'|'.join((*_SWITCHES, *_OTHERS))})")
# The switches that ggml has today: only these can turn something off.
_TODAY = {f"GGML_{backend.upper()}": backend for backend in BACKENDS if backend != "cpu"}

_UNSET = "take it out of CMAKE_ARGS, or unset CMAKE_ARGS"
# What the plan, the packing and the proof stand on, and how it is chosen instead.
_FIXED: Mapping[str, str] = {
    "BUILD_SHARED_LIBS": f"{_UNSET}: the preset decides how the wheel is packed",
    "GGML_BACKEND_DL": f"{_UNSET}: the preset decides how the wheel is packed",
    "GGML_STATIC": f"{_UNSET}: the preset decides how the wheel is packed",
    "FLOATLLM_PLUGIN": f"{_UNSET}: the preset decides how the wheel is packed",
    "GGML_CPU": f"{_UNSET}: the engine needs the CPU's backend",
    "GGML_DIR": "name the folder with --ggml-dir",
    "CMAKE_C_COMPILER": "name the compiler in CC",
    "CMAKE_CXX_COMPILER": "name the compiler in CXX",
    "CMAKE_CUDA_COMPILER": "name nvcc in CUDACXX",
    "CMAKE_CUDA_HOST_COMPILER": "name the compiler in CUDAHOSTCXX",
    "CMAKE_CUDA_ARCHITECTURES": "name the GPUs with --architectures",
    "CMAKE_HIP_ARCHITECTURES": "name the GPUs with --architectures",
    "GPU_TARGETS": "name the GPUs with --architectures",
    "AMDGPU_TARGETS": "name the GPUs with --architectures",
    "CMAKE_MAKE_PROGRAM": "name ninja in NINJA",
    "CMAKE_GENERATOR": f"{_UNSET}: the build is made by ninja",
    "CMAKE_TOOLCHAIN_FILE": "build for another machine with plain cmake (cmake --preset NAME -S native)",
    "CMAKE_SYSTEM_NAME": "build for another machine with plain cmake (cmake --preset NAME -S native)",
}
# What the cmake line of every plan sets; the build reads its own flags from the last. Other options of
# native/, as FLOATLLM_SANITIZE, are the user's.
_ON_EACH_LINE = {"FLOATLLM_PRESET", "FLOATLLM_PROOF", "FLOATLLM_FLAGS_FILE"}
# Options of cmake that are not -D, with the word that follows them.
_OPTIONS: Mapping[str, str] = {
    "-G": "CMAKE_GENERATOR",
    "--toolchain": "CMAKE_TOOLCHAIN_FILE",
    "-S": "",
    "-B": "",
    "-A": "",
    "-T": "",
    "--preset": "",
}
_WITH_VALUE = (*_OPTIONS, "-C", "-D", "-U", "--install-prefix")
_TRUE = {"1", "ON", "YES", "TRUE", "Y"}
_FALSE = {"", "0", "OFF", "NO", "FALSE", "N", "IGNORE", "NOTFOUND"}


@dataclass(frozen=True)
class Told:
    """One option of CMAKE_ARGS."""

    text: str
    """As it can be found there: `-DGGML_CUDA=on`."""
    option: str
    """-D, -G, ...; empty for a word that is no option."""
    name: str
    """Of the variable of -D."""
    value: str


@dataclass(frozen=True, kw_only=True)
class Heard:
    """What an answer to CMAKE_ARGS has to say."""

    against: tuple[str, ...]
    """What cannot be built like that, each a sentence with what to do, without capital and full stop."""
    instead: tuple[str, ...]
    """What is passed on although the plan had another value: `-DGGML_NATIVE=OFF instead of ON`."""


def heed(
    arguments: tuple[str, ...],
    backend: Backend,
    variables: Mapping[str, str],
    why_not: Mapping[Backend, str],
) -> Heard:
    """Compares CMAKE_ARGS with a plan for `backend` whose preset and defines set `variables`.

    `why_not`: the reasons against the other backends.
    """
    against, instead = [], []
    # Of several values of one variable the last counts.
    told = {(one.option, one.name or one.text): one for one in read(arguments)}
    for one in told.values():
        if objection := _objection(one, backend, variables, why_not):
            against.append(objection)
        elif one.name in variables and not same(one.value, variables[one.name]):
            instead.append(f"{one.text} instead of {variables[one.name] or 'nothing'}")
    return Heard(against=tuple(against), instead=tuple(instead))


def _objection(
    one: Told, backend: Backend, variables: Mapping[str, str], why_not: Mapping[Backend, str]
) -> str:
    if one.option != "-D":
        return _of_an_option(one)
    if switch := _SWITCH.fullmatch(one.name):
        return _of_a_switch(one, switch["kind"], backend, why_not)
    planned = variables.get(one.name)
    ours = one.name.startswith("FLOATLLM_") and planned is not None and not same(one.value, planned)
    if one.name in _ON_EACH_LINE or ours:
        return f"{one.text} sets what the plan sets: {_UNSET}"
    if one.name in _FIXED and (planned is None or not same(one.value, planned)):
        # What is off without being planned may be said to be off.
        return "" if planned is None and is_off(one.value) else f"{one.text}: {_FIXED[one.name]}"
    return ""


def _of_an_option(one: Told) -> str:
    if not one.option:
        return f"`{one.text}` is no option of cmake; for a variable write -D before it"
    if one.option == "-G" and one.value == "Ninja":
        return ""
    if one.option in _OPTIONS:
        return f"{one.text}: {_FIXED.get(_OPTIONS[one.option]) or f'{_UNSET}: the plan sets it'}"
    return ""


def _of_a_switch(one: Told, kind: str, backend: Backend, why_not: Mapping[Backend, str]) -> str:
    meant = _SWITCHES.get(kind)
    if is_off(one.value):
        wrong = _TODAY.get(one.name) == backend
        return (
            f"{one.text} turns off {backend}, which is planned: {_UNSET}; --backend names another"
            if wrong
            else ""
        )
    if meant == backend:
        return ""
    if meant is None:
        return f"{one.text} turns on what this tool does not build: {_UNSET}"
    why = f" ({why_not[meant]})" if meant in why_not else ""
    return (
        f"{one.text} asks for {meant}, and {backend} is planned{why}: {_UNSET}; --backend {meant} asks for it"
    )


# ---- words of cmake ---------------------------------------------------------------------------


def read(arguments: tuple[str, ...]) -> Iterator[Told]:
    """The options in their order. A list with semicolons, as some write it, is taken apart."""
    words = [part for word in arguments for part in re.split(r";(?=-)", word)]
    waiting = ""
    for word in words:
        if waiting:
            yield _told(waiting, word, f"{waiting} {word}")
            waiting = ""
            continue
        option = next((name for name in _WITH_VALUE if word.startswith(name)), "")
        rest = word.removeprefix(option)
        if option.startswith("--"):
            # `--preset=x`; and `--preset-of-another-name` is none of these.
            option = option if rest[:1] in {"", "="} else ""
            rest = rest.removeprefix("=")
        if option and not rest:
            waiting = option
        elif option:
            yield _told(option, rest, word)
        elif not word.startswith("-"):
            yield Told(text=word, option="", name="", value="")
    if waiting:
        yield Told(text=waiting, option="", name="", value="")


def _told(option: str, rest: str, text: str) -> Told:
    name, _, value = rest.partition("=")
    if option != "-D":
        return Told(text=text, option=option, name="", value=rest)
    return Told(text=text, option=option, name=name.partition(":")[0].strip(), value=value.strip("\"'"))


def is_off(value: str) -> bool:
    """As cmake's `if` takes a constant."""
    told = value.strip().upper()
    return told in _FALSE or told.endswith("-NOTFOUND") or bool(re.fullmatch(r"0*(\.0*)?", told))


def same(one: str, other: str) -> bool:
    """Whether two values mean the same to cmake."""
    if one == other:
        return True
    plain = [value.strip().upper() for value in (one, other)]
    both = all(value in _TRUE | _FALSE for value in plain)
    return both and (plain[0] in _TRUE) == (plain[1] in _TRUE)

"""The build backend that pip and its kin call (PEP 517 and 660): floatllm_build's own flow, up to its wheel.

It has no prepare_metadata hooks: what the wheel requires is part of the plan (CUDA's libraries come as
packages where the toolkit did). So installers take the metadata out of the
wheel, which is built once for both.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
]

_NATIVE = Path(__file__).resolve().parent
_ROOT = _NATIVE.parent
# How long a build waits for a driver's answer.
_SECONDS = 30.0
_Given = Mapping[str, Any] | None


def _stop(message: str, status: int) -> NoReturn:
    sys.stderr.write(f"floatllm: {message}\n")
    raise SystemExit(status)


if not (_ROOT / "floatllm_build" / "__init__.py").is_file():
    _stop(
        f"{_ROOT} has no floatllm_build beside native/, which builds the engine. Build in a whole checkout, "
        "or from the engine's source archive.",
        3,
    )
# The one beside us belongs to these sources; one that is installed may be of another version.
sys.path.insert(0, str(_ROOT))
try:
    from scikit_build_core.builder.get_requires import GetRequires
    from scikit_build_core.settings.skbuild_read_settings import SettingsReader

    from floatllm_build import flow
    from floatllm_build.errors import FloatllmBuildError, refused
    from floatllm_build.interrupts import INTERRUPTED, mind_interrupts
    from floatllm_build.paths import cache_dir
    from floatllm_build.plain import Lines, printable_lines, tilde
    from floatllm_build.settings import in_pips_words, path_of, request_of, settings_for_pip, trace_file
    from floatllm_build.symbols import Door, Symbols
    from floatllm_build.system import LiveSystem
    from floatllm_build.troubles import REPORT, REPORTED, keep_trouble, trouble_of
except ModuleNotFoundError as error:
    _stop(
        f"{error.name} is missing, which building without isolation needs: "
        "pip install 'scikit-build-core>=1.1' packaging platformdirs",
        3,
    )


def build_wheel(
    wheel_directory: str, config_settings: _Given = None, metadata_directory: str | None = None
) -> str:
    del metadata_directory  # there is no hook that would have filled it
    with _hook():
        door = _door()
        wish = _wish(door, config_settings)
        # A plugin is another project's wheel.
        (wheel,) = flow.make_wheels(door, wish, Path(wheel_directory), _tell(), alone=True)
        return Path(wheel.path).name


def build_editable(
    wheel_directory: str, config_settings: _Given = None, metadata_directory: str | None = None
) -> str:
    del metadata_directory
    with _hook():
        door = _door()
        return flow.make_editable(door, _wish(door, config_settings), Path(wheel_directory), _tell()).name


def build_sdist(sdist_directory: str, config_settings: _Given = None) -> str:
    with _hook():
        _wish(_door(), config_settings)
        return flow.make_sdist(LiveSystem(), Path(sdist_directory), _tell()).name


def get_requires_for_build_wheel(config_settings: _Given = None) -> list[str]:
    with _hook():
        # A slip in a setting ends here, before anything is fetched for a build.
        _wish(_door(), config_settings)
        return _programs()


def get_requires_for_build_editable(config_settings: _Given = None) -> list[str]:
    return get_requires_for_build_wheel(config_settings)


def get_requires_for_build_sdist(config_settings: _Given = None) -> list[str]:
    with _hook():
        _wish(_door(), config_settings)
        return []


def _programs() -> list[str]:
    """Wheels of cmake and ninja, where the machine has none that is recent enough."""
    if hasattr(sys, "getandroidapilevel"):
        # There they would be compiled for an hour. Without them the flow says what to install.
        return []
    settings = SettingsReader.from_file(_NATIVE / "pyproject.toml", {}, state="wheel").settings
    requires = GetRequires(settings, ())
    return [*requires.cmake(), *(() if os.environ.get("NINJA") else requires.ninja())]


def _door() -> Door:
    return Door(LiveSystem(), Symbols.of_this_user(), _SECONDS)


def _wish(door: Door, config_settings: _Given) -> flow.Wish:
    settings = settings_for_pip(config_settings or {}, os.environ)
    return flow.Wish(
        request=request_of(door, settings),
        ggml_dir=path_of(settings, "ggml-dir"),
        # The one that pip installs for, whatever environment is active.
        python=sys.executable,
        trace=trace_file(path_of(settings, "trace")),
        passing=True,
    )


def _tell() -> Lines:
    def put(step: str, text: str) -> None:
        sys.stderr.write(f"{step:<8} {text}\n" if step else f"{text}\n")
        sys.stderr.flush()

    return Lines(put)


def _words(error: FloatllmBuildError, more: str = "") -> str:
    return printable_lines(in_pips_words(tilde(f"{error}{more}")))


def _keep(error: FloatllmBuildError) -> None:
    """For `floatllm-build report`, which is another program's command."""
    argv = ("pip", "install", "floatllm")
    keep_trouble(cache_dir(), trouble_of(error, error.exit_code, argv, os.environ, log=error.log))


@contextmanager
def _hook() -> Iterator[None]:
    """What ends a hook badly becomes a sentence and an exit status, which pip shows."""
    mind_interrupts()
    # The flow's children are Pythons that need the same modules.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    try:
        yield
    except FloatllmBuildError as error:
        _keep(error)
        more = f"\n{REPORT}" if error.exit_code in REPORTED else ""
        _stop(_words(error, more), error.exit_code)
    except OSError as error:
        refusal = refused(error)
        _stop(_words(refusal), refusal.exit_code)
    except KeyboardInterrupt:
        _stop("interrupted. Run it again to go on where it stopped.", INTERRUPTED)

"""What goes into a report, and how it is written: one new file, private to its owner, whole or not at all."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

from floatllm_build.errors import MissingError, UsageFaultError
from floatllm_build.files import check_folder
from floatllm_build.pip_settings import Section, option_name
from floatllm_build.scrub import Scrubber, names_a_secret
from floatllm_build.troubles import Trouble
from floatllm_build.upkeep import Part, Reported

# Bytes of a log that are taken, from its end.
_LONGEST_LOG = 2 << 20
_LIBRARIES = (
    "packaging",
    "platformdirs",
    "rich",
    "scikit-build-core",
    "typer",
    "cmake",
    "ninja",
    "pip",
    "uv",
)
_EPOCH = (1980, 1, 1, 0, 0, 0)

# Variables that change what is built or how; all whose names begin so, or are these.
_BEGINNINGS = ("FLOATLLM_", "CMAKE_", "GGML_", "PIP_", "UV_", "CUDA", "NVCC_", "HIP", "ROC", "VK_", "CCACHE_")
_VARIABLES = (
    *(
        "CC",
        "CXX",
        "CFLAGS",
        "CXXFLAGS",
        "CPPFLAGS",
        "LDFLAGS",
        "ASMFLAGS",
        "NINJA",
        "NINJAFLAGS",
        "MAKEFLAGS",
    ),
    *("CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "LIBRARY_PATH", "COMPILER_PATH", "GCC_EXEC_PREFIX"),
    *(
        "PATH",
        "LD_LIBRARY_PATH",
        "LD_PRELOAD",
        "LD_RUN_PATH",
        "DYLD_LIBRARY_PATH",
        "TMPDIR",
        "XDG_CACHE_HOME",
    ),
    *("VULKAN_SDK", "HSA_OVERRIDE_GFX_VERSION", "NVIDIA_VISIBLE_DEVICES", "SOURCE_DATE_EPOCH", "SDKROOT"),
    *("MACOSX_DEPLOYMENT_TARGET", "DEVELOPER_DIR", "ANDROID_NDK_HOME", "PKG_CONFIG_PATH", "AUDITWHEEL_PLAT"),
    *(
        "VIRTUAL_ENV",
        "CONDA_PREFIX",
        "PYTHONPATH",
        "PYTHONHOME",
        "PYTHONSAFEPATH",
        "PYTHONUTF8",
        "PYTHONNOUSERSITE",
    ),
    *(
        "LANG",
        "LC_ALL",
        "TERM",
        "NO_COLOR",
        "COLUMNS",
        "CI",
        "PREFIX",
        "VSINSTALLDIR",
        "INCLUDE",
        "LIB",
        "CL",
    ),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"),
)
# Of these it is told that they are set, and nothing more: they hold addresses, often with a password.
_ADDRESSES = re.compile(r"PROXY|INDEX|URL|HOST|FIND_LINKS|CERT|KEYRING|HEADER", re.IGNORECASE)
_PLAIN_SWITCHES = {"PIP_NO_INDEX", "UV_NO_INDEX", "CUDAHOSTCXX"}
_INSTALLERS = ("PIP_", "UV_")
_NOT_SHOWN = "set, and not shown here"


@dataclass(frozen=True, kw_only=True)
class Content:
    name: str
    about: str
    data: bytes


def text_part(name: str, about: str, text: str) -> Content:
    return Content(name=name, about=about, data=text.encode(errors="replace"))


def json_part(name: str, about: str, value: Any) -> Content:
    return text_part(name, about, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def environment(variables: Mapping[str, str], scrub: Scrubber) -> dict[str, str]:
    """The variables that matter, without what is somebody's own; of all others not even the names."""
    return {
        name: _NOT_SHOWN if _is_hidden(name, value) else scrub.text(value)
        for name, value in sorted(variables.items())
        if name.upper() in _VARIABLES or name.upper().startswith(_BEGINNINGS)
    }


def _is_hidden(name: str, value: str) -> bool:
    # Of an address that stands at a line's beginning in pip's file, the scheme is read as an option's name.
    if names_a_secret(name) or ("//" in value and name.upper().startswith(_INSTALLERS)):
        return True
    return name.upper() not in _PLAIN_SWITCHES and bool(_ADDRESSES.search(name))


def pip_settings(sections: Iterable[Section], scrub: Scrubber) -> dict[str, str]:
    """What pip's files say, of which the later ones are the stronger, for every command (`global.timeout`).

    With the values that variables would show.
    """
    found = {
        f"{section.name}.{option_name(name)}": value
        for section in sections
        for name, value in section.options.items()
    }
    return {
        scrub.text(name): _NOT_SHOWN if _is_hidden(_variable(name), value) else scrub.text(value)
        for name, value in found.items()
    }


def _variable(name: str) -> str:
    return f"PIP_{name.rpartition('.')[2].replace('-', '_').upper()}"


def libraries() -> dict[str, str]:
    """Versions of what this tool works with in its own environment; empty for what is not there."""
    return {name: _version(name) for name in _LIBRARIES}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def commit_of(checkout: Path) -> str:
    """The commit that a checkout is at, or that pip took this tool from; empty where nobody says.

    Read from git's own files: no program is run in a folder that may be anybody's.
    """
    try:
        origin = json.loads(distribution("floatllm-build").read_text("direct_url.json") or "{}")
        known = origin.get("vcs_info", {}).get("commit_id", "")
        if known:
            return str(known)
    except (PackageNotFoundError, OSError, ValueError, AttributeError):
        pass
    try:
        commit = _head(checkout / ".git")
    except (OSError, ValueError):
        return ""
    return commit if re.fullmatch("[0-9a-f]{40,64}", commit) else ""


def _head(git: Path) -> str:
    if git.is_file():
        # A work tree of its own; what all of them share lies elsewhere.
        git = (git.parent / git.read_text(encoding="utf-8").partition("gitdir:")[2].strip()).resolve()
    common = git / "commondir"
    shared = (git / common.read_text(encoding="utf-8").strip()).resolve() if common.is_file() else git
    head = (git / "HEAD").read_text(encoding="utf-8").strip()
    kind, _, name = head.partition("ref: ")
    if not name:
        return kind
    for home in (git, shared):
        if (home / name).is_file():
            return (home / name).read_text(encoding="utf-8").strip()
    for line in (shared / "packed-refs").read_text(encoding="utf-8").splitlines():
        if line.endswith(f" {name}"):
            return line.partition(" ")[0]
    return ""


def logs(cache: Path, last: Sequence[Trouble], scrub: Scrubber) -> tuple[Content, ...]:
    """The logs of the last errors, or else the newest of a build and of a self-test."""
    found: dict[str, Path] = {}
    for name, about, paths in (
        ("build.log", "what cmake and the packer said", [*cache.glob("build/*/build.log")]),
        ("self-test.log", "what the self-test said", [*cache.glob("proofs/last.log")]),
    ):
        named = [Path(trouble.log) for trouble in last if trouble.log]
        # A name in a file of the cache is followed only to where this tool writes logs.
        ours = [path for path in paths if _lies_in(path, cache)]
        chosen = [path for path in named if path in ours] or sorted(ours, key=_time, reverse=True)
        if chosen:
            found[f"{name}\n{about}"] = chosen[0]
    for trouble in last:
        path = Path(trouble.log)
        if path.name.startswith("floatllm-verify-") and _lies_in(path, Path(tempfile.gettempdir())):
            found.setdefault("verify.log\nwhat the self-test of the installed engine said", path)
    return tuple(
        text_part(f"logs/{name}", about, scrub.text(_end_of(path)))
        for named, path in found.items()
        for name, _, about in [named.partition("\n")]
    )


def _lies_in(path: Path, folder: Path) -> bool:
    return not path.is_symlink() and path.is_file() and path.resolve().is_relative_to(folder.resolve())


def _time(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _end_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _LONGEST_LOG))
            text = file.read(_LONGEST_LOG).decode(errors="replace")
    except OSError as error:
        return f"could not be read: {error.strerror}\n"
    cut = size - _LONGEST_LOG
    return f"({cut} bytes before this are left out)\n{text}" if cut > 0 else text


def told(trouble: Trouble, scrub: Scrubber) -> dict[str, Any]:
    return {name: scrub.json(value) if name != "when" else value for name, value in vars(trouble).items()}


def check_free(path: Path) -> Path:
    """Where a report may be written. Raises UsageFaultError, and MissingError as `check_folder`."""
    if os.path.lexists(path):
        raise UsageFaultError(f"{path} is there already, and a report replaces nothing. Name another file.")
    check_folder(path.parent, f"The report cannot be written to {path}", "Name another file with --out.")
    return path


def write_report(path: Path, contents: Sequence[Content]) -> Reported:
    """Packs the parts, the page about them first. Raises MissingError where the file cannot be made."""
    parts = tuple(Part(name=one.name, about=one.about, size=len(one.data)) for one in contents)
    wide = max(len(part.name) for part in parts)
    lines = [f"{part.name:<{wide}}  {part.size:>8} bytes  {part.about}" for part in parts]
    about = _ABOUT + "\n".join(lines) + "\n"
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (("README.txt", about.encode()), *((one.name, one.data) for one in contents)):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data, zipfile.ZIP_DEFLATED)
    try:
        _write_new(path, packed.getvalue())
    except FileExistsError:
        check_free(path)
    except OSError as error:
        raise MissingError(
            f"The report cannot be written to {path}: {error.strerror}. Name another file with --out."
        ) from error
    return Reported(path=str(path), size=len(packed.getvalue()), parts=parts)


_ABOUT = """\
A report of floatllm-build, for whoever looks into a failure. Read it before you send it.

{home}, {cache}, {user}, {machine}, {address}, {mail}, {uuid-1} and the like stand for what would tell whose
machine this is; {secret} stands for what looked like a password or a token. What looks like nothing of that
kind is here as it was: names of devices and programs, folders outside of the home folder.

"""


def _write_new(path: Path, data: bytes) -> None:
    """Raises FileExistsError where something came there meanwhile."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".floatllm-report-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            # A link replaces nothing, and a rename would.
            os.link(name, path)
        except FileExistsError:
            raise
        except (OSError, AttributeError):
            # Not every file system has links, and a phone's has none.
            _copy_new(path, data)
    finally:
        Path(name).unlink(missing_ok=True)


def _copy_new(path: Path, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise

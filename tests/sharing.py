"""What tests keep and share: folders of pytest's cache, and things that are made once for all its workers."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from tool_environment import skip_or_fail

from floatllm_build.lock import cache_lock


@cache
def _without_a_cache() -> Path:
    """Ends with the session: `-p no:cacheprovider` says that nothing is to stay."""
    import atexit

    folder = Path(tempfile.mkdtemp(prefix="floatllm-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _cache(config: pytest.Config) -> pytest.Cache | None:
    return getattr(config, "cache", None)


def kept_folder(config: pytest.Config, name: str) -> Path:
    """A folder that stays for the next session, if pytest keeps a cache at all."""
    kept = _cache(config)
    if kept is not None:
        return kept.mkdir(f"floatllm-{name}")
    folder = _without_a_cache() / name
    folder.mkdir(exist_ok=True)
    return folder


def session_folder(factory: pytest.TempPathFactory) -> Path:
    """The session's temporary folder, which all workers of pytest-xdist have in common."""
    own = factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One worker, or one session, at a time. The lock ends with its process."""
    with cache_lock(folder, lambda _: None):
        yield


def once(folder: Path, make: Callable[[Path], None]) -> Path:
    """The folder, filled by whoever comes first; others wait.

    What failed or was skipped for the first is the same for all: it is not tried again.
    """
    with locked(folder):
        done = folder / "done.json"
        if not done.exists():
            said = ""
            try:
                make(folder)
            except pytest.skip.Exception as reason:
                said = f"skip {reason}"
                raise
            except BaseException as error:
                said = f"fail {error}"
                raise
            finally:
                done.write_text(json.dumps(said), encoding="utf-8")
        how, _, why = json.loads(done.read_text(encoding="utf-8")).partition(" ")
    if how == "skip":
        skip_or_fail(why)
    if how == "fail":
        pytest.fail(why, pytrace=False)
    return folder


def keep_bytecode(config: pytest.Config) -> None:
    """Compiled tests, for those whose Python writes none beside the sources: to compile all takes seconds."""
    kept = _cache(config)
    if sys.dont_write_bytecode and kept is not None:
        sys.dont_write_bytecode = False
        sys.pycache_prefix = str(kept.mkdir("floatllm-bytecode"))


_GROUPS = pytest.StashKey[Path]()


def groups_folder(config: pytest.Config) -> Path:
    """Where the workers of this session tell which test is in which group."""
    if _GROUPS not in config.stash:
        config.stash[_GROUPS] = _without_a_cache() / "groups"
        config.stash[_GROUPS].mkdir()
    return config.stash[_GROUPS]


def write_groups(folder: Path, worker: str, groups: dict[str, str]) -> None:
    (folder / f"{worker}.json").write_text(json.dumps(groups), encoding="utf-8")


@cache
def read_groups(folder: Path) -> dict[str, str]:
    """What the workers told; to be asked once all have collected."""
    found: dict[str, str] = {}
    for path in folder.glob("*.json"):
        found.update(json.loads(path.read_text(encoding="utf-8")))
    return found

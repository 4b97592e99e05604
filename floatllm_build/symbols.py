"""Names for folders and numbers that tell who the user is, put in at the door and taken out again at use.

Probes and plans hold `{home}/cuda/bin/nvcc`; so a recorded host says nothing about its owner, and a plan made
from it has the same bytes as the plan that was made there.

Not hidden: IP addresses, because versions look like them (31.0.15.5222) and no probe is given one; and user
ids (/run/user/1000), which count from the same number everywhere.
"""

from __future__ import annotations

import dataclasses
import getpass
import glob
import json
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from floatllm_build.paths import cache_dir
from floatllm_build.recording import NUMBERED, Numbering
from floatllm_build.system import Completed, System, Variables

_T = TypeVar("_T")

# Where a name in a path ends. A dot ends it where nothing follows, as in a sentence.
_END = r"(?![\w+~@-]|\.\w)"
_NAME = r"""[^/\\\s:;,"'{}()<>|]+"""
# Names on Windows may hold spaces, quotes and brackets: the slash or the end of the line shows then where
# they end. Where neither follows soon, the first space ends a name.
_WORD = r"""[^/\\\s:;|=,+*?"<>{}\[\]]"""
_NEXT = r""" (?![-'"]|\([/\\])"""
_PERSON = rf"{_NAME}(?:'(?=\w){_NAME})*"
_LONG_NAME = (
    rf"(?:{_WORD}+(?:{_NEXT}{_WORD}+){{0,3}}(?=[/\\])|{_PERSON}(?:{_NEXT}{_PERSON}){{1,3}}(?=\s*$)|{_PERSON})"
)
# In the name of a serial number, in /proc/cpuinfo, nvidia-smi -q, system_profiler or getprop. No digits: they
# may be a number to hide.
_KEY = r"""[A-Za-z .()\[\]"\t]"""
_SECRETS = {
    # Everybody's, but for what is the same on many machines. JSON inside an answer doubles the backslash.
    "home": rf"/home/+(?!linuxbrew{_END}){_NAME}"
    rf"|(?:/Users/+|[A-Za-z]:[/\\]{{1,2}}[Uu]sers[/\\]{{1,2}})(?!(?:Shared|Public){_END}){_LONG_NAME}",
    # A Mac makes the name of this folder from the user's identity.
    "temp": r"""/var/folders/[^/\s]+/[^/\s:;,"'{}]+""",
    # Kubernetes writes `pod` before it, and systemd `_` into it. Containers and virtual machines have numbers
    # without dashes, and longer ones.
    "uuid": r"[0-9a-fA-F]{8}[-_](?:[0-9a-fA-F]{4}[-_]){3}[0-9a-fA-F]{12}"
    r"|(?:(?<![^\W_])|(?<=pod))[0-9a-fA-F]{32,}(?![^\W_])",
    "mac": r"\b[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2}){5}\b",
}
_SERIAL = rf"^(?P<key>(?:{_KEY}{{0,40}}(?i:serial){_KEY}{{0,40}}[:=]+|unique_id)[ \t]*)(?P<serial>[^\s:=].*)"
_SYMBOL = re.compile(rf"\{{(?:build|cache|ggml|home|python|user|(?:{'|'.join(NUMBERED)})-[0-9]{{1,9}})\}}")
# What only looks like a symbol; and bytes that were no text, which could not be printed.
_ODD = rf"{_SYMBOL.pattern}|[\ud800-\udfff]+"

# Variables of which only whether they are set matters; their values are addresses in somebody's network.
_ONLY_SET = {"KUBERNETES_SERVICE_HOST"}

# Where everybody's programs are: no home, though an account may say so.
_SYSTEM = ("/usr", "/usr/bin", "/usr/include", "/usr/lib", "/usr/local", "/usr/share", "/etc")
# These accounts are on many machines, or their names mean something else in a path.
_NO_SECRETS = {
    *("admin", "app", "build", "ci", "debian", "docker", "pi", "root", "runner", "ubuntu", "user", "vagrant"),
    *("bin", "cuda", "data", "dev", "home", "lib", "local", "nvidia", "opt", "python", "share", "src"),
    *("system", "test", "tmp", "tools", "vulkan", "work"),
}


def is_common(user: str) -> bool:
    """True where a folder of this name need not be the user's: hiding it would hide meaning."""
    return user.lower() in _NO_SECRETS or any(os.path.lexists(f"{folder}/{user}") for folder in _SYSTEM)


def _is_personal(folder: str) -> bool:
    return Path(folder).is_absolute() and len(Path(folder).parts) > 1 and folder not in _SYSTEM


@dataclass
class Symbols:
    """A two-way table: `show(hide(text)) == text` for every text."""

    folders: Mapping[str, str] = field(default_factory=dict)
    """Symbol -> folder, as {"{home}": "/home/ada"}."""
    user: str = ""
    aliases: tuple[str, ...] = ()
    """Other paths to the user's home."""
    _found: dict[str, str] = field(default_factory=dict)
    """Numbered symbol -> what it stands for."""
    _given: dict[str, dict[str, str]] = field(default_factory=dict)
    """Kind -> what was found -> its numbered symbol."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of_this_user(cls) -> Symbols:
        try:
            user = getpass.getuser()
        except (ImportError, KeyError, OSError):
            user = ""  # a user id without a name, as in some containers
        try:
            home = str(Path.home())
        except RuntimeError:
            home = ""
        folders = {"{cache}": str(cache_dir()), "{home}": home}
        user = "" if is_common(user) else user
        # A link to the home folder, and another home for this run only.
        aliases = (os.path.realpath(home) if home else "", os.path.expanduser(f"~{user}") if user else "")  # noqa: PTH111
        return cls(
            folders={symbol: folder for symbol, folder in folders.items() if _is_personal(folder)},
            user=user,
            aliases=tuple(folder for folder in aliases if folder != home and _is_personal(folder)),
        )

    def __post_init__(self) -> None:
        # One pattern and one pass, so that nothing is looked for in what has been hidden already. The cache
        # lies below the home folder, so the longest comes first.
        folders = sorted(self.folders.values(), key=len, reverse=True)
        patterns = {
            "folder": f"(?:{'|'.join(map(re.escape, folders))}){_END}" if folders else "",
            **_SECRETS,
            "user": rf"(?<=[/\\]){re.escape(self.user)}{_END}" if self.user else "",
            "text": _ODD,
        }
        others = "|".join(map(_any_spelling, (*folders, *self.aliases)))
        if others:
            patterns["home"] = f"(?:{others}){_END}|{patterns['home']}"
        groups = [f"(?P<{name}>{pattern})" for name, pattern in patterns.items() if pattern]
        self._pattern = re.compile("|".join((_SERIAL, *groups)), re.MULTILINE)
        self._symbols = {folder: symbol for symbol, folder in self.folders.items()}

    def hide(self, text: str) -> str:
        return self._pattern.sub(self._hidden, text)

    def show(self, text: str, spell: Callable[[str], str] = str) -> str:
        """The text with the symbols taken out. `spell` is applied to what they stand for."""

        def meaning(match: re.Match[str]) -> str:
            symbol = match[0]
            known = self._found.get(symbol) or self.folders.get(symbol)
            known = self.user if symbol == "{user}" else known
            return spell(known) if known else symbol

        return _SYMBOL.sub(meaning, text)

    def show_in(self, value: _T) -> _T:
        """A copy of a dataclass with the symbols taken out of every text in it."""
        shown: _T = _mapped(value, self.show)
        return shown

    def settle(self, value: _T) -> _T:
        """`settled`, with this table changed alike so that it still shows what was hidden."""
        numbering = Numbering()
        settled: _T = _mapped(value, numbering)
        with self._lock:
            self._found = {numbering(symbol): meaning for symbol, meaning in self._found.items()}
            self._given = {
                kind: {meaning: numbering(symbol) for meaning, symbol in own.items()}
                for kind, own in self._given.items()
            }
        return settled

    def _hidden(self, match: re.Match[str]) -> str:
        kind = str(match.lastgroup)
        if kind == "folder":
            return self._symbols[match[0]]
        if kind == "user":
            return "{user}"
        if kind == "serial":
            return match["key"] + self._numbered(kind, match["serial"])
        return self._numbered(kind, match[0])

    def _numbered(self, kind: str, meaning: str) -> str:
        with self._lock:
            own = self._given.setdefault(kind, {})
            if meaning not in own:
                own[meaning] = f"{{{kind}-{len(own) + 1}}}"
                self._found[own[meaning]] = meaning
            return own[meaning]


def _any_spelling(folder: str) -> str:
    """A pattern for a folder with more slashes; on Windows with either slash and in any case."""
    parts = map(re.escape, re.split(r"[/\\]+", folder))
    if re.match("[A-Za-z]:", folder):
        return "(?i:" + r"[/\\]{1,2}".join(parts) + ")"
    return "/+".join(parts)


def settled(value: _T) -> _T:
    """A copy of a dataclass whose symbols are numbered in their order in it.

    Until then their numbers tell which probe was the quickest.
    """
    copy: _T = _mapped(value, Numbering())
    return copy


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, tuple):
        return tuple(_mapped(item, change) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _mapped(getattr(value, f.name), change) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    return value


@dataclass
class Door:
    """A `System` that speaks in symbols, and that answers within a time for all questions together.

    The time begins with the first program or child that is asked: who waits for a lock before that loses
    none of it.
    """

    inner: System
    symbols: Symbols
    seconds: float = 60.0
    _opened: float | None = None

    def _left(self, timeout: float) -> float:
        if self._opened is None:
            self._opened = time.monotonic()
        return max(0.05, min(timeout, self._opened + self.seconds - time.monotonic()))

    def _hidden(self, done: Completed) -> Completed:
        return Completed(rc=done.rc, out=self.symbols.hide(done.out), err=self.symbols.hide(done.err))

    def read(self, path: str, only: str = "") -> str:
        try:
            text = self.inner.read(self.symbols.show(path), only)
        except OSError as error:
            # Its words name the real path, and probes write them down.
            raise OSError(error.errno, error.strerror or "Input/output error", path) from None
        return self.symbols.hide(text)

    def opens(self, path: str) -> str | None:
        return self.inner.opens(self.symbols.show(path))

    def run(
        self, argv: tuple[str, ...], *, timeout: float = 5.0, variables: Variables | None = None
    ) -> Completed:
        real = tuple(map(self.symbols.show, argv))
        shown = {name: value and self.symbols.show(value) for name, value in (variables or {}).items()}
        return self._hidden(self.inner.run(real, timeout=self._left(timeout), variables=shown))

    def ask(self, question: str, subject: str = "", *, timeout: float = 5.0) -> Completed:
        real = self.symbols.show(subject)
        done = self.inner.ask(question, real, timeout=self._left(timeout))
        hidden = self._hidden(done)
        try:
            # In JSON a path may be spelt with escapes.
            answer = json.dumps(self._hidden_json(json.loads(done.out)))
        except (ValueError, RecursionError):
            return hidden
        return dataclasses.replace(hidden, out=answer)

    def getenv(self, name: str) -> str | None:
        answer = self.inner.getenv(name)
        if answer and name in _ONLY_SET:
            return "set"
        return None if answer is None else self.symbols.hide(answer)

    def which(self, name: str) -> str | None:
        answer = self.inner.which(self.symbols.show(name))
        return None if answer is None else self.symbols.hide(answer)

    def glob(self, pattern: str) -> tuple[str, ...]:
        paths = self.inner.glob(self.symbols.show(pattern, glob.escape))
        return tuple(map(self.symbols.hide, paths))

    def native(self, question: str) -> Any:
        return self._hidden_json(self.inner.native(question))

    def _hidden_json(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.symbols.hide(value)
        if isinstance(value, list):
            return [self._hidden_json(item) for item in value]
        if isinstance(value, dict):
            return {self.symbols.hide(name): self._hidden_json(item) for name, item in value.items()}
        return value

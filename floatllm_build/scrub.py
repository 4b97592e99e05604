"""Takes out of texts what tells who somebody is or opens a door: for what leaves the machine.

`Symbols` hides folders, serial numbers and the like, and knows what they stand for. What is hidden
here is gone: passwords, tokens, addresses, the names of the user and of the machine.
"""

from __future__ import annotations

import contextlib
import ipaddress
import platform
import re
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from floatllm_build.private_hosts import hosts_in_urls, hosts_of
from floatllm_build.symbols import Symbols, is_common

_HIDDEN = "{secret}"
_ADDRESS = "{address}"
# A variable with such a name holds a secret, or may.
_NAMES_A_SECRET = re.compile(
    r"TOKEN|SECRET|PASS(?:W|PHRASE|\b|_)|PWD\w|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE|_KEY\b|AUTH|COOKIE|NETRC",
    re.IGNORECASE,
)
# Values that are no secret whatever the name is: hiding them wherever they stand would hide meaning.
_PLAIN_VALUE = re.compile(
    r"(?:[0-9]{0,3}|true|false|yes|no|on|off|none|null|auto|always|never|disabled|enabled)",
    re.IGNORECASE,
)
_SHORTEST = 4
_USERS = ("USER", "LOGNAME", "USERNAME", "SUDO_USER")
_MACHINES = ("HOSTNAME", "COMPUTERNAME")
# Names of machines that many have, or that mean something else in a log.
_COMMON_MACHINES = {
    *(
        "localhost",
        "localdomain",
        "local",
        "android",
        "linux",
        "windows",
        "macos",
        "ubuntu",
        "debian",
        "fedora",
    ),
    *("arch", "alpine", "raspberrypi", "jetson", "termux", "cpu", "gpu", "cuda", "vulkan", "main", "server"),
    *("gcc", "clang", "cmake", "ninja", "python", "floatllm", "ggml", "pip", "error", "warning", "native"),
}
# Public pages that messages name; every other address may be somebody's own.
_PUBLIC = (
    "https://github.com/ggml-org/",
    "https://cmake.org/",
    "https://ui.perfetto.dev",
    "https://pip.pypa.io/",
    "https://docs.astral.sh/",
)
_VALUE = r"""(?:"[^"\n]*"|'[^'\n]*'|[^\s,;"']+)"""
_PUBLIC_HOSTS = hosts_in_urls(" ".join(_PUBLIC))
# Words of many texts, where somebody's server is called so.
_COMMON_HOSTS = _COMMON_MACHINES | {
    *("proxy", "cache", "index", "mirror", "packages", "package", "simple", "wheel", "wheels", "build"),
    *("http", "https", "host", "port", "none", "true", "false", "install", "download", "network", "test"),
}
# A host in what urllib3 says, and in our own words (network.py), with no URL around it.
_HOST_IN_WORDS = re.compile(
    r"(\bhost(?:name)?[ \t]*=[ \t]*[\"']|\bresolve (?:host|proxy)?:? ?[\"']?|\bdoes not lead to )([\w.:-]+)",
    re.IGNORECASE,
)
# Options of pip and uv that name one: NAME = value, --name value.
_HOST_OPTION = re.compile(
    r"((?:trusted[-_]host|(?:allow[-_])?insecure[-_]host|https?[-_]proxy|proxy"
    rf"|index[-_]url|extra[-_]index[-_]url|default[-_]index)[\"']?(?:[ \t]*=[ \t]*|[\"']:[ \t]*))({_VALUE})"
    r"|((?<![\w-])--(?:trusted-host|allow-insecure-host|proxy|index-url)[ \t]+)([^\s\"']+)",
    re.IGNORECASE,
)
# Names that no public server has (RFC 6762, RFC 8375, and what networks of companies use).
_INSIDE = re.compile(
    r"(?<![\w./-])(?:[\w-]{1,63}\.){1,8}(?:local|localdomain|internal|intranet|corp|lan|home\.arpa)"
    r"(?![\w/(-]|\.\w)",
    re.IGNORECASE,
)
_WORD = r"(?:token|secret|passw(?:or)?d|passphrase|(?:api|access|private)[-_]?key|credentials?|cookie)"
_SECRETS = re.compile(
    "|".join(
        (
            # A key in full.
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
            # NAME=value, "name": "value", --name value; not `token::kind`, nor `tokenizer.cpp:12`.
            rf"""(?<![\w.-])[\w.-]*{_WORD}["']?[ \t]*(?:=|:(?!:))[ \t]*(?:(?:bearer|basic)[ \t]+)?{_VALUE}""",
            rf"(?<![\w.-])--[\w-]*{_WORD}[ \t]+{_VALUE}",
            r"(?:proxy-)?authorization[\"']?[ \t]*[:=][^\n]*",
            r"\bbearer[ \t]+[\w.~+/=-]{8,}",
        )
    ),
    re.IGNORECASE | re.DOTALL,
)
# Tokens of well-known givers, by their first letters.
_TOKENS = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{8,}|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|pypi-[\w-]{16,}"
    r"|npm_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|xox[abprs]-[\w-]{10,}|A[KS]IA[0-9A-Z]{16}"
    r"|eyJ[\w-]{10,}\.[\w-]+\.[\w-]*)"
)
_URL = re.compile(r"(?<![A-Za-z0-9])([A-Za-z][A-Za-z0-9+.-]{1,20})://([^\s'\"<>`]*)")
_MAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24}\b")
_BYTE = "(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])"
# Not within a longer version, nor the version in the name of a wheel.
_IP_4 = re.compile(
    rf"(?<!\w)(?<!\w\.)(?!127\.|0\.0\.0\.0)(?:{_BYTE}\.){{3}}{_BYTE}(?!\w|\.\w|-(?:py|cp)[0-9])"
)
# What begins as those that are in use (RFC 4291 and 4193): that leaves `a::b`, times, and ::1.
_MAY_BE_IP_6 = re.compile(
    r"(?<!\w)(?:[23][0-9a-f]{3}|f[cd][0-9a-f]{2}|fe[89ab][0-9a-f]|64:ff9b|(?<!:)::ffff)"
    r"(?::[0-9a-f]{0,4}){2,8}(?!\w)",
    re.IGNORECASE,
)


def names_a_secret(variable: str) -> bool:
    return bool(_NAMES_A_SECRET.search(variable))


def secrets_of(environment: Mapping[str, str]) -> frozenset[str]:
    """What must not stand anywhere: values of variables whose names say so, and passwords in addresses."""
    found: set[str] = set()
    for name, value in environment.items():
        if names_a_secret(name):
            found.add(value.strip())
        for address in re.findall(r"://([^\s'\"]*)@", value):
            for part in (address, *address.split(":", 1)):
                found |= {part, urllib.parse.unquote(part)}
        if "@" in value and "://" not in value and "PROXY" in name.upper():
            found |= set(value.rpartition("@")[0].split(":", 1))
    return frozenset(text for text in found if len(text) >= _SHORTEST and not _PLAIN_VALUE.fullmatch(text))


@dataclass(frozen=True)
class Scrubber:
    symbols: Symbols
    secrets: frozenset[str] = frozenset()
    users: frozenset[str] = frozenset()
    machines: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()

    @classmethod
    def of_this_user(cls, environment: Mapping[str, str], symbols: Symbols | None = None) -> Scrubber:
        symbols = symbols or Symbols.of_this_user()
        users = {symbols.user, *(environment.get(name, "") for name in _USERS)}
        machines = {platform.node(), *(environment.get(name, "") for name in _MACHINES)}
        machines |= {name.partition(".")[0] for name in machines}
        return cls(
            symbols,
            secrets_of(environment),
            frozenset(name for name in users if len(name) > 2 and not is_common(name)),
            frozenset(name for name in machines if len(name) > 2 and name.lower() not in _COMMON_MACHINES),
            frozenset(filter(_is_private, hosts_of(environment))),
        )

    def text(self, text: str) -> str:
        """Of what no `Door` has seen: a log, a message, a variable."""
        text = self._anywhere(self.symbols.hide(self.without_secrets(text)))
        return _MAY_BE_IP_6.sub(_without_ip_6, _IP_4.sub(_ADDRESS, text))

    def without_secrets(self, text: str) -> str:
        """Folders and names stay: for what is kept on this machine."""
        for secret in sorted(self.secrets, key=len, reverse=True):
            text = text.replace(secret, _HIDDEN)
        # What a text once calls a host stands elsewhere in it without that word.
        hosts = {match[2].lower() for match in _HOST_IN_WORDS.finditer(text)}
        hosts |= {host for host in hosts_in_urls(text) if "." in host}
        hosts = {host for host in hosts if _is_private(host)}
        text = _SECRETS.sub(_without_value, _URL.sub(_without_address, text))
        text = _HOST_OPTION.sub(rf"\g<1>\g<3>{_ADDRESS}", text)
        text = _words(self.hosts | hosts, text, _ADDRESS, re.IGNORECASE, before=r"(?:[\w-]{1,63}\.){0,8}")
        text = _INSIDE.sub(_ADDRESS, text)
        return _MAIL.sub("{mail}", _TOKENS.sub(_HIDDEN, text))

    def _anywhere(self, text: str) -> str:
        return _words(self.machines, _words(self.users, text, "{user}"), "{machine}", re.IGNORECASE)

    def json(self, value: Any) -> Any:
        """As `text`, for JSON, names included."""
        return _walked(value, self.text)

    def seen_json(self, value: Any) -> Any:
        """Of JSON that came through a `Door`, whose symbols stay. So do versions that look like addresses."""
        return _walked(value, lambda text: self._anywhere(self.without_secrets(text)))


def _walked(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, (list, tuple)):
        return [_walked(item, change) for item in value]
    if isinstance(value, dict):
        return {
            change(name): _HIDDEN
            if isinstance(item, str) and item and names_a_secret(name)
            else _walked(item, change)
            for name, item in value.items()
        }
    return value


def _without_address(match: re.Match[str]) -> str:
    whole, kind, rest = match[0], match[1], match[2]
    if kind.lower() == "file" and "@" not in rest and "?" not in rest:
        return whole
    if whole.startswith(_PUBLIC) and "@" not in rest and "?" not in rest:
        return whole
    return f"{kind}://{_ADDRESS}"


def _without_value(match: re.Match[str]) -> str:
    """What says that something was there, without it."""
    if match[0].startswith("-----"):
        return _HIDDEN
    name = re.match(r"[\w.-]+[\"']?[ \t]*[=: \t]", match[0])
    return f"{name[0] if name else ''}{_HIDDEN}"


def _without_ip_6(match: re.Match[str]) -> str:
    """Behind the address may stand a port or a line's number, and a colon."""
    text = match[0]
    ends = [len(text), *(found.start() for found in re.finditer(":", text))]
    for end in sorted(ends, reverse=True):
        with contextlib.suppress(ValueError):
            ipaddress.IPv6Address(text[:end])
            return f"{_ADDRESS}{text[end:]}"
    return text


def _is_private(host: str) -> bool:
    """Whether a host may be somebody's own, and its name means nothing else."""
    return len(host) > 2 and not host.startswith("127.") and host not in _PUBLIC_HOSTS | _COMMON_HOSTS


def _words(names: frozenset[str], text: str, instead: str, flags: int = 0, before: str = "") -> str:
    if not names:
        return text
    words = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    return re.sub(rf"(?<![\w-]){before}(?:{words})(?![\w-])", instead, text, flags=flags)

"""The servers that the user's settings name: indexes and proxies, which are often a company's own."""

from __future__ import annotations

import re
import sys
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from floatllm_build.pip_settings import pip_sections
from floatllm_build.uv_settings import uv_files

# Options and variables, as `_plain` spells them, whose values are hosts without a scheme.
_HOSTS = re.compile(r"(?:PIP_|UV_)?(?:TRUSTED_HOST|(?:ALLOW_)?INSECURE_HOST)")
_PROXY = re.compile(r".*PROXY")
_NO_PROXY = re.compile(r".*NO_PROXY")
_INSTALLERS = ("PIP_", "UV_")
_IN_URL = re.compile(r"://(?:[^\s/?#'\"@]*@)?(\[[0-9A-Fa-f:.]+\]|[^\s/?#:'\"@,;<>`(){}|]+)")
# [SCHEME://][USER@]HOST[:PORT]
_ALONE = re.compile(
    r"(?:[A-Za-z0-9+.-]+://)?(?:[^\s/?#@]*@)?(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(?::[0-9]+)?(?:/\S*)?"
)
_HOST = re.compile(r"[\w-]+(?:\.[\w-]+)*|[0-9a-f:.]*:[0-9a-f:.]*")


def hosts_of(environment: Mapping[str, str], prefixes: Iterable[str] = (sys.prefix,)) -> frozenset[str]:
    """Hosts in small letters, of variables and of the files of pip and uv; a file that is broken has none.

    `prefixes`: of the Pythons whose own settings of pip count.
    """
    found: set[str] = set()
    for name, value in environment.items():
        if name.upper().startswith(_INSTALLERS) or _PROXY.fullmatch(_plain(name)):
            found |= _of_setting(name, value)
    places = (*prefixes, environment.get("VIRTUAL_ENV", ""), environment.get("CONDA_PREFIX", ""))
    for prefix in dict.fromkeys(filter(None, places)):
        for section in pip_sections(environment, prefix, lenient=True):
            for name, value in section.options.items():
                found |= _of_setting(name, value)
    for file in uv_files(environment, lenient=True):
        found |= {host for name, value in _texts("", file) for host in _of_setting(name, value)}
    # Windows and macOS keep a proxy in their own settings.
    for kind, value in urllib.request.getproxies().items():
        found |= _of_setting("NO_PROXY" if kind == "no" else "PROXY", value)
    return frozenset(found)


def hosts_in_urls(text: str) -> frozenset[str]:
    return _cleaned(_IN_URL.findall(text))


def _of_setting(name: str, value: str) -> frozenset[str]:
    plain = _plain(name)
    if _NO_PROXY.fullmatch(plain):
        # `.internal` alone is a word of many texts.
        return frozenset(host for host in _alone(value) if "." in host)
    if _PROXY.fullmatch(plain) or _HOSTS.fullmatch(plain):
        return _alone(value)
    return hosts_in_urls(value)


def _plain(name: str) -> str:
    return name.upper().replace("-", "_")


def _alone(value: str) -> frozenset[str]:
    words = (word.removeprefix("*").removeprefix(".") for word in re.split(r"[\s,]+", value))
    return _cleaned(match[1] for word in words if (match := _ALONE.fullmatch(word)))


def _cleaned(hosts: Iterable[str]) -> frozenset[str]:
    small = (host.strip("[]").lower().rstrip(".") for host in hosts)
    return frozenset(host for host in small if _HOST.fullmatch(host))


def _texts(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """The texts of a file, each with the name of the key that it stands under."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(str(key), item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(name, item)

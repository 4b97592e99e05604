"""Whether the servers that pip has to ask can be reached: its own words for that are made for people."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from urllib.parse import urlsplit

from floatllm_build.pip_settings import Setting, asks_no_index
from floatllm_build.system import System

_PORTS = {"http": 80, "https": 443, "socks4": 1080, "socks5": 1080, "socks5h": 1080}
_SECONDS = 8.0
_PROXIES = {"http_proxy", "https_proxy", "all_proxy"}
# In what `pip download --help` says of the option.
_DEFAULT = re.compile(r"--index-url\b.*?(https?://[^\s)>]+)", re.DOTALL)


def servers(system: System, pip: tuple[str, ...], settings: tuple[Setting, ...]) -> tuple[str, ...] | None:
    """HOST:PORT of each server that this pip asks with these settings; None if its own index is unknown."""
    given = {setting.name: setting.value for setting in settings}
    urls = given.get("find-links", "").split()
    if not asks_no_index(settings):
        index = given.get("index-url") or _default_index(system, pip)
        if not index:
            return None
        urls = [index, *given.get("extra-index-url", "").split(), *urls]
    # Slow to import, and wanted only where a fetch failed.
    from urllib.request import getproxies, proxy_bypass  # noqa: PLC0415

    return places(urls, given.get("proxy", ""), getproxies(), proxy_bypass)


def _default_index(system: System, pip: tuple[str, ...]) -> str:
    said = system.run((*pip, "download", "--help"), timeout=60.0, variables={"COLUMNS": "200"})
    found = _DEFAULT.search(said.out)
    return found[1] if found else ""


def places(
    urls: Iterable[str], proxy: str, proxies: Mapping[str, str], bypassed: Callable[[str], object]
) -> tuple[str, ...]:
    """HOST:PORT of what a connection for each of the URLs goes to: its proxy, if it has one.

    `proxy`: for all. Else `proxies` by scheme, as urllib.request.getproxies() has them, but not for a host
    that is `bypassed`.
    """
    found: dict[str, None] = {}
    for url in urls:
        try:
            parts = urlsplit(url)
        except ValueError:
            continue  # pip says what is wrong with it
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            continue
        own = "" if bypassed(parts.hostname) else proxies.get(parts.scheme) or proxies.get("all") or ""
        place = _place(proxy or own or url)
        if place:
            found[place] = None
    return tuple(found)


def _place(url: str) -> str:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return ""
    return f"{parts.hostname}:{port}" if parts.hostname and port else ""


def proxy_variables(environment: Mapping[str, str], asked: Collection[str]) -> tuple[str, ...]:
    """The names of those that name a proxy that was asked; their values may hold a password."""
    return tuple(
        name for name, value in environment.items() if name.lower() in _PROXIES and _place(value) in asked
    )


def refusal(system: System, asked: tuple[str, ...]) -> str:
    """Why none of these servers takes a connection, in words; empty if one does."""
    done = system.ask("reach", " ".join(asked), timeout=_SECONDS)
    if done.rc == 124:
        why = done.err  # no answer in time: a name server that is silent
    else:
        try:
            answer = json.loads(done.out)
            why = "" if done.rc or answer["reached"] else str(answer["why"])
        except (ValueError, KeyError, TypeError):
            why = ""
    host = asked[0].rpartition(":")[0]
    return f"there is no network, or it does not lead to {host} ({why})" if why else ""

"""What upkeep has done, in lines on stdout."""

from __future__ import annotations

import shlex

from rich.markup import escape

from floatllm_build.plain import printable
from floatllm_build.render.terminal import lines_console
from floatllm_build.render.words import count
from floatllm_build.sizes import show_size
from floatllm_build.upkeep import Cleaned, Removed, Reported


def _put(label: str, text: str) -> None:
    lines_console(stderr=False).print(f"[bold]{label:<8}[/] {escape(printable(text))}")


def cleaned(done: Cleaned, *, only_looked: bool) -> None:
    """Each folder with its bytes, and their sum."""
    verb = "would be freed" if only_looked else "freed"
    if done.outside:
        _put("outside", f"{show_size(done.outside)} of errors and logs {verb} in {done.temp}")
    if not done.size:
        _put("nothing", f"of this tool is in {done.cache}: there was nothing to delete")
        return
    for name, size in done.folders:
        if size:
            _put(name, show_size(size))
    _put("in all", f"{show_size(done.size)} {verb} in {done.cache}; engines that are installed keep working")


def removed(done: Removed) -> None:
    where = f"{done.target.prefix} (by {done.target.chosen_by})"
    if not done.packages:
        _put("nothing", f"of floatllm is in {where}: there was nothing to remove")
    for name, size in done.packages:
        _put("removed", f"{name} ({show_size(size)}) from {where}")
    for folder in done.strays:
        _put(
            "stays", f"{folder}: it holds files that no installer put there. Delete it if they are not yours"
        )
    free = [one for one in done.left if not one.needed_by]
    for one in done.left:
        if one.needed_by:
            _put("stays", f"{one.name} ({show_size(one.size)}): {', '.join(one.needed_by)} needs it too")
    if free:
        command = shlex.join((done.target.executable, "-m", "pip", "uninstall", *(one.name for one in free)))
        total = show_size(sum(one.size for one in free))
        _put("stays", f"{count(len(free), 'package')} that nothing else there needs ({total}): {command}")
    if done.cache_size:
        _put("stays", f"the cache, {show_size(done.cache_size)} in {done.cache}: floatllm-build clean")
    _put("stays", f"this tool{', to be removed last' if done.cache_size else ''}: {done.tool}")


def reported(done: Reported) -> None:
    """The path alone on stdout; on stderr what is in the file and what to do with it."""
    console = lines_console(stderr=True)
    wide = max(len(part.name) for part in done.parts)
    for part in done.parts:
        size = show_size(part.size)
        console.print(f"[bold]{part.name:<{wide}}[/]  {size:>9}  {escape(printable(part.about))}")
    console.print(
        f"These are in {escape(printable(done.path))} ({show_size(done.size)}). Nothing was sent.\n"
        "Names, home folders, addresses, passwords and tokens are taken out as far as they are recognised.\n"
        "Unpack it and read it. Then attach it to your issue, or give it to whoever gave you FloatLLM."
    )
    lines_console(stderr=False).print(escape(printable(done.path)))

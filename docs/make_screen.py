"""Makes the picture of `floatllm-build detect` that the README shows.

- `python docs/make_screen.py > docs/detect.svg`: of the recorded host that the README means
- `python docs/make_screen.py --from HOST.json > detect.svg`: of another recorded host
- `python docs/make_screen.py --live > detect.svg`: of this machine
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme

from floatllm_build import flow
from floatllm_build.render.layout import Screen
from floatllm_build.render.paint import paint
from floatllm_build.render.screens import detect_screen
from floatllm_build.symbols import Door, Symbols
from floatllm_build.system import LiveSystem, Replay, System
from floatllm_build.values import Request

HOST = Path(__file__).resolve().parents[1] / "tests" / "hosts" / "ubuntu-rtx-3060.json"
WIDTH = 96

THEME = TerminalTheme(
    background=(24, 27, 34),
    foreground=(215, 219, 226),
    normal=[
        (70, 76, 90),
        (240, 113, 120),
        (126, 211, 137),
        (236, 196, 109),
        (122, 170, 245),
        (198, 146, 233),
        (96, 198, 212),
        (215, 219, 226),
    ],
)

# Our own frame: rich's names fonts that lie on a server, which a picture in a README must not load.
FRAME = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">
<title>What floatllm-build detect says of a machine</title>
<style>
.{unique_id}-matrix {{
    font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
    font-size: {char_height}px;
    line-height: {line_height}px;
    white-space: pre;
}}
.{unique_id}-title {{
    font-family: sans-serif;
    font-size: 16px;
}}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def screen_of(system: System) -> Screen:
    """What `detect` says of a machine."""
    found = flow.detect(system, Request())
    return detect_screen(found.host, found.plan, found.problem, found.lacks, why=False)


def picture(screen: Screen) -> str:
    """An SVG, the same bytes for the same screen."""
    console = Console(
        file=io.StringIO(),
        record=True,
        width=WIDTH,
        force_terminal=True,
        color_system="truecolor",
        legacy_windows=False,
        highlight=False,
        # Not what the environment of the one who runs this says.
        _environ={},
    )
    console.print("[bold green]$[/] floatllm-build detect")
    paint(console, screen)
    return console.export_svg(
        title="floatllm-build detect",
        theme=THEME,
        unique_id="detect",
        code_format=FRAME,
        font_aspect_ratio=0.6,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--from", dest="record", type=Path, default=HOST)
    parser.add_argument("--live", action="store_true")
    chosen = parser.parse_args()
    system: System = Door(LiveSystem(), Symbols.of_this_user()) if chosen.live else Replay.load(chosen.record)
    sys.stdout.buffer.write(picture(screen_of(system)).encode())


if __name__ == "__main__":
    main()

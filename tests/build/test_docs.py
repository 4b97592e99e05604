"""The pages and the picture that are made from the code say what the code says today."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path

import machines
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pages import DOCS, make_docs, make_screen
from tool_environment import ROOT

from floatllm_build.cli import app
from floatllm_build.presets import load_presets
from floatllm_build.render.layout import Screen
from floatllm_build.render.screens import detect_screen
from floatllm_build.system import Replay


def cells(page: str) -> list[list[str]]:
    """Rows of all tables."""
    rows = [line.strip("|").split("|") for line in page.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows]


@pytest.mark.parametrize("name", ["presets.md", "settings.md", "wheels.md"])
def test_a_page_is_what_its_maker_makes(name: str) -> None:
    made = make_docs.pages()[name]
    assert (DOCS / name).read_text(encoding="utf-8") == made, f"run `{make_docs.COMMAND}`"


# ---- presets ----------------------------------------------------------------------------------


def test_every_preset_is_in_its_table() -> None:
    presets = load_presets(ROOT)
    rows = {row[0].strip("`"): row for row in cells(make_docs.pages()["presets.md"])}
    for preset in presets.values():
        assert rows[preset.name][1:4] == [preset.backend, preset.description, str(preset.jobs)]


def test_what_the_page_says_of_parts_gives_each_preset_its_variables() -> None:
    """By the page's own rule: of two parts that set the same, the one named first wins."""
    rows = {row[0].strip("`"): row[-1] for row in cells(make_docs.pages()["presets.md"])}

    def sets(cell: str) -> Mapping[str, str]:
        return dict(word.split("=", 1) for word in re.findall(r"`([^`]+)`", cell) if "=" in word)

    for name, preset in load_presets(ROOT).items():
        parts = [word for word in re.findall(r"`([^`]+)`", rows[name]) if "=" not in word]
        variables: dict[str, str] = {"FLOATLLM_PRESET": name}
        for part in reversed(parts):
            variables.update(sets(rows[part]))
        assert {**variables, **sets(rows[name])} == dict(preset.variables)


# ---- settings ---------------------------------------------------------------------------------

_READS = re.compile(r"""(?:environ(?:\.get)?|getenv|envvar=?|\$?ENV)\W{1,3}(FLOATLLM_[A-Z_]+)""")


def sources() -> dict[Path, str]:
    folders = ("floatllm_build", "native/floatllm", "native/src", "native/cmake", "ggml")
    kinds = {".py", ".cpp", ".h", ".cmake", ".txt"}
    return {
        path: path.read_text(encoding="utf-8")
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.suffix in kinds
    }


def test_every_variable_of_ours_that_the_sources_read_is_in_the_table() -> None:
    read = {name for text in sources().values() for name in _READS.findall(text)}
    # What the search must find, or it looks for the wrong thing.
    assert {"FLOATLLM_CACHE_DIR", "FLOATLLM_LIBRARY", "FLOATLLM_BACKEND"} <= read
    told = {row[1].strip("`") for row in cells(make_docs.pages()["settings.md"])}
    assert read <= told
    assert {name for name in told if name.startswith("FLOATLLM_")} <= read


def test_every_variable_of_others_in_the_table_is_honoured() -> None:
    tool = "\n".join(text for path, text in sources().items() if path.suffix == ".py")
    # rich reads NO_COLOR; test_render.py tests it.
    foreign = {name for name, _ in make_docs.FOREIGN} - {"NO_COLOR"}
    assert {name for name in foreign if f'"{name}"' not in tool} == set()


def test_every_option_that_decides_something_has_a_variable_named_after_it() -> None:
    rows, without = make_docs.settings(app)
    assert {row.option: row.variable for row in rows} == {
        row.option: f"FLOATLLM_{row.option.removeprefix('--').replace('-', '_').upper()}" for row in rows
    }
    # These say what is shown and where it goes; nothing that is built depends on them.
    assert without == {"--json", "--why", "--save", "--from", "--out", "--dry-run", "-v"}


# ---- the picture ------------------------------------------------------------------------------


def shown(svg: str) -> str:
    """All that a picture says, without spaces: rich's versions cut it into pieces differently."""
    texts = ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")  # noqa: S314  our own picture
    return "".join("".join(text.itertext()) for text in texts).replace("\N{NO-BREAK SPACE}", "")


def screen() -> Screen:
    return detect_screen(machines.PC, None, "Nothing <can> & may.", (), why=False)


def test_the_picture_in_the_readme_is_the_screen_of_its_recorded_host() -> None:
    made = make_screen.picture(make_screen.screen_of(Replay.load(make_screen.HOST)))
    drawn = (DOCS / "detect.svg").read_text(encoding="utf-8")
    assert shown(drawn) == shown(made), "run `python docs/make_screen.py > docs/detect.svg`"


def test_a_picture_is_the_same_each_time_and_loads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = make_screen.picture(screen())
    for name, value in (("NO_COLOR", "1"), ("COLUMNS", "40"), ("TERM", "dumb")):
        monkeypatch.setenv(name, value)
    assert make_screen.picture(screen()) == before
    assert re.findall(r"\bhttps?:[^\"]*", before) == ["http://www.w3.org/2000/svg"]
    assert "url(" not in re.sub(r"url\(#", "", before)


def test_a_picture_says_what_the_screen_says() -> None:
    said = shown(make_screen.picture(screen()))
    for text in ("$floatllm-builddetect", "Nothing<can>&may.", "gcc12.2.0(c++)", "Debian"):
        assert text in said


@given(st.text(max_size=40))
@pytest.mark.slow
def test_no_name_breaks_a_picture(name: str) -> None:
    shown(make_screen.picture(detect_screen(machines.PC, None, name, (), why=False)))

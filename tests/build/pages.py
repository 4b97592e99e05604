"""The makers of the pages in docs/, loaded from their files because they are no modules of the tool."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

from tool_environment import ROOT

DOCS = ROOT / "docs"


def script(name: str) -> ModuleType:
    """A maker of pages, which is no module of the tool."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look for their own module
    spec.loader.exec_module(module)
    return module


make_docs = script("make_docs")
make_screen = script("make_screen")

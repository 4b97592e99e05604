"""The fuzzer's corpus: what the makers make, and what earlier runs found, which corpus.txt keeps as text.

    python corpus.py write FOLDER      writes every input as a file of its own
    python corpus.py keep FOLDER...    rewrites corpus.txt from the files in the folders, those of the makers
                                       and what is too large left out

A model in parts is one input: its parts, with PART_END between them (native/fuzz/gguf_fuzz.cpp).
"""

from __future__ import annotations

import base64
import hashlib
import sys
import textwrap
import zlib
from collections.abc import Iterator
from pathlib import Path

import hostile
import hostile_splits

PART_END = b"=PART="
KEPT = Path(__file__).with_name("corpus.txt")
_LARGEST = 4096
_HEAD = "# Inputs that reached new code: zlib in Base85, one a paragraph. Written by `corpus.py keep`.\n"


def inputs() -> Iterator[bytes]:
    """Every input of the corpus."""
    yield from _made()
    yield from kept()


def kept() -> Iterator[bytes]:
    """The inputs of corpus.txt."""
    paragraphs = KEPT.read_text(encoding="ascii").removeprefix(_HEAD).split("\n\n")
    for paragraph in filter(None, (p.strip() for p in paragraphs)):
        yield zlib.decompress(base64.b85decode(paragraph.replace("\n", "")))


def write(folder: Path) -> int:
    """Writes the corpus; returns how many files it is."""
    folder.mkdir(parents=True, exist_ok=True)
    names = set()
    for data in inputs():
        names.add(hashlib.sha256(data).hexdigest()[:16])
        (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    return len(names)


def keep(folders: list[Path]) -> int:
    """Makes corpus.txt of the files in the folders; returns how many it holds."""
    made = set(_made())
    found = {path.read_bytes() for folder in folders for path in folder.iterdir() if path.is_file()}
    chosen = sorted((data for data in found - made if len(data) <= _LARGEST), key=lambda d: (len(d), d))
    texts = (base64.b85encode(zlib.compress(data, 9)).decode() for data in chosen)
    body = "\n\n".join("\n".join(textwrap.wrap(text, 108)) for text in texts)
    KEPT.write_text(f"{_HEAD}\n{body}\n", encoding="ascii")
    return len(chosen)


def _made() -> Iterator[bytes]:
    for make, _ in (*hostile.OPEN.values(), *hostile.RUN.values()):
        yield make()
    for arch in hostile.LAYER:
        yield hostile.model(arch=arch, matrix=hostile.TYPE_Q4_0)
    yield hostile.model(matrix=hostile.TYPE_Q8_0, rope__scaling__type=(hostile.STRING, "linear"))
    for files in (hostile_splits.good(), hostile_splits.bare_first()):
        yield PART_END.join(files.values())
    for wrong in hostile_splits.WRONG.values():
        yield PART_END.join(wrong.files().values())


if __name__ == "__main__":
    command, *paths = sys.argv[1:]
    count = write(Path(paths[0])) if command == "write" else keep([Path(path) for path in paths])
    sys.stdout.write(f"{count} inputs\n")

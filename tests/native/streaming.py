"""Models run through libllama twice, plainly and with their weights streamed: the same bytes must come out.

    python tests/native/streaming.py BUILD [--slot BYTES] [--io direct|windows]

BUILD: a build folder of native/ with the programs of native/tests (-DFLOATLLM_TESTS=ON and
-DFLOATLLM_LLAMA_TESTS=FOLDER, the folder of llama.cpp's whole tree).
Prints a table of all architectures that the pinned tree can make a model of.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Ring:
    """How weights are streamed: slots of so many bytes, and bytes of weights that stay."""

    slot: int = 2 * MIB
    slots: int = 3
    kept: int = 0
    io: str = "direct"


@dataclass(frozen=True)
class Programs:
    """Those of native/tests, in the build folder that they were made in."""

    build: Path

    def write_models(self, folder: Path) -> list[Path]:
        """A small random model of each architecture."""
        folder.mkdir(parents=True, exist_ok=True)
        command = [self.build / "tests" / "made_models", "-o", f"{folder}/"]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        return sorted(folder.glob("*.gguf"))

    def quantize(self, model: Path, folder: Path, kind: str) -> Path:
        """The model with its matrices in another type, where their rows can have it."""
        folder.mkdir(parents=True, exist_ok=True)
        made = folder / f"{model.stem}-{kind}.gguf"
        command = [self.build / "tests" / "quantize_model", model, made, kind]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        return made

    def command(
        self, model: Path, out: Path, ring: Ring | None, prompt: int = 12, tokens: int = 3, threads: int = 2
    ) -> list[str]:
        """Runs a model, streamed if there is a ring; its logits go to the file `out`."""
        use = ring or Ring()
        options = (use.slot, use.slots, use.kept, use.io, prompt, tokens, threads)
        kind = "stream" if ring else "plain"
        return list(map(str, (self.build / "tests" / "stream_run", model, kind, out, *options)))

    def start(
        self, model: Path, out: Path, ring: Ring | None, prompt: int = 12, tokens: int = 3
    ) -> subprocess.Popen[str]:
        command = self.command(model, out, ring, prompt, tokens)
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(
        self, model: Path, out: Path, ring: Ring | None, prompt: int = 12, tokens: int = 3
    ) -> subprocess.CompletedProcess[str]:
        with self.start(model, out, ring, prompt, tokens) as child:
            said, errors = child.communicate(timeout=300)
        return subprocess.CompletedProcess(child.args, child.returncode, said, errors)


@dataclass(frozen=True, kw_only=True)
class Compared:
    model: str
    verdict: str
    """`same`, or what is not."""


def compare(programs: Programs, model: Path, scratch: Path, ring: Ring) -> Compared:
    plain, streamed = scratch / "plain", scratch / "streamed"
    first = programs.run(model, plain, None)
    if first.returncode != 0:
        return Compared(model=model.stem, verdict=f"llama.cpp does not run it: {first.stderr.strip()[-200:]}")
    second = programs.run(model, streamed, ring)
    if second.returncode != 0:
        return Compared(model=model.stem, verdict=f"fails: {second.stderr.strip()[-200:]}")
    same = plain.read_bytes() == streamed.read_bytes()
    return Compared(model=model.stem, verdict="same" if same else "other numbers")


def compare_all(programs: Programs, models: list[Path], ring: Ring) -> Iterator[Compared]:
    with tempfile.TemporaryDirectory() as scratch:
        for model in models:
            yield compare(programs, model, Path(scratch), ring)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("build", type=Path)
    parser.add_argument("--slot", type=int, default=13 * MIB)
    parser.add_argument("--io", choices=("direct", "windows"), default="direct")
    options = parser.parse_args()
    programs = Programs(options.build)
    with tempfile.TemporaryDirectory() as folder:
        models = programs.write_models(Path(folder))
        sys.stdout.write("| model | streamed against plain |\n|---|---|\n")
        found = []
        for compared in compare_all(programs, models, Ring(slot=options.slot, io=options.io)):
            sys.stdout.write(f"| {compared.model} | {compared.verdict} |\n")
            found.append(compared)
    same = sum(compared.verdict == "same" for compared in found)
    sys.stdout.write(f"\n{same} of {len(found)} models: the same bytes.\n")
    return 0 if same == len(found) else 1


if __name__ == "__main__":
    sys.exit(main())

"""The prompts of a batch: one JSON object a line, all checked before anything runs."""

from __future__ import annotations

import hashlib
import zlib
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from floatllm import foreign_json
from floatllm.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_KEYS = ("prompt", "tokens", "id", "max_tokens")


@dataclass(frozen=True)
class Prompt:
    """One row. `id` is the row's own, else the number of its line, from 1."""

    id: str | int
    tokens: tuple[int, ...]
    max_tokens: int


class Prompts:
    """The rows of a file. Only where each begins is kept, so a long file takes little memory."""

    def __init__(self, path: str, encode: Callable[[str], list[int]], vocab: int, max_tokens: int) -> None:
        """Reads and checks every row. Raises UsageError with the line of the first that is not right.

        A row has `prompt` (text, for `encode`) or `tokens` (ids below `vocab`), and may have `id` (text or a
        whole number) and `max_tokens` (default: the argument). Blank lines are skipped.
        """
        self._path, self._encode, self._vocab, self._default = path, encode, vocab, max_tokens
        if not Path(path).exists():
            msg = f"{path} does not exist: write the prompts into it first, a JSON object a line."
            raise UsageError(msg)
        if not Path(path).is_file():
            msg = f"{path} is not a file that can be read again: write the prompts into a file first."
            raise UsageError(msg)
        self._offsets = array("Q")
        self._lines = array("Q")
        self._needs = array("Q")
        self._sums = array("L")
        try:
            self._file: BinaryIO = Path(path).open("rb")  # noqa: SIM115 (closed by close())
        except OSError as error:
            msg = f"{path} cannot be read: {error.strerror}. Look at its permissions."
            raise UsageError(msg) from error
        try:
            self.sha256 = self._check()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes the file. Safe to call again."""
        self._file.close()

    def __enter__(self) -> Prompts:  # noqa: PYI034 (Self needs Python 3.11)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, row: int) -> Prompt:
        """Reads a row again. Raises UsageError where it is no longer what was checked."""
        self._file.seek(self._offsets[row])
        line = self._file.readline()
        if zlib.crc32(line) != self._sums[row]:
            msg = (
                f"{self._path}, line {self._lines[row]}: the row changed while the batch ran. Put the file "
                f"back as it was."
            )
            raise UsageError(msg)
        return self._row(line, self._lines[row])

    @property
    def longest(self) -> int:
        """Positions that the longest row takes, with all that it may generate; 1 where there are no rows."""
        return max(self._needs, default=1)

    def _check(self) -> str:
        """Reads every row once; returns the SHA-256 of the file."""
        digest = hashlib.sha256()
        offset = 0
        for number, line in enumerate(self._file, 1):
            digest.update(line)
            if line.strip():
                row = self._row(line, number)
                self._offsets.append(offset)
                self._lines.append(number)
                self._sums.append(zlib.crc32(line))
                self._needs.append(len(row.tokens) + row.max_tokens)
            offset += len(line)
        return digest.hexdigest()

    def _row(self, line: bytes, number: int) -> Prompt:
        try:
            raw = foreign_json.parse(line, "utf-8-sig")
        except foreign_json.RepeatedKeyError as error:
            raise self._refused(number, f"has {error.key!r} twice") from error
        except ValueError as error:
            raise self._refused(number, f"is not JSON ({error})") from error
        if not isinstance(raw, dict):
            raise self._refused(number, "is not a JSON object")
        unknown = next((key for key in raw if key not in _KEYS), None)
        if unknown is not None:
            raise self._refused(number, f"has {unknown!r}, and a row may have only {', '.join(_KEYS)}")
        if ("prompt" in raw) == ("tokens" in raw):
            raise self._refused(number, "must have one of prompt and tokens")
        most = raw.get("max_tokens", self._default)
        if not _whole(most) or not 1 <= most < 2**31:
            raise self._refused(number, "has a max_tokens that is not a whole number from 1 on")
        own = raw.get("id", number)
        if not isinstance(own, str) and not _whole(own):
            raise self._refused(number, "has an id that is neither text nor a whole number")
        return Prompt(own, self._tokens(raw, number), most)

    def _tokens(self, raw: dict[str, Any], number: int) -> tuple[int, ...]:
        if "prompt" in raw:
            if not isinstance(raw["prompt"], str):
                raise self._refused(number, "has a prompt that is not text")
            return tuple(self._encode(raw["prompt"]))
        tokens = raw["tokens"]
        if not isinstance(tokens, list) or not all(_whole(t) and 0 <= t < self._vocab for t in tokens):
            raise self._refused(number, f"has tokens that are not a list of ids from 0 to {self._vocab - 1}")
        return tuple(tokens)

    def _refused(self, number: int, why: str) -> UsageError:
        return UsageError(f"{self._path}, line {number}: the row {why}. Nothing was run.")


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)

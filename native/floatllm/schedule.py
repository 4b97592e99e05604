"""Which tokens of which sequences go through the weights together. Pure: no engine, no file, no clock.

What a sequence gets must not depend on what runs beside it, and attention's kernels depend on how many
positions of one sequence a pass holds. So a prompt is always read in the same pieces, from its beginning on,
and what was generated one token at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

PIECE = 64
"""Positions of a prompt that go into one pass; the last piece may be shorter."""


@dataclass(frozen=True)
class Piece:
    """Tokens that one place adds to a pass; `wanted`: the logits behind the last choose its next token."""

    place: int
    tokens: tuple[int, ...]
    wanted: bool


@dataclass(frozen=True)
class Finished:
    """A sequence that is done. `stopped`: by a token that ends generation, which is not among `tokens`."""

    row: int
    tokens: tuple[int, ...]
    stopped: bool


@dataclass
class _Sequence:
    row: int
    prompt: tuple[int, ...]
    max_tokens: int
    read: int = 0
    tokens: list[int] = field(default_factory=list)


class Schedule:
    """Sequences side by side, each in a place of its own until it is done."""

    def __init__(self, places: int, width: int, piece: int = PIECE) -> None:
        """`width` positions go into a pass: one of each place, and a piece, at least."""
        if places < 1 or width < places + piece:
            msg = f"{places} places and pieces of {piece} positions do not fit a pass of {width}."
            raise ValueError(msg)
        self._width, self._piece = width, piece
        self._places: dict[int, _Sequence] = {}
        self._free = list(range(places))

    @property
    def free(self) -> bool:
        """Whether another sequence may come in."""
        return bool(self._free)

    def admit(self, row: int, prompt: tuple[int, ...], max_tokens: int) -> int:
        """Gives `row` a place, which is returned: `prompt` and `max_tokens` hold one token or more."""
        place = self._free.pop(0)
        self._places[place] = _Sequence(row, prompt, max_tokens)
        return place

    def next_pass(self) -> list[Piece]:
        """The next pass: a token of each sequence that generates, then prompts, first come first served."""
        pieces = []
        room = self._width
        for place, each in self._places.items():
            if each.read == len(each.prompt):
                pieces.append(Piece(place, (each.tokens[-1],), wanted=True))
                room -= 1
        for place, each in self._places.items():
            tokens = each.prompt[each.read : each.read + self._piece]
            if tokens and len(tokens) <= room:
                room -= len(tokens)
                pieces.append(Piece(place, tokens, wanted=each.read + len(tokens) == len(each.prompt)))
        return pieces

    def computed(self, piece: Piece) -> None:
        """Notes that a piece of next_pass() went through the weights."""
        each = self._places[piece.place]
        if each.read < len(each.prompt):
            each.read += len(piece.tokens)

    def take(self, place: int, token: int, *, ends: bool) -> Finished | None:
        """Adds the token chosen for `place`; frees the place behind its last. `ends`: it is no text."""
        each = self._places[place]
        if not ends:
            each.tokens.append(token)
        if not ends and len(each.tokens) < each.max_tokens:
            return None
        del self._places[place]
        self._free.append(place)
        return Finished(each.row, tuple(each.tokens), stopped=ends)

"""A session over a plan: maps the chunks, computes, generates."""

from __future__ import annotations

import ctypes
import weakref
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from floatllm import _lib, chat, speculate
from floatllm.errors import EngineError, UsageError
from floatllm.interrupt import Note, noted
from floatllm.sampler import Sampler, Sampling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType

    from floatllm.plan import Plan

_TOKENS = 128
_KINDS = {_lib.EVENT_TENSOR: "tensor", _lib.EVENT_CHUNK: "chunk", _lib.EVENT_READ: "read"}


@dataclass(frozen=True)
class Event:
    """Something the engine did.

    `kind` is "tensor" where one was bound to the device, "read" where the bytes of a chunk have come, and
    "chunk" where it was computed and released. `tensor` is an index into the model's tensors, None for the
    other kinds; `computed` says whether a graph computes on it; `device` holds it; `bytes` are mapped.
    A chunk, or its reading, took `seconds` from `began` on, which counts from when the engine was made; of a
    chunk's, `waited` were spent waiting for its bytes. What stays in memory is read once.
    """

    kind: str
    chunk: int
    chunks: int
    tensor: int | None
    computed: bool
    device: str
    bytes: int
    seconds: float
    began: float
    waited: float


class _Hook:
    """The C callback. An exception cannot cross C, so it stops the pass and is raised after it."""

    def __init__(self) -> None:
        self.on_event: Callable[[Event], None] | None = None
        self.error: BaseException | None = None
        self.note = Note()
        self.function = _lib.EventFunction(self._call)

    def _call(self, pointer: Any, _user: Any) -> int:
        # Even with no listener this runs, so that Ctrl-C is seen at each event and not only after the pass.
        if self.note.came:
            return 1
        try:
            info = pointer.contents
            # A search for damage is no work on a chunk; it only has to be stopped like any.
            if self.on_event is not None and info.kind != _lib.EVENT_CHECK:
                self.on_event(_event(info))
        except BaseException as error:  # noqa: BLE001 (raised again behind C)
            self.error = error
            return 1
        return 0


def _event(info: _lib.EventInfo) -> Event:
    kind = _KINDS[info.kind]
    device = "" if info.device is None else info.device.decode("utf-8", "replace")
    return Event(
        kind=kind,
        chunk=info.chunk,
        chunks=info.chunks,
        tensor=info.tensor if kind == "tensor" else None,
        computed=bool(info.computed),
        device=device,
        bytes=info.bytes,
        seconds=info.seconds,
        began=info.began,
        waited=info.waited,
    )


class Engine:
    """Takes all the memory its plan granted when made, and gives it back when closed."""

    def __init__(self, plan: Plan) -> None:
        """Opens a session on `plan`. Raises EngineError where memory or device cannot be had."""
        if not hasattr(plan, "handle"):
            msg = f"An engine is made from a plan, not from {plan!r}: use Engine(Model.open(path).plan())."
            raise UsageError(msg)
        lib = _lib.library()
        handle = ctypes.c_void_p()
        _lib.call(lib, "floatllm_session_open", plan.handle, ctypes.byref(handle))
        self.plan = plan
        self._handle = handle
        self._hook = _Hook()
        lib.floatllm_session_on_event(handle, self._hook.function, None)
        self._finalizer = weakref.finalize(self, lib.floatllm_session_close, handle)

    def close(self) -> None:
        """Gives the memory back. Safe to call again."""
        self._finalizer()

    def __enter__(self) -> Engine:  # noqa: PYI034 (Self needs Python 3.11)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def on_event(self, listen: Callable[[Event], None] | None) -> None:
        """Calls `listen` for what later passes do; what it raises stops the pass and is raised there."""
        self._hook.on_event = listen

    @property
    def length(self) -> int:
        """Positions held, by the first sequence."""
        return self.length_of(0)

    def length_of(self, sequence: int) -> int:
        """Positions held by a sequence; 0 for one that was not planned."""
        return int(_lib.library().floatllm_session_length(self._open_handle(), sequence))

    @property
    def context(self) -> int:
        """Positions that fit."""
        return int(_lib.library().floatllm_session_context(self._open_handle()))

    @property
    def vocab(self) -> int:
        """Logits of one position."""
        return int(_lib.library().floatllm_session_vocab(self._open_handle()))

    def truncate(self, length: int, sequence: int = 0) -> None:
        """Forgets a sequence's positions from `length` on. Raises UsageError beyond the length held."""
        if length < 0:
            msg = f"Cannot keep {length} positions: the length must be 0 or more."
            raise UsageError(msg)
        _lib.call(_lib.library(), "floatllm_session_truncate", self._open_handle(), sequence, length)

    def forward(self, tokens: Sequence[int]) -> memoryview[float]:
        """Appends `tokens` and returns the `vocab` logits that follow the last: a memoryview of float32.

        The view owns its memory. Raises UsageError for no token, one outside the vocabulary, or more
        than the context still holds, EngineError where the pass could not be finished or overflowed, and
        ModelError, naming file, tensor and byte, where a weight is NaN or infinite.
        """
        return self.append([(0, tokens, 1)])[0][0]

    def append(self, additions: Sequence[tuple[int, Sequence[int], int]]) -> list[list[memoryview[float]]]:
        """Appends tokens to several sequences in as few passes over the weights as the plan's width allows.

        Each addition is (sequence, tokens, outputs): logits are returned for the last `outputs` tokens, one
        memoryview of `vocab` float32 each. Raises as forward() does; every sequence is then as it was.
        """
        vocab = self.vocab
        native = _additions(additions)
        rooms = [(ctypes.c_float * (vocab * entry.outputs))() for entry in native]
        for entry, room in zip(native, rooms, strict=True):
            entry.logits = room
        self._call("floatllm_session_append", native, len(native))
        return [_rows(room, vocab, entry.outputs) for entry, room in zip(native, rooms, strict=True)]

    def likeliest(self, additions: Sequence[tuple[int, Sequence[int], int]]) -> list[list[int]]:
        """As append(), but returns for each output the token of the largest logit, the first of equals.

        No logits leave the engine, which matters for many sequences and large vocabularies.
        """
        native = _additions(additions)
        rooms = [(ctypes.c_uint32 * entry.outputs)() for entry in native]
        for entry, room in zip(native, rooms, strict=True):
            entry.top, entry.ids = 1, room
        self._call("floatllm_session_append", native, len(native))
        return [list(room) for room in rooms]

    def generate(
        self,
        prompt: str | Sequence[int],
        max_tokens: int | None = None,
        *,
        sampling: Sampling | None = None,
        ignore_end: bool = False,
        draft: int = 0,
    ) -> Iterator[int]:
        """Appends `prompt`, then yields token after token, at most `max_tokens` of them.

        Text is encoded as raw text by the model's tokenizer. `sampling` is how tokens are chosen (default:
        the likeliest); `max_tokens` is 128 where the context holds as many. Stops before a token that ends
        generation unless `ignore_end`. `draft` tokens are guessed and verified in each pass
        (speculate.generate), for a plan made with outputs=draft + 1. Raises UsageError where prompt and
        tokens do not fit the context.
        """
        if isinstance(prompt, str):
            prompt = self.plan.model.tokenizer.encode(prompt)
        # Token ids alone need no tokenizer, so a model without one can still be run.
        ends = frozenset() if ignore_end else self.plan.model.tokenizer.end_ids
        free = self.context - self.length
        wanted = default_tokens(len(prompt), free) if max_tokens is None else max_tokens
        check_fit(len(prompt), wanted, free)
        speculate.check_draft(self.plan, draft)
        sampler, history = Sampler(sampling or Sampling()), list(prompt)

        def pick(logits: memoryview[float]) -> int:
            token = sampler.choose(logits, history)
            history.append(token)
            return token

        chosen = None if sampler.sampling.likeliest else pick
        return speculate.generate(self, prompt, wanted, pick=chosen, ends=ends, draft=draft)

    def stream(
        self,
        prompt: str | Sequence[int],
        max_tokens: int | None = None,
        *,
        sampling: Sampling | None = None,
    ) -> Iterator[str]:
        """As generate(), but yields the text, as soon as its characters are whole."""
        return self._text(self.generate(prompt, max_tokens, sampling=sampling))

    def chat(
        self,
        messages: str | Sequence[Mapping[str, str]],
        max_tokens: int | None = None,
        *,
        sampling: Sampling | None = None,
    ) -> Iterator[str]:
        """Yields the text of the model's answer to `messages`, through its own chat template.

        A message is a mapping with `role` ("system", "user", "assistant") and `content`; text alone is one of
        the user's. Raises as generate() does, MissingError without jinja2, and ModelError where the model
        has no template.
        """
        return self.stream(chat.encode(self.plan.model, messages), max_tokens, sampling=sampling)

    def _text(self, tokens: Iterator[int]) -> Iterator[str]:
        decoder = self.plan.model.tokenizer.decoder()
        for token in tokens:
            if text := decoder.push(token):
                yield text
        if rest := decoder.finish():
            yield rest

    def map(self, on_event: Callable[[Event], None] | None = None) -> array[float]:
        """Maps, computes and releases every chunk of a plan made with mode="map".

        Returns a float64 sum over all elements for each tensor, in the model's order; 0 for a type that
        no matrix product takes. `on_event` is called as in on_event().
        """
        sums = array("d", bytes(8 * len(self.plan.model.tensors)))
        view = (ctypes.c_double * len(sums)).from_buffer(sums) if len(sums) else None
        before, self._hook.on_event = self._hook.on_event, on_event or self._hook.on_event
        try:
            self._call("floatllm_session_map", view, len(sums))
        finally:
            self._hook.on_event = before
            del view
        return sums

    def _call(self, name: str, *arguments: Any) -> None:
        stopped: EngineError | None = None
        with noted() as note:
            self._hook.note = note
            try:
                _lib.call(_lib.library(), name, self._open_handle(), *arguments)
            except EngineError as error:
                stopped = error
        # The signal's own handler has run by now. One that raises nothing still leaves a pass undone.
        listener, self._hook.error = self._hook.error, None
        if listener is not None:
            raise listener
        if stopped is not None:
            raise stopped

    def _open_handle(self) -> ctypes.c_void_p:
        if not self._finalizer.alive:
            msg = "The engine was closed: make a new one from its plan."
            raise UsageError(msg)
        return self._handle


def _additions(additions: Sequence[tuple[int, Sequence[int], int]]) -> Any:
    """The native array, with what is wanted of the outputs still to be filled in."""
    native = (_lib.Addition * len(additions))()
    for entry, (sequence, tokens, outputs) in zip(native, additions, strict=True):
        if any(not 0 <= token < 2**31 for token in tokens):
            msg = "A token id lies outside the vocabulary: ids run from 0 to below its size."
            raise UsageError(msg)
        entry.sequence, entry.outputs, entry.count = sequence, outputs, len(tokens)
        # An array of structures keeps alive what is put into it. A cast in between would tie a knot that only
        # the garbage collector undoes, long after.
        entry.tokens = (ctypes.c_int32 * len(tokens))(*tokens)
    return native


def _rows(room: Any, vocab: int, count: int) -> list[memoryview[float]]:
    whole = memoryview(room).cast("B").cast("f")
    return [whole[i * vocab : (i + 1) * vocab] for i in range(count)]


def default_tokens(prompt: int, free: int) -> int:
    """Tokens to generate where nobody said how many: what `free` positions hold beside the prompt."""
    return max(1, min(_TOKENS, free - prompt))


def check_fit(prompt: int, max_tokens: int, free: int) -> None:
    """Raises UsageError unless `prompt` tokens and `max_tokens` more fit the `free` positions."""
    if prompt == 0:
        msg = "The prompt is empty and the model adds no token of its own: give at least one token."
        raise UsageError(msg)
    if max_tokens < 1:
        msg = f"Cannot generate {max_tokens} tokens: ask for at least 1."
        raise UsageError(msg)
    if prompt + max_tokens > free:
        fix = "shorten the prompt" if prompt >= free else "ask for fewer tokens"
        msg = (
            f"The prompt of {prompt} tokens and {max_tokens} more do not fit the context of {free}: "
            f"{fix}, or give a larger --ctx (--ctx {prompt + max_tokens} holds both)."
        )
        raise UsageError(msg)

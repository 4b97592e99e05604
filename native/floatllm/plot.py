"""A plan as a picture: where the memory goes, which weights stay, and how long a token takes. Pure."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from floatllm.render import chunks_text, printable
from floatllm.sizes import format_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from floatllm.plan import Chunk, Plan
    from floatllm.predict import Prediction

# Pixels: of the picture, between its edge and what it shows, and of that.
_WIDTH, _EDGE = 960, 40
_INNER = _WIDTH - 2 * _EDGE
# Segments of the strip; more would be narrower than the eye can part.
_MOST = 240
_NAMES = {
    "pinned": "pinned",
    "host": "in the host",
    "ring": "ring",
    "kv": "KV cache",
    "activations": "activations",
    "graph": "graph",
    "staging": "staging",
    "metadata": "metadata",
    "free": "free",
}
_LIMITS = {"disk": "the disk binds", "compute": "computing binds", "link": "the link to the device binds"}
_LAYER = re.compile(r"blk\.(\d+)\.", re.ASCII)
# What streams has the colour of the ring that it passes through. The second colour is for the dark.
_COLOURS = {
    "page": ("#ffffff", "#12161d"),
    "track": ("#eceff4", "#242c38"),
    "ink": ("#1b2330", "#e8ebf1"),
    "muted": ("#667085", "#98a2b3"),
    "pinned": ("#2f66d6", "#4f83f1"),
    "host": ("#d9822b", "#c8752a"),
    "ring": ("#f2a63b", "#eda83f"),
    "kv": ("#8557d0", "#9d75e0"),
    "activations": ("#12917f", "#1fa692"),
    "graph": ("#cc4f89", "#d9669c"),
    "staging": ("#5f8f2b", "#79a944"),
    "metadata": ("#7b899d", "#7b899d"),
    "free": ("#eceff4", "#242c38"),
    "single": ("#a7b1c0", "#66728a"),
    "on": ("#ffffff", "#ffffff"),
    "on-ring": ("#3d2600", "#2b1b00"),
}


@dataclass(frozen=True)
class Segment:
    """A piece of the strip: `count` chunks from index `first` to `last`, all pinned or all streamed."""

    first: int
    last: int
    count: int
    bytes: int
    pinned: bool


def svg(plan: Plan, prediction: Prediction | None) -> str:
    """The picture as one SVG document, below 1 MB whatever the plan; light or dark as the reader prefers.

    Widths are bytes: of the memory bar against the limit, of the strip against all weights of the file. Each
    `rect` with a `data-bytes` says how many, and its class says of what: a share of the memory or "free",
    and in the strip "pinned", "ring" (streamed) or "single" (in no chunk).
    """
    memory = 150
    weights = memory + 100 + 24 * math.ceil(len(_shares(plan)) / 4)
    ticks = list(_layers(plan, weights + 68))
    legend = weights + (118 if ticks else 96)
    body = [
        *_head(plan, prediction),
        *_memory(plan, memory),
        *_weights(plan, weights),
        *ticks,
        *_tiers(plan, legend),
    ]
    height = legend + 36
    size = f'width="{_WIDTH}" height="{height}"'
    title = f"{_cut(plan.architecture, 32) or 'model'} on {_cut(plan.device, 32)}: memory and chunks"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" {size}>',
            f"<title>{escape(title)}</title>",
            _style(),
            f'<rect class="page" width="{_WIDTH}" height="{height}" rx="14"/>',
            *body,
            "</svg>\n",
        ]
    )


def segments(chunks: Sequence[Chunk]) -> list[Segment]:
    """The chunks in order, or where they are too many to be seen, neighbours put together.

    At first those of one tier. If that is not enough, all within stretches of about as many bytes, where the
    pinned ones then stand before the streamed. No byte is lost, and none changes its tier.
    """
    each = [Segment(chunk.index, chunk.index, 1, chunk.bytes, chunk.pinned) for chunk in chunks]
    if len(each) <= _MOST:
        return each
    runs = [_joined(list(run)) for _, run in groupby(each, key=lambda segment: segment.pinned)]
    total = max(sum(segment.bytes for segment in each), 1)
    rarer = min(sum(segment.bytes for segment in each if segment.pinned is tier) for tier in (True, False))
    # So few that the rarer tier gets two pixels in each.
    count = max(min(_MOST // 2, rarer * _INNER // (2 * total)), 4)
    if len(runs) <= max(2 * count, 24):
        return runs
    stretches: dict[int, list[Segment]] = {}
    begin = 0
    for segment in each:
        stretches.setdefault(begin * count // total, []).append(segment)
        begin += segment.bytes
    return [
        _joined(tier)
        for stretch in stretches.values()
        for pinned in (True, False)
        if (tier := [segment for segment in stretch if segment.pinned is pinned])
    ]


def _joined(parts: Sequence[Segment]) -> Segment:
    size = sum(part.bytes for part in parts)
    return Segment(parts[0].first, parts[-1].last, len(parts), size, parts[0].pinned)


def _style() -> str:
    light = "".join(f".{name}{{fill:{colours[0]}}}" for name, colours in _COLOURS.items())
    dark = "".join(f".{name}{{fill:{colours[1]}}}" for name, colours in _COLOURS.items())
    lines = [
        "text{font:13px system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans','DejaVu Sans',sans-serif}",
        ".big{font-size:24px;font-weight:600}",
        ".head{font-size:15px;font-weight:600}",
        ".small{font-size:11px}",
        ".end{text-anchor:end}",
        ".mid{text-anchor:middle}",
        light,
        f"@media (prefers-color-scheme:dark){{{dark}}}",
    ]
    return "<style>\n" + "\n".join(lines) + "\n</style>"


def _head(plan: Plan, prediction: Prediction | None) -> Iterator[str]:
    yield _text(_EDGE, 52, "big ink", _cut(plan.architecture, 32) or "model")
    size = format_size(plan.weights_bytes)
    yield _text(_EDGE, 77, "muted", f"{size} of weights in {plan.weights_tensors:,} tensors")
    how = [plan.device, f"reads by {plan.io}"]
    if plan.slots:
        how.append(f"{plan.slots} slot{'' if plan.slots == 1 else 's'}")
    if plan.mode == "run":
        how += [f"context {plan.ctx:,}", f"passes of up to {plan.width:,}"]
    yield _text(_EDGE, 97, "muted", " · ".join(_cut(part, 32) for part in how))
    if prediction is not None:
        right = _WIDTH - _EDGE
        yield _text(right, 52, "big ink end", f"{_duration(prediction.seconds)} per token")
        yield _text(right, 77, "muted end", f"predicted: {1 / max(prediction.seconds, 1e-9):.3g} tokens/s")
        yield _text(right, 97, "muted end", _limit(prediction))


def _limit(prediction: Prediction) -> str:
    said = _LIMITS.get(prediction.limit, f"{prediction.limit} binds")
    if prediction.limit == "compute":
        return f"{said}, at {format_size(round(prediction.compute_rate))}/s of weights"
    read = format_size(prediction.streamed)
    return f"{said}: {read} in each pass, at {format_size(round(prediction.read_rate))}/s"


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 100 else f"{seconds:,.0f} s"


def _shares(plan: Plan) -> list[tuple[str, int]]:
    sizes = [(name, getattr(plan.memory, name)) for name in _NAMES if name != "free"]
    # A device with memory of its own holds what the host's limit does not bind.
    return [*((name, size) for name, size in sizes if size), ("free", max(_free(plan), 0))]


def _free(plan: Plan) -> int:
    return plan.memory.limit - plan.memory.total


def _memory(plan: Plan, top: int) -> Iterator[str]:
    memory, shares = plan.memory, _shares(plan)
    used = f"{format_size(memory.total)} of {format_size(memory.limit)} ({_cut(memory.source, 60)})"
    yield from _heading("Memory", used, top)
    bar = top + 16
    whole = sum(size for _, size in shares)
    yield from _track("memory", bar, 34)
    yield '<g clip-path="url(#memory)">'
    for (name, size), (begin, end) in zip(shares, _edges([size for _, size in shares], whole), strict=True):
        label = f"{_NAMES[name]} {format_size(size)}"
        yield _rect(name, begin, end, bar, 34, size, label)
        if _fits(label, end - begin):
            yield _text((begin + end) / 2, bar + 22, f"{_on(name)} mid", label)
    yield "</g>"
    if _free(plan) < 0:
        at = _EDGE + _INNER * memory.limit / whole
        yield f'<path class="ink" d="M{at:.3f} {bar - 4}h1.5v42h-1.5z"/>'
    for index, (name, size) in enumerate(shares):
        x, y = _EDGE + index % 4 * (_INNER / 4), bar + 62 + index // 4 * 24
        yield _swatch(name, x, y)
        yield _legend(x, y, _NAMES[name], format_size(size))


def _weights(plan: Plan, top: int) -> Iterator[str]:
    strip, height = segments(plan.chunks), 52
    said = f"{chunks_text(plan)} in the order of computation"
    if len(strip) < len(plan.chunks):
        said += ", neighbours drawn together"
    yield from _heading("Weights", said, top)
    bar = top + 16
    single = _outside(plan)
    sizes = [single, *(segment.bytes for segment in strip)]
    (begin, end), *places = _edges(sizes, sum(sizes))
    yield from _track("weights", bar, height)
    yield '<g clip-path="url(#weights)">'
    if single:
        label = f"{format_size(single)} in no chunk"
        yield _rect("single", begin, end, bar + height - 10, 10, single, label)
    for segment, (begin, end) in zip(strip, places, strict=True):
        name = "pinned" if segment.pinned else "ring"
        label = _told(plan, segment)
        yield _rect(name, begin, end, bar, height, segment.bytes, label)
        lines = [f"{segment.count:,} chunks"] if segment.count > 1 else []
        lines.append(format_size(segment.bytes))
        if _fits(max(lines, key=len), end - begin):
            for line, text in enumerate(lines):
                y = bar + 40 - 9 * len(lines) + 18 * line
                yield _text((begin + end) / 2, y, f"{_on(name)} mid", text)
    yield "</g>"


def _tiers(plan: Plan, y: int) -> Iterator[str]:
    x = _EDGE
    for name, what, pinned in (("pinned", "pinned", True), ("ring", "streamed", False)):
        # What streams is read in whole pages, a little more than its weights; the prediction counts so too.
        tier = [c.bytes if pinned else c.mapped for c in plan.chunks if c.pinned is pinned]
        if tier:
            when = "loaded once" if pinned else "read in each pass"
            yield _swatch(name, x, y)
            yield _legend(x, y, what, f"{format_size(sum(tier))}, {when}")
            x += 250 if pinned else 310
    if single := _outside(plan):
        yield _swatch("single", x, y)
        yield _legend(x, y, "embeddings", f"{format_size(single)}, rows read singly")


def _outside(plan: Plan) -> int:
    """Bytes of tensors that no chunk holds: in a run the token embeddings, unless they are the output too."""
    held = {(part.tensor, part.row_begin): part.bytes for chunk in plan.chunks for part in chunk.parts}
    return max(plan.weights_bytes - sum(held.values()), 0)


def _told(plan: Plan, segment: Segment) -> str:
    tier = "pinned" if segment.pinned else "streamed"
    size = format_size(segment.bytes)
    if segment.count > 1:
        return f"{segment.count:,} of chunks {segment.first + 1} to {segment.last + 1}: {size}, {tier}"
    names = [_cut(part.tensor, 64) for part in plan.chunks[segment.first].parts]
    ends = names[:1] + names[1:][-1:]
    return f"chunk {segment.first + 1}: {size}, {tier}" + "".join(f"\n{name}" for name in ends)


def _layers(plan: Plan, top: int) -> Iterator[str]:
    """Where layers begin, as many as can be read."""
    starts: dict[int, int] = {}
    begin = _outside(plan)
    whole = begin + sum(chunk.bytes for chunk in plan.chunks)
    for chunk in plan.chunks:
        for part in chunk.parts:
            found = _LAYER.match(part.tensor)
            if found and len(found[1]) < 7:
                starts.setdefault(int(found[1]), begin)
            begin += part.bytes
    if list(starts) != sorted(starts):
        return
    step = next(s * 10**e for e in range(7) for s in (1, 2, 5) if len(starts) <= 12 * s * 10**e)
    free = 0.0
    for layer, start in starts.items():
        x = _place(start, whole)
        if layer % step == 0 and x >= free:
            label = str(layer) if free else f"layer {layer}"
            free = x + 8 * len(label)
            yield f'<path class="muted" d="M{x:g} {top + 4}h1v5h-1z"/>'
            yield _text(x, top + 22, "small muted", label)


def _heading(left: str, right: str, y: int) -> Iterator[str]:
    yield _text(_EDGE, y, "head ink", left)
    yield _text(_WIDTH - _EDGE, y, "muted end", right)


def _track(name: str, y: int, height: int) -> Iterator[str]:
    place = f'x="{_EDGE}" y="{y}" width="{_INNER}" height="{height}" rx="7"'
    yield f'<clipPath id="{name}"><rect {place}/></clipPath>'
    yield f'<rect class="track" {place}/>'


def _edges(sizes: Sequence[int], whole: int) -> list[tuple[float, float]]:
    """Begin and end of each size in pixels; rounding loses nothing, as each ends where the next begins."""
    out, sum_ = [], 0
    for size in sizes:
        begin, sum_ = sum_, sum_ + size
        out.append((_place(begin, whole), _place(sum_, whole)))
    return out


def _place(bytes_: int, whole: int) -> float:
    return round(_EDGE + _INNER * bytes_ / max(whole, 1), 3)


def _rect(name: str, begin: float, end: float, y: int, height: int, size: int, label: str) -> str:
    width = round(end - begin, 3)
    drawn = f'<rect class="{name}" x="{begin:g}" y="{y}" width="{width:g}" height="{height}"'
    drawn += f' data-bytes="{size}"><title>{escape(label)}</title></rect>'
    # Neighbours are told apart by a seam, where they are wide enough for one.
    return drawn + (f'<path class="page" d="M{end - 1:.3f} {y}h1v{height}h-1z"/>' if width > 8 else "")


def _fits(text: str, width: float) -> bool:
    return width > 7.2 * len(text) + 16


def _on(name: str) -> str:
    return {"ring": "on-ring", "free": "muted"}.get(name, "on")


def _swatch(name: str, x: float, y: float) -> str:
    return f'<rect class="{name}" x="{x:g}" y="{y - 10:g}" width="11" height="11" rx="3"/>'


def _legend(x: float, y: float, name: str, value: str) -> str:
    return (
        f'<text x="{x + 18:g}" y="{y:g}"><tspan class="ink">{escape(name)}</tspan>'
        f'<tspan class="muted" dx="8">{escape(value)}</tspan></text>'
    )


def _text(x: float, y: float, names: str, text: str) -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{names}">{escape(text)}</text>'


def _cut(text: str, most: int) -> str:
    shown = printable(text)
    return shown if len(shown) <= most else shown[: most - 1] + "…"

"""Plain text and JSON for the command line."""

from __future__ import annotations

import json
import math
import re
from array import array
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from floatllm.errors import ModelError
from floatllm.metadata import Entry, StringArray, Value
from floatllm.sizes import format_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from floatllm.devices import Device
    from floatllm.model import Model
    from floatllm.plan import Chunk, DevicePlan, Plan
    from floatllm.plugin import Plugin
    from floatllm.predict import Prediction
    from floatllm.sampler import Sampling

SCHEMA_VERSION = 1
# Of more chunks only the first and the last so many are listed.
_FIRST_CHUNKS, _LAST_CHUNKS = 8, 4
# Longer arrays (a vocabulary) are counted, not listed.
_LISTED = 16
_TEXT = 60
_LIMITS = {
    "disk": "reading",
    "link": "the link to the device",
    "compute": "the processor and its memory",
}


def printable(text: str) -> str:
    """`text` with each character that a terminal would obey, or that breaks a line, written as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


# Control characters but tab and line break, separators of lines, and what turns the direction of text around.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u206f\ufff9-\ufffb]")


def harmless(text: str) -> str:
    """`text` in all its letters and lines, but with each character that a terminal obeys as an escape.

    Unlike printable() it keeps the joiners of emoji, and marks and spaces of all languages.
    """
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Columns two spaces apart; those whose index is in `right` are aligned to the right."""
    cells = [list(head), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = []
    for row in cells:
        padded = (
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def to_json(value: Any) -> str:
    """`value` as one JSON document; a number that JSON lacks (nan, inf) becomes its name as text."""
    return json.dumps(_finite(value), indent=2, ensure_ascii=True, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def devices_text(found: Sequence[Device], cpu_variant: str, plugins: Sequence[Plugin]) -> str:
    """A line for each device; behind them what else was chosen as the engine was loaded."""
    lines = table(
        ("NAME", "KIND", "FREE", "TOTAL", "HOST MEMORY", "DESCRIPTION"),
        [
            (
                d.name,
                d.kind,
                format_size(d.memory_free),
                format_size(d.memory_total),
                "in place" if d.maps_host else "copied",
                printable(d.description),
            )
            for d in found
        ],
        right=(2, 3),
    )
    if cpu_variant:
        lines += f"\nThe CPU computes with the kernels for {cpu_variant}."
    for plugin in plugins:
        state = "is loaded" if plugin.loaded else f"is not loaded: {printable(plugin.reason)}"
        lines += f"\n{printable(f'{plugin.name} {plugin.version}')} {state}."
    return lines


def inspect_text(model: Model) -> str:
    """Metadata and tensors of a model."""
    entries = model.metadata.entries.values()
    keys = table(
        ("KEY", "TYPE", "VALUE"),
        [(printable(e.key), _type_text(e), _value_text(model, e)) for e in entries],
    )
    tensors = table(
        ("TENSOR", "TYPE", "SHAPE", "OFFSET", "SIZE"),
        [
            (printable(t.name), t.type, str(list(t.shape)), str(t.offset), format_size(t.size))
            for t in model.tensors
        ],
        right=(3, 4),
    )
    total = format_size(sum(t.size for t in model.tensors))
    return (
        f"{printable(model.path)}: {printable(model.architecture) or 'no architecture named'}, "
        f"{len(model.tensors)} tensors, {total}\n\n{keys}\n\n{tensors}"
    )


def inspect_json(model: Model) -> dict[str, Any]:
    """The same as one document; `value` is null for an array of more than 16."""
    return {
        "schema_version": SCHEMA_VERSION,
        "file": model.path,
        "architecture": model.architecture,
        "metadata": [
            {
                "key": e.key,
                "type": e.type,
                "element_type": e.element_type,
                "count": e.count,
                "value": _plain(_value(model, e)) if e.count <= _LISTED else None,
            }
            for e in model.metadata.entries.values()
        ],
        "tensors": [
            {"name": t.name, "type": t.type, "shape": list(t.shape), "offset": t.offset, "size": t.size}
            for t in model.tensors
        ],
    }


def _type_text(entry: Entry) -> str:
    return f"{entry.element_type}[{entry.count}]" if entry.type == "array" else entry.type


def _value(model: Model, entry: Entry) -> Value | None:
    try:
        return model.metadata[entry.key]
    except ModelError:
        return None  # one damaged value must not hide the others


def _value_text(model: Model, entry: Entry) -> str:
    if entry.count > _LISTED:
        return "..."
    value = _value(model, entry)
    if value is None:
        return "(damaged)"
    text = printable(value if isinstance(value, str) else str(_plain(value)))
    return text if len(text) <= _TEXT else text[: _TEXT - 3] + "..."


def _plain(value: Value | None) -> Any:
    return list(value) if isinstance(value, (StringArray, array)) else value


def plan_json(plan: Plan, prediction: Prediction | None) -> dict[str, Any]:
    """The plan as docs/plan.md describes it."""
    document: dict[str, Any] = json.loads(plan.json)
    return {**document, "prediction": prediction and prediction_json(prediction)}


def prediction_json(found: Prediction) -> dict[str, Any]:
    """Its fields, and the rates that follow from them."""
    return {**asdict(found), "read_rate": found.read_rate, "compute_rate": found.compute_rate}


def plan_text(plan: Plan, prediction: Prediction | None = None) -> str:
    """The budget and the chunks of a plan, and how long a token will take."""
    memory = plan.memory
    shares = ("pinned", "host", "ring", "kv", "activations", "graph", "staging", "metadata")
    sizes = {name: getattr(memory, name) for name in shares}
    budget = ", ".join(f"{name} {format_size(size)}" for name, size in sizes.items() if size)
    what = printable(plan.architecture) or "model"
    weights = f"{plan.weights_tensors} tensors, {format_size(plan.weights_bytes)} of weights"
    own = any(device.own_memory for device in plan.devices)
    # What is on devices with memory of their own is told by each.
    used = format_size(sum(device.host for device in plan.devices))
    limit = f"{format_size(memory.limit)} ({printable(memory.source)})"
    lines = [
        f"{what} on {plan.device}, mode {plan.mode}: {weights} in {chunks_text(plan)}",
        f"memory {used} of {limit}" + ("" if own else f": {budget}"),
    ]
    repacked = ""
    if plan.weights_repacked:
        repacked = f", {format_size(plan.weights_repacked)} are rearranged for the CPU's kernels"
    lines.append(f"reads by {plan.io}{_note(plan)}, {_stay(plan)}{repacked}")
    if len(plan.devices) > 1 or plan.devices[0].own_memory:
        lines += [_device_text(device) for device in plan.devices]
    if plan.mode == "run":
        context = f"context {plan.ctx}, KV cache in {plan.kv.upper()}"
        lines.append(f"{context}, at most {plan.width} positions in a pass, {plan.threads} threads")
    if prediction is not None:
        lines.append(prediction_text(prediction))
    hidden = len(plan.chunks) - _FIRST_CHUNKS - _LAST_CHUNKS
    listed = plan.chunks if hidden <= 1 else plan.chunks[:_FIRST_CHUNKS] + plan.chunks[-_LAST_CHUNKS:]
    rows = [
        (
            str(c.index + 1),
            str(len(c.parts)),
            format_size(c.bytes),
            format_size(c.mapped),
            c.kept,
            _extent(c),
        )
        for c in listed
    ]
    chunks = table(("CHUNK", "PARTS", "WEIGHTS", "MAPPED", "KEPT", "FROM .. TO"), rows, (0, 1, 2, 3))
    if len(listed) < len(plan.chunks):
        shown = chunks.split("\n")
        shown.insert(1 + _FIRST_CHUNKS, f"... {hidden} more (all with --json)")
        chunks = "\n".join(shown)
    return "\n".join([*lines, "", chunks])


def prediction_text(found: Prediction) -> str:
    """One line: seconds per token, and what limits them."""
    reads = ""
    if found.streamed:
        reads = f"reading takes {found.read_seconds:.3g} s for {format_size(found.streamed)}, "
    rate = f"about {found.seconds:.3g} s a token ({1 / max(found.seconds, 1e-9):.3g} tokens/s)"
    computing = f"computing {found.compute_seconds:.3g} s for {format_size(found.computed)}"
    return f"{rate}, limited by {_LIMITS[found.limit]}: {reads}{computing}"


def _note(plan: Plan) -> str:
    return f" ({printable(plan.io_note)})" if plan.io_note else ""


def _stay(plan: Plan) -> str:
    pinned = sum(chunk.pinned for chunk in plan.chunks)
    hosted = sum(chunk.hosted for chunk in plan.chunks)
    if pinned == len(plan.chunks):
        return "everything stays in memory"
    each = f"{pinned} chunks stay in memory, {len(plan.chunks) - pinned} stream through {plan.slots} slots"
    return f"{each}, {hosted} of them from the host's memory" if hosted else each


def _device_text(device: DevicePlan) -> str:
    """What one of several devices does, or one with memory of its own."""
    sizes = {name: getattr(device, name) for name in ("pinned", "ring", "kv", "activations")}
    budget = ", ".join(f"{name} {format_size(size)}" for name, size in sizes.items() if size)
    used = format_size(sum(sizes.values()))
    chunks = f"{device.chunks} chunk{'' if device.chunks == 1 else 's'}"
    share = ""
    if device.cpu_share:
        share = f"; the CPU computes {device.cpu_share:.0%} of what streams where passes are narrow"
    host = f", and {format_size(device.host)} of the host's memory" if device.own_memory else ""
    return f"{device.name}: {chunks}, {used} of {format_size(device.limit)}: {budget}{host}{share}"


def run_text(
    plan: Plan,
    prompt: int,
    prompt_seconds: float,
    count: int,
    seconds: float,
    sampling: Sampling,
    draft: int = 0,
) -> str:
    """One line about a run: `prompt` tokens read, `count` tokens made, in `seconds` behind the first."""
    prompt_rate = prompt / max(prompt_seconds, 1e-9)
    parts = [
        f"prompt of {prompt} tokens in {prompt_seconds:.2f} s, {prompt_rate:.2f} tokens/s",
        f"{count} tokens" + (f" at {(count - 1) / max(seconds, 1e-9):.2f} tokens/s" if count > 1 else ""),
        chunks_text(plan),
        plan.device,
    ]
    if sampling.temperature > 0:
        parts.append(f"seed {sampling.seed}")
    if draft:
        parts.append(f"draft {draft}")
    return "[FloatLLM] " + " | ".join(parts)


def chunks_text(plan: Plan) -> str:
    """How many chunks: `1 chunk`, `7 chunks`."""
    return f"{len(plan.chunks)} chunk{'' if len(plan.chunks) == 1 else 's'}"


def _extent(chunk: Chunk) -> str:
    if not chunk.parts:
        return ""
    first, last = chunk.parts[0], chunk.parts[-1]
    names = [
        printable(part.tensor) + (f"[{part.row_begin}:{part.row_end}]" if part.sliced else "")
        for part in (first, last)
    ]
    return names[0] if len(chunk.parts) == 1 else " .. ".join(names)

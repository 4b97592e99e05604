"""GGUF files that are wrong on purpose, byte by byte: what published attacks and damaged files look like.

Each maker returns the file's bytes. The format: magic, version, counts, key-value pairs, tensor table, data.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
_PACK = {
    U8: "B",
    I8: "b",
    U16: "H",
    I16: "h",
    U32: "I",
    I32: "i",
    F32: "f",
    BOOL: "?",
    U64: "Q",
    I64: "q",
    F64: "d",
}
TYPE_F32, TYPE_F16, TYPE_Q4_0, TYPE_Q8_0, TYPE_I32 = 0, 1, 2, 8, 26
# Elements and bytes of a block.
BLOCK = {TYPE_F32: (1, 4), TYPE_F16: (1, 2), TYPE_Q4_0: (32, 18), TYPE_Q8_0: (32, 34), TYPE_I32: (1, 4)}


def text(value: bytes | str, length: int | None = None) -> bytes:
    """A GGUF string; `length` is what it claims."""
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw) if length is None else length) + raw


def pair(key: bytes | str, kind: int, value: object) -> bytes:
    """A key and a scalar or string value."""
    body = text(value) if kind == STRING else struct.pack("<" + _PACK[kind], value)  # type: ignore[arg-type]
    return text(key) + struct.pack("<i", kind) + body


def array(key: str, element: int, count: int, body: bytes) -> bytes:
    """A key and an array that claims `count` elements."""
    return text(key) + struct.pack("<iiQ", ARRAY, element, count) + body


def tensor(
    name: bytes | str, shape: tuple[int, ...], kind: int, offset: int, *, dimensions: int | None = None
) -> bytes:
    """An entry of the tensor table; `dimensions` is how many it claims."""
    claimed = len(shape) if dimensions is None else dimensions
    return (
        text(name)
        + struct.pack("<I", claimed)
        + b"".join(struct.pack("<q", n) for n in shape)
        + struct.pack("<iQ", kind, offset)
    )


@dataclass
class File:
    """Parts of a file, each of which may lie."""

    pairs: list[bytes] = field(default_factory=lambda: [pair("general.architecture", STRING, "llama")])
    tensors: list[bytes] = field(default_factory=lambda: [tensor("a", (32,), TYPE_F32, 0)])
    data: bytes = bytes(128)
    version: int = 3
    pair_count: int | None = None
    tensor_count: int | None = None
    alignment: int = 32

    def build(self) -> bytes:
        """The bytes of the file."""
        head = b"GGUF" + struct.pack("<I", self.version)
        head += struct.pack(
            "<QQ",
            len(self.tensors) if self.tensor_count is None else self.tensor_count,
            len(self.pairs) if self.pair_count is None else self.pair_count,
        )
        head += b"".join(self.pairs) + b"".join(self.tensors)
        return head + bytes(-len(head) % self.alignment) + self.data


def _arch(*more: bytes) -> list[bytes]:
    return [pair("general.architecture", STRING, "llama"), *more]


def _tensors(*entries: bytes, data: int = 128) -> bytes:
    return File(tensors=list(entries), data=bytes(data)).build()


# What must be refused when the file is opened, with a part of the reason.
OPEN: dict[str, tuple[Callable[[], bytes], str]] = {
    "zero dimension (divides by zero)": (
        lambda: _tensors(tensor("a", (32, 0), TYPE_F32, 0)),
        "dimension of 0",
    ),
    "negative dimension": (lambda: _tensors(tensor("a", (-32,), TYPE_F32, 0)), "dimension of -32"),
    "five dimensions": (lambda: _tensors(tensor("a", (2, 2, 2, 2, 2), TYPE_F32, 0)), "5 dimensions"),
    "no dimensions": (lambda: _tensors(tensor("a", (), TYPE_F32, 0)), "0 dimensions"),
    "2^32 - 1 dimensions": (
        lambda: _tensors(tensor("a", (1,), TYPE_F32, 0, dimensions=2**32 - 1)),
        "dimensions",
    ),
    "elements overflow (CVE-2026-33298)": (
        lambda: _tensors(tensor("a", (2**31, 2**31, 2**31), TYPE_F32, 0)),
        "2^63",
    ),
    "bytes overflow": (lambda: _tensors(tensor("a", (2**62,), TYPE_F32, 0)), "2^63 bytes"),
    "2^63 - 2 elements in a small file": (lambda: _tensors(tensor("a", (2**63 - 2,), TYPE_F32, 0)), "2^63"),
    "size of 2^64 - 4": (lambda: _tensors(tensor("a", (2**62 - 1,), TYPE_F32, 0)), "2^63 bytes"),
    "rows that are no whole blocks": (
        lambda: _tensors(tensor("a", (33,), TYPE_Q4_0, 0)),
        "multiple of the 32",
    ),
    "type that was removed": (lambda: _tensors(tensor("a", (32,), 4, 0)), "no longer reads"),
    "type beyond the last": (lambda: _tensors(tensor("a", (32,), 4000, 0)), "does not know"),
    "negative type": (lambda: _tensors(tensor("a", (32,), -1, 0)), "does not know"),
    "offset beyond the file (CVE-2026-7482)": (
        lambda: _tensors(tensor("a", (32,), TYPE_F32, 1 << 40)),
        "cut short",
    ),
    "offset that wraps": (lambda: _tensors(tensor("a", (32,), TYPE_F32, 2**64 - 32)), "cut short"),
    "offset off alignment": (lambda: _tensors(tensor("a", (32,), TYPE_F32, 4)), "multiple of 32"),
    "tensors that overlap": (
        lambda: _tensors(tensor("a", (32,), TYPE_F32, 0), tensor("b", (32,), TYPE_F32, 64), data=256),
        "overlap",
    ),
    "the same tensor twice": (
        lambda: _tensors(tensor("a", (8,), TYPE_F32, 0), tensor("a", (8,), TYPE_F32, 32)),
        "twice",
    ),
    "tensor name of 64 characters": (lambda: _tensors(tensor("n" * 64, (32,), TYPE_F32, 0)), "64 bytes"),
    "tensor name with NUL": (lambda: _tensors(tensor(b"a\0b", (32,), TYPE_F32, 0)), "NUL"),
    "empty tensor name": (lambda: _tensors(tensor("", (32,), TYPE_F32, 0)), "empty"),
    "empty key": (lambda: File(pairs=[pair("", U32, 1)]).build(), "key is empty"),
    "key with NUL": (lambda: File(pairs=[pair(b"a\0b", U32, 1)]).build(), "NUL"),
    "key of 65536 characters": (lambda: File(pairs=[pair("k" * 65536, U32, 1)]).build(), "65536 bytes"),
    "the same key twice": (lambda: File(pairs=[pair("a", U32, 1), pair("a", U32, 2)]).build(), "twice"),
    "value type 13": (
        lambda: File(pairs=[text("a") + struct.pack("<iI", 13, 0)]).build(),
        "value type 13",
    ),
    "array of arrays": (lambda: File(pairs=[array("a", ARRAY, 1, bytes(16))]).build(), "array of arrays"),
    "array longer than the file": (lambda: File(pairs=[array("a", U8, 2**20, b"")]).build(), "more bytes"),
    "array of 2^63 elements": (lambda: File(pairs=[array("a", U64, 2**63, b"")]).build(), "elements"),
    "array of 2^61 strings": (lambda: File(pairs=[array("a", STRING, 2**61, b"")]).build(), "strings"),
    "string longer than the file": (
        lambda: File(pairs=[text("a") + struct.pack("<i", STRING) + text("x", 2**40)]).build(),
        "more bytes",
    ),
    "token of 2^64 - 1 bytes (GHSA-7rxv-5jhh-j6xx)": (
        lambda: File(pairs=[array("tokenizer.ggml.tokens", STRING, 1, text("x", 2**64 - 1))]).build(),
        "more bytes",
    ),
    "2^60 keys": (lambda: File(pair_count=2**60).build(), "claimed"),
    "2^60 tensors": (lambda: File(tensor_count=2**60).build(), "claimed"),
    "alignment as float": (
        lambda: File(pairs=_arch(pair("general.alignment", F32, 32.0))).build(),
        "alignment",
    ),
    "alignment as array": (
        lambda: File(pairs=_arch(array("general.alignment", U32, 1, struct.pack("<I", 32)))).build(),
        "alignment",
    ),
    "alignment 0": (lambda: File(pairs=_arch(pair("general.alignment", U32, 0))).build(), "alignment is 0"),
    "alignment 1": (lambda: File(pairs=_arch(pair("general.alignment", U32, 1))).build(), "alignment is 1"),
    "alignment 48": (
        lambda: File(pairs=_arch(pair("general.alignment", U32, 48))).build(),
        "alignment is 48",
    ),
    "version 1": (lambda: File(version=1).build(), "version 1"),
    "version 4": (lambda: File(version=4).build(), "version 4"),
    "other byte order": (lambda: File(version=0x03000000).build(), "byte order"),
    "split into files, one missing": (
        lambda: File(pairs=_arch(pair("split.count", U16, 3))).build(),
        "split into 3 files",
    ),
    "a name with an escape sequence": (
        lambda: _tensors(tensor("a\x1b]0;b\x07", (32, 0), TYPE_F32, 0)),
        "dimension of 0",
    ),
    "mem_size of the tensor table overflows (CVE-2026-27940)": (
        lambda: File(tensor_count=2**64 // 368 + 1).build(),
        "claimed",
    ),
    "a string array of 2^64 - 1 tokens (GHSA-7rxv-5jhh-j6xx)": (
        lambda: File(pairs=[array("tokenizer.ggml.tokens", STRING, 2**64 - 1, b"")]).build(),
        "strings",
    ),
    "a tensor that begins where the file ends": (
        lambda: _tensors(tensor("a", (32,), TYPE_F32, 128)),
        "cut short",
    ),
    "a tensor that ends one byte late": (lambda: _tensors(tensor("a", (32,), TYPE_F32, 0))[:-1], "cut short"),
    "no data at all": (lambda: _tensors(tensor("a", (32,), TYPE_F32, 0), data=0), "cut short"),
}


# What the architectures have in a layer: names and shapes, of matrices and of vectors.
_QUERY = {f"attn_{part}.weight": (32, rows) for part, rows in (("q", 32), ("k", 16), ("v", 16))}
_GATED = {"ffn_gate.weight": (32, 32), "ffn_up.weight": (32, 32)}
_BIASES = {f"attn_{part}.bias": (rows,) for part, rows in (("q", 32), ("k", 16), ("v", 16))}
_HEAD_NORMS = {"attn_q_norm.weight": (16,), "attn_k_norm.weight": (16,)}
_POST_NORMS = {"post_attention_norm.weight": (32,), "post_ffw_norm.weight": (32,)}
LAYER: dict[str, dict[str, tuple[int, ...]]] = {
    "llama": {**_QUERY, **_GATED},
    "qwen2": {**_QUERY, **_BIASES, **_GATED},
    "qwen3": {**_QUERY, **_HEAD_NORMS, **_GATED},
    "phi3": {"attn_qkv.weight": (32, 64), "ffn_up.weight": (32, 64)},
    "gemma3": {**_QUERY, **_HEAD_NORMS, **_POST_NORMS, **_GATED},
}


def _keys(arch: str, **changes: object) -> list[bytes]:
    values: dict[str, tuple[int, object]] = {
        "block_count": (U32, 1),
        "context_length": (U32, 64),
        "embedding_length": (U32, 32),
        "feed_forward_length": (U32, 32),
        "attention.head_count": (U32, 2),
        "attention.head_count_kv": (U32, 1),
        "attention.layer_norm_rms_epsilon": (F32, 1e-5),
    }
    for key, value in changes.items():
        name = key.replace("__", ".")
        kind = values.get(name, (U32, 0))[0]
        if isinstance(value, tuple):
            values[name] = value
        else:
            values[name] = (F32 if isinstance(value, float) else kind, value)
    named = (pair(f"{arch}.{key}", kind, value) for key, (kind, value) in values.items())
    return [pair("general.architecture", STRING, arch), *named]


def model(
    shapes: dict[str, tuple[int, ...]] | None = None,
    *,
    arch: str = "llama",
    matrix: int = TYPE_F32,
    pairs: tuple[bytes, ...] = (),
    fill: bytes = b"",
    **changes: object,
) -> bytes:
    """A whole tiny model of zeros, changed as told.

    A shape of () leaves the tensor out, `pairs` are added to the keys, `fill` stands in every block of a
    matrix, and the rest are keys of the architecture.
    """
    layer = {"attn_norm.weight": (32,), "ffn_norm.weight": (32,), **LAYER[arch]}
    layer |= {"attn_output.weight": (32, 32), "ffn_down.weight": (32, 32)}
    wanted: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (32, 8),
        **{f"blk.0.{name}": shape for name, shape in layer.items()},
        "output_norm.weight": (32,),
    }
    wanted.update(shapes or {})
    entries = []
    data = b""
    for name, shape in wanted.items():
        if shape:
            kind = matrix if len(shape) > 1 else TYPE_F32
            entries.append(tensor(name, shape, kind, len(data)))
            size = BLOCK[kind]
            block = (fill if kind == matrix else b"").ljust(size[1], b"\0")
            data += block * (math.prod(shape) // size[0])
            data += bytes(-len(data) % 32)
    return File(pairs=[*_keys(arch, **changes), *pairs], tensors=entries, data=data).build()


# What opens, and must be refused when it is to be run.
RUN: dict[str, tuple[Callable[[], bytes], str]] = {
    "no heads": (lambda: model(attention__head_count=0), "head_count"),
    "no layers": (lambda: model(block_count=0), "block_count"),
    "10^9 layers": (lambda: model(block_count=10**9), "block_count"),
    "more key-value heads than heads": (lambda: model(attention__head_count_kv=4), "heads"),
    "key-value heads that do not divide": (
        lambda: model(attention__head_count=2, attention__head_count_kv=0),
        "heads",
    ),
    "heads that do not divide the embedding": (lambda: model(attention__head_count=5), "divide"),
    "layers as text": (lambda: model(block_count=(STRING, "1")), "not a number"),
    "layers negative": (lambda: model(block_count=(I32, -1)), "whole number"),
    "layers not a whole number": (lambda: model(block_count=(F64, 1.5)), "whole number"),
    "epsilon not finite": (lambda: model(attention__layer_norm_rms_epsilon=math.nan), "finite"),
    "rope base not finite": (lambda: model(rope__freq_base=math.inf), "finite"),
    "rope base 0": (lambda: model(rope__freq_base=0.0), "above 0"),
    "rotation wider than a head": (lambda: model(rope__dimension_count=64), "rotating"),
    "odd rotation": (lambda: model(rope__dimension_count=3), "rotating"),
    "head of 2^31 elements": (lambda: model(attention__key_length=2**31), "not possible"),
    "missing tensor": (lambda: model({"blk.0.attn_v.weight": ()}), "attn_v.weight is missing"),
    "missing embedding": (lambda: model({"token_embd.weight": ()}), "token_embd.weight is missing"),
    "misshapen tensor": (lambda: model({"blk.0.ffn_up.weight": (16, 32)}), "ffn_up.weight has the shape"),
    "misshapen embedding": (lambda: model({"token_embd.weight": (64, 8)}), "token_embd.weight has the shape"),
    "norm of two dimensions": (
        lambda: model({"output_norm.weight": (32, 2)}),
        "output_norm.weight has the shape",
    ),
    "more tokens than embeddings": (
        lambda: model(pairs=(array("tokenizer.ggml.tokens", STRING, 9, text("t") * 9),)),
        "9 tokens",
    ),
    "a matrix of whole numbers": (
        lambda: model({"blk.0.ffn_up.weight": (32, 32)}, matrix=TYPE_I32),
        "type i32",
    ),
    "rope base beyond a float": (lambda: model(rope__freq_base=(F64, 1e300)), "not finite"),
    "rope scaling of an unknown kind": (
        lambda: model(rope__scaling__type=(STRING, "yarn\x1b[31m")),
        "rope scaling",
    ),
    "a mixture of experts": (lambda: model(expert_count=8), "mixture of experts"),
    "no architecture": (lambda: File(pairs=[pair("a", U32, 1)]).build(), "no architecture"),
    "an unknown architecture": (
        lambda: File(pairs=[pair("general.architecture", STRING, "mamba")]).build(),
        "mamba",
    ),
    "architecture as a number": (
        lambda: File(pairs=[pair("general.architecture", U32, 7)]).build(),
        "general.architecture",
    ),
}

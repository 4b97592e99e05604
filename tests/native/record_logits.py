"""Writes data/logits.json: llama.cpp's logits of small random models. Needs llama-cpp-python; run by hand.

    python tests/native/record_logits.py

For each model both with flash attention and without: the distance of the two is llama.cpp's own spread, which
says how much agreement can be asked for.
"""

from __future__ import annotations

import base64
import json
import sys
import tempfile
from pathlib import Path

import llama_cpp
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "gguf"))

import arch_files
from gguf import GGMLQuantizationType as Type
from k_blocks import K_TYPES

TOKENS = [(37 * i * i + 11 * i + 5) % arch_files.VOCAB for i in range(40)]


def logits(path: Path, *, flash: bool) -> np.ndarray:
    """What follows TOKENS, all read in one batch."""
    model = llama_cpp.Llama(str(path), n_ctx=1024, n_threads=2, verbose=False, flash_attn=flash)
    model.eval(TOKENS)
    last = llama_cpp.llama_get_logits_ith(model._ctx.ctx, -1)
    return np.ctypeslib.as_array(last, shape=(model.n_vocab(),)).copy()


def encoded(values: np.ndarray) -> str:
    """Little-endian float32 in base64."""
    return base64.b64encode(values.astype("<f4").tobytes()).decode()


def main() -> None:
    """Records every architecture in six types."""
    models = []
    with tempfile.TemporaryDirectory() as folder:
        for arch in arch_files.ARCHS:
            for matrix in (Type.F32, Type.F16, Type.Q8_0, Type.Q4_0, *K_TYPES):
                path = arch_files.write(Path(folder) / "model.gguf", arch_files.Small(arch, matrix))
                models.append(
                    {
                        "arch": arch,
                        "matrix": matrix.name,
                        "flash": encoded(logits(path, flash=True)),
                        "plain": encoded(logits(path, flash=False)),
                    }
                )
    document = {
        "source": f"llama-cpp-python {llama_cpp.__version__}",
        "tokens": TOKENS,
        "models": models,
    }
    target = Path(__file__).parent / "data" / "logits.json"
    target.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Writes data/greedy.json and the like: llama.cpp's greedy text. Needs llama-cpp-python; run by hand.

    python tests/native/record_greedy.py SmolLM2-135M-Instruct.Q4_1.gguf greedy.json
    python tests/native/record_greedy.py gemma-3-270m-q4_k_m.gguf greedy-gemma.json

llama.cpp changes its own greedy text on some prompts when flash attention is switched or the prompt is read
in other pieces. Only prompts on which it agrees with itself are recorded.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import llama_cpp

TOKENS = 16
PROMPTS = (
    "The capital of France is",
    "Die Hauptstadt von Deutschland ist",
    "List of planets in the solar system:\n1. Mercury\n2. Venus\n3.",
    "Once upon a time",
    "Monday, Tuesday, Wednesday,",
    "import os\nimport sys\n\n\ndef main():\n",
    "1, 2, 3, 4, 5, 6,",
    "<html>\n<head>\n",
    "A B C D E F G",
    "The chemical symbol for gold is",
    "To be, or not to be,",
    "Q: What is the opposite of hot?\nA:",
    "January, February, March,",
    "La capitale de la France est",
)
# Longer than a pass of the engine, and than the sliding windows of models that have them.
LONG = (
    "".join(f"{number} plus {number} is {2 * number}.\n" for number in range(1, 54)) + "54 plus",
    "".join(f"def add_{number}(x):\n    return x + {number}\n\n\n" for number in range(1, 38)) + "def",
)
SETTINGS = ({}, {"flash_attn": True}, {"n_batch": 1, "n_ubatch": 1}, {"n_batch": 3, "n_ubatch": 3})


def greedy(path: str, settings: dict[str, object]) -> list[list[int]]:
    """Token ids that follow each prompt; fewer than TOKENS where generation ended."""
    model = llama_cpp.Llama(path, n_ctx=2048, n_threads=2, verbose=False, logits_all=False, **settings)
    out = []
    for prompt in (*PROMPTS, *LONG):
        model.reset()
        tokens = model.tokenize(prompt.encode(), add_bos=True, special=False)
        found: list[int] = []
        for token in model.generate(tokens, temp=0.0, repeat_penalty=1.0, top_k=1):
            if llama_cpp.llama_vocab_is_eog(model._model.vocab, token):
                break
            found.append(token)
            if len(found) == TOKENS:
                break
        out.append(found)
    return out


def dumps(document: dict[str, object]) -> str:
    """JSON with each text on a line of its own."""
    out = json.dumps({**document, "texts": [], "long": []}, indent=1)
    for name in ("texts", "long"):
        texts = ",\n  ".join(json.dumps(text) for text in document[name])
        out = out.replace(f'"{name}": []', f'"{name}": [\n  {texts}\n ]')
    return out + "\n"


def main(path: str, target: str) -> None:
    """Records the prompts whose text is the same under every setting."""
    runs = [greedy(path, dict(settings)) for settings in SETTINGS]
    agreed = [
        {"prompt": prompt, "tokens": found[0]}
        for prompt, *found in zip((*PROMPTS, *LONG), *runs, strict=True)
        if all(tokens == found[0] for tokens in found)
    ]
    kept = {each["prompt"] for each in agreed}
    document = {
        "source": f"llama-cpp-python {llama_cpp.__version__}, {Path(path).name}",
        "left_out": [prompt for prompt in (*PROMPTS, *LONG) if prompt not in kept],
        "texts": [each for each in agreed if each["prompt"] in PROMPTS],
        "long": [each for each in agreed if each["prompt"] in LONG],
    }
    (Path(__file__).parent / "data" / target).write_text(dumps(document), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])

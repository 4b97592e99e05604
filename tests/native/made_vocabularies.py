"""SentencePiece-style vocabularies that are compared with llama.cpp: one for each habit of real models."""

from __future__ import annotations

from functools import cache

from texts import marked_texts, texts
from vocabularies import CONTROL, NORMAL, UNUSED, USER_DEFINED, Pieces, trained

_PHI = [("<|endoftext|>", CONTROL), ("<|user|>", CONTROL), ("<|end|>", CONTROL), ("<|assistant|>", CONTROL)]
_MISTRAL = [("[INST]", CONTROL), ("[/INST]", CONTROL), ("▁<PRE>", NORMAL), ("<0x", UNUSED)]
_RUNS = [("\n" * n, USER_DEFINED) for n in range(1, 5)] + [(" " * n, USER_DEFINED) for n in range(2, 9)]
_GEMMA = [("<start_of_turn>", CONTROL), ("<end_of_turn>", NORMAL), *_RUNS, ("</table>", USER_DEFINED)]
_ODD = [("<|user|>", USER_DEFINED), ("\t\t", NORMAL), ("a▁b", NORMAL), ("e▁", NORMAL), ("▁▁▁", NORMAL)]

_ENDS = """<|eot_id|> <|im_end|> <|call|> <|calls|> <|return|> <|flush|> <end_of_turn> <|endoftext|>
<|eom_id|> <EOT> _<EOT> [EOT] [EOS] <|end_of_text|> <end_of_utterance> <eos> <turn|> <｜end▁of▁sentence｜>
[e~[
<|fim_pad|> <reponame> <|file_sep|> <｜fim▁begin｜> <|suffix|> ▁<MID>"""
_PLAIN_ENDS = [(text, NORMAL) for text in _ENDS.split()]


@cache
def made() -> dict[str, Pieces]:
    """Name to vocabulary, the same at every call; the first takes two seconds."""
    some = [*texts(), *marked_texts()]
    return {
        # Llama 2: every default.
        "llama": Pieces(trained(some)),
        # Phi-3: white space behind a special token goes with it, which only the model's name tells.
        "phi-3": Pieces(trained(some, _PHI, seed=2), name="Phi-3 Mini", keys={"eos_token_id": 259}),
        "mistral": Pieces(trained(some, _MISTRAL, seed=3), integer_scores=True, keys={"add_eos_token": True}),
        # Gemma: no space prefix, user-defined runs of white space.
        "gemma": Pieces(
            trained(some, _GEMMA, seed=4), keys={"add_space_prefix": False, "add_bos_token": False}
        ),
        # Names that have a meaning whatever type the file gives them.
        "ends": Pieces(trained([*some, _ENDS], _PLAIN_ENDS, seed=6)),
        # Tokens that hold a space behind another character, so that words cannot be cut apart everywhere.
        "inner-space": Pieces(trained(some, _ODD, seed=5, count=6000), keys={"eot_token_id": 400}),
    }

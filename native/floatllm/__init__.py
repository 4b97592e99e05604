"""FloatLLM: opens a GGUF model larger than memory, cuts it into chunks that fit, and computes it.

with floatllm.Model.open("model.gguf") as model:
    with floatllm.Engine(model.plan(memory="2GiB")) as engine:
        tokens = list(engine.generate("The capital of France is", 16))
        print(model.tokenizer.decode(tokens))
"""

from floatllm import _early  # noqa: F401 (before all others, which take their time)
from floatllm._lib import set_log
from floatllm.devices import Device, Versions, devices, plugins, versions
from floatllm.engine import Engine, Event
from floatllm.errors import EngineError, FloatLLMError, MissingError, ModelError, UsageError
from floatllm.model import Model, Tensor
from floatllm.plan import Chunk, Memory, Part, Plan
from floatllm.plugin import Plugin
from floatllm.sampler import Sampling
from floatllm.sizes import format_size, parse_size
from floatllm.tokenizer import Decoder, Tokenizer

__all__ = [
    "Chunk",
    "Decoder",
    "Device",
    "Engine",
    "EngineError",
    "Event",
    "FloatLLMError",
    "Memory",
    "MissingError",
    "Model",
    "ModelError",
    "Part",
    "Plan",
    "Plugin",
    "Sampling",
    "Tensor",
    "Tokenizer",
    "UsageError",
    "Versions",
    "devices",
    "format_size",
    "parse_size",
    "plugins",
    "set_log",
    "versions",
]

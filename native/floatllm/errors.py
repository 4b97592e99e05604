"""The engine's errors: one tree, each branch with the exit code that the command line gives it."""

from __future__ import annotations


class FloatLLMError(Exception):
    """Anything the engine refuses or cannot do. The text says what happened, why, and what to do."""

    exit_code = 8


class UsageError(FloatLLMError):
    """An argument is out of range or does not fit the others."""

    exit_code = 2


class MissingError(FloatLLMError):
    """Something that was asked for is not here: the library, a device, a backend."""

    exit_code = 3


class ModelError(FloatLLMError):
    """The model file was refused."""

    exit_code = 7


class EngineError(FloatLLMError):
    """The engine could not go on: the budget, the device or the disk."""

    exit_code = 8

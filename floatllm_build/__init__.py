"""Probes the machine, builds the FloatLLM engine for it, proves the result and installs it."""

__version__ = "0.1.0"

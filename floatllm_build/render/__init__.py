"""Screens and progress. The only room that knows a terminal.

Nothing is imported here: while compilers run, only `progress` is loaded, and without a terminal no rich.
"""

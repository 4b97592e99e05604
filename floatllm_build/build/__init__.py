"""Turns a plan into a built tree: staging, configuring and compiling, in child processes."""

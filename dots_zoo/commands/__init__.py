"""Run the command line: `cli` dispatches; `list_models`, `doctor` and `demo` are commands of their own.

This is the composition root: only here does the core import search and export.
"""

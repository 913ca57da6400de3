"""The command line: `cli` dispatches; `list_models`, `doctor` and `demo` are commands of their own.

The composition root: only here does the core reach for search and export.
"""

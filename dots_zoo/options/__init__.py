"""Declare options once: for the command line, YAML files and Python alike.

`command_line` makes them from dataclasses and functions and parses them, `type_words` says their types,
`image_size` reads HxW. `../runtime/config.py` turns what was parsed into dataclasses.
"""

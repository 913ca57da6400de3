"""Declare options once: for the command line, YAML files and Python alike.

`declaration` reads them off dataclasses and functions, `command_line` spells and parses them, `type_words`
says their types, `image_size` reads HxW. `../runtime/config.py` turns what was parsed into dataclasses.
"""

"""Provide what every command needs: errors, files, processes, seeds, configurations.

`errors` (one sentence and an exit code), `atomic_write` (a file is whole or absent), `checkpoint_files`
(numbered states in a folder), `seeding` (a generator for every draw), `sigterm` (end after the step),
`distributed` (several processes), `to_device` (copies without a sync), `config` (dataclasses as
tables), `table` (records by name), `environment` (versions), `progress` (a bar on a terminal, lines in a
log), `malloc` (what the C library does with freed memory).
"""

from .errors import DotsZooError as DotsZooError

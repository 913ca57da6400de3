"""One thread a process: the suite runs in parallel, and results must not depend on the machine's cores."""

import importlib
from importlib.util import find_spec

import torch

torch.set_num_threads(1)


def pytest_configure(config):
    """Before there are several processes: yapf, which mmengine imports, writes a file into the user's cache
    where a new installation is first imported, and a process that reads it meanwhile fails.
    """
    if not hasattr(config, "workerinput") and find_spec("yapf"):
        importlib.import_module("yapf")

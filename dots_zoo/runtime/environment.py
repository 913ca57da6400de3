"""Record the environment of a run for its run.json: versions and machine."""

import os
import platform
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

import torch

import dots_zoo


def environment(packages: Iterable[str]) -> dict[str, Any]:
    """Return the `versions` of Python, of this package and of others, and the `machine`."""
    return {
        "versions": {"dots-zoo": dots_zoo.__version__, "python": platform.python_version()}
        | {name: version(name) for name in packages},
        "machine": {
            "platform": platform.platform(),
            "cpus": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
    }

"""Export a timm model to an ONNX file that is proven, and report its measured latency.

Reading order, a room each: `convert` (PyTorch to ONNX, with proofs), `measure` (latency, comparison, report),
`tables` (the papers' tables); `ort_session` opens files in ONNX Runtime.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .convert.command import export as export
    from .convert.command import inspect as inspect
    from .measure.command import bench as bench
    from .measure.command import compare as compare
    from .measure.command import report as report
else:
    ROOMS = {"export": "convert", "inspect": "convert"} | dict.fromkeys(
        ("bench", "compare", "report"), "measure"
    )

    def __getattr__(name: str) -> Any:
        """Import a function on first use: pages are read where the extra is not installed."""
        if name not in ROOMS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f".{ROOMS[name]}.command", __name__), name)

"""Export a timm model to an ONNX file that is proven, and report its measured latency.

Reading order, a room each: `convert` (PyTorch to ONNX, with proofs), `measure` (latency, comparison, report),
`tables` (the papers' tables); `ort_session` opens files in ONNX Runtime.
"""

from .convert.command import export as export
from .convert.command import inspect as inspect
from .measure.command import bench as bench
from .measure.command import compare as compare
from .measure.command import report as report

"""How often dots_cifar10_tiny answers in int8 as it does in float32, on all test images of CIFAR-10.

python benchmarks/int8_answers.py CIFAR10_ROOT

CIFAR10_ROOT holds cifar-10-batches-py as published. The file is what `dots-zoo export dots_cifar10_tiny
--pretrained --precision int8` writes, calibrated on the first 64 training images; the reference is the
network in PyTorch. Exit code 1 where fewer than 98 % of the answers are the same or accuracy falls by more
than 0.5 points.
"""

import platform
import sys
import tempfile
import time
from pathlib import Path

import onnxruntime as ort
import timm
import torch
from PIL import Image

import dots_zoo
from dots_zoo.data.datasets import DataOptions
from dots_zoo.data.load import load_data
from dots_zoo.export.convert.options import ExportOptions, Lowering
from dots_zoo.export.convert.to_onnx import export_onnx
from dots_zoo.export.ort_session import open_session

CALIBRATION = 64
AGREEMENT, LOSS = 0.98, 0.005  # at least, at most


def main(root: str) -> int:
    torch.set_num_threads(1)
    data = load_data(DataOptions(data="cifar10", data_root=root))
    network = timm.create_model("dots_cifar10_tiny", pretrained=True).eval()
    with tempfile.TemporaryDirectory() as folder:
        for i in range(CALIBRATION):
            Image.fromarray(data.images[i].permute(1, 2, 0).numpy()).save(Path(folder) / f"{i:03}.png")
        lowering = Lowering(precision="int8", calibration=Path(folder))
        path = Path(folder) / "int8.onnx"
        done = export_onnx(network, path, ExportOptions(lowering=lowering, exporter="torchscript"))
        session = open_session(path.read_bytes(), "cpu", 1, "int8")
    began = time.process_time()
    same = right = right_in_float = 0
    for indices in torch.arange(len(data.test_labels)).split(500):
        batch, labels = data.test_batch(indices).contiguous(), data.test_labels[indices]
        with torch.no_grad():
            expected = network(batch).argmax(1)
        got = torch.from_numpy(session.run(None, {"image": batch.numpy()})[0]).argmax(1)
        same += int((got == expected).sum())
        right += int((got == labels).sum())
        right_in_float += int((expected == labels).sum())
    count = len(data.test_labels)
    print(
        f"dots_cifar10_tiny, {count:,} test images: int8 answers as float32 on {same} ({same / count:.2%}); "
        f"accuracy {right_in_float / count:.2%} in float32, {right / count:.2%} in int8 "
        f"({(right - right_in_float) / count:+.2%}); layers in float: {done.metadata['float_layers']}; "
        f"{time.process_time() - began:.0f} s, one thread, {platform.machine()}, onnxruntime "
        f"{ort.__version__}, torch {torch.__version__}, dots_zoo {dots_zoo.__version__}"
    )
    return int(same < AGREEMENT * count or right_in_float - right > LOSS * count)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))

"""int8 feature maps keep their negative values, also where the only node that reads a map is a ReLU."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import timm
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from torch import nn

import dots_zoo
from dots_zoo.export.convert.options import ExportOptions, Lowering
from dots_zoo.export.convert.precision import Target, to_int8
from dots_zoo.export.convert.prove import read_images
from dots_zoo.export.convert.to_onnx import export_onnx
from dots_zoo.export.ort_session import open_session
from helpers.fitting import fitted, images

CELLS = {"tiny_mobile": ("dots_imagenet", "mobile", 64), "tiny_cifar": ("darts_v2", "cifar", 32)}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for i, image in enumerate(images((3, 64, 64), 12, seed=3)):
        pixels = ((image * 0.25 + 0.5).clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / f"{i:02}.png")
    return folder


def backbone(name: str) -> tuple[nn.Module, int]:
    """A features_only model whose statistics are fitted, and its input size."""
    if name == "dots_cifar10_tiny":
        return timm.create_model(name, pretrained=True, features_only=True), 32
    genotype, macro, size = CELLS[name]
    dots_zoo.register(name, genotype, macro=macro, channels=4, layers=4, overwrite=timm.is_model(name))
    torch.manual_seed(0)
    return fitted(timm.create_model(name, features_only=True), (3, size, size)), size


@pytest.mark.parametrize("name", ["dots_cifar10_tiny", *CELLS])
def test_feature_maps_reach_down_as_far_as_those_of_torch(name: str, photos: Path, tmp_path: Path) -> None:
    model, size = backbone(name)
    lowering = Lowering("int8", "cpu", calibration=photos)
    options = ExportOptions(
        task="features", input_size=(3, size, size), lowering=lowering, exporter="torchscript"
    )
    done = export_onnx(model, tmp_path / "m.onnx", options)
    assert done.parity.error < 0.3  # of 0.5 allowed
    config: Any = model.pretrained_cfg
    batch, _ = read_images(photos, (3, size, size), config["mean"], config["std"])
    session = open_session(done.path.read_bytes(), "cpu", 1, name)
    maps = session.run(list(done.outputs), {"image": batch.numpy()})
    with torch.no_grad():
        expected = [feature.numpy() for feature in model(batch)]
    signed = [(got, wanted) for got, wanted in zip(maps, expected, strict=True) if wanted.min() < 0]
    assert len(signed) >= 3
    for got, wanted in signed:
        assert (got < 0).mean() == pytest.approx((wanted < 0).mean(), abs=0.1)
        assert got.min() < 0.7 * wanted.min()


@pytest.mark.parametrize("target", ["cpu", "cuda", "tensorrt"])
def test_a_map_that_one_relu_reads_is_not_clipped_to_its_range(target: Target) -> None:
    """Five convolutions with identity weights, a ReLU behind the third: that one's values are in [-3, 1]."""
    wires = [("image", "a"), ("a", "b"), ("b", "x"), ("r", "c"), ("c", "y")]
    nodes = [helper.make_node("Conv", [wire[0], f"w{i}"], [wire[1]]) for i, wire in enumerate(wires)]
    nodes.insert(3, helper.make_node("Relu", ["x"], ["r"]))
    image, x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1, 4, 4]) for name in ("image", "x", "y")
    )
    weights = [numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), f"w{i}") for i in range(5)]
    graph = helper.make_graph(nodes, "g", [image], [x, y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    values = np.random.default_rng(0).uniform(-3, 1, (8, 1, 4, 4)).astype(np.float32)
    quantised, _ = to_int8(model, torch.from_numpy(values), target, "m")
    got_x, got_y = open_session(quantised.SerializeToString(), "cpu", 1, "m").run(None, {"image": values})
    assert np.abs(got_x - values).max() < 0.1  # four roundings of at most 3 / 127
    assert np.abs(got_y - np.maximum(values, 0)).max() < 0.1

"""A detector and a segmenter as one graph: the same answers as the toolboxes' own, or no file."""

import json
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor

from dots_zoo.commands.cli import main
from dots_zoo.export.convert import detect, segment
from dots_zoo.export.convert import retinanet_decode as decode
from dots_zoo.export.convert.inspect_file import inspect
from dots_zoo.export.convert.options import ExportOptions, IOSpec, Lowering
from dots_zoo.export.convert.parity import ParityError, fitted_copy, probe_images
from dots_zoo.export.convert.pre_post import normalised
from dots_zoo.export.convert.to_onnx import Exported, export_onnx
from dots_zoo.export.measure import latency
from dots_zoo.export.measure.schema import read_bench
from dots_zoo.openmm.progress import quiet
from dots_zoo.runtime.errors import DotsZooError

with quiet():
    from dots_zoo.openmm.config import build_model
    from helpers.tiny_mm import write_config

SIZE = (3, 64, 64)
OPEN = ("batch", "height", "width")


def build(task: str, folder: Path) -> Any:
    """A tiny network with fitted statistics, whose answers depend on the image."""
    torch.manual_seed(0)
    with quiet():
        model: Any = build_model(write_config(folder / f"{task}.py", task, 1), task)
    model.pretrained_cfg = {"architecture": task, "input_size": SIZE}
    fitted: Any = fitted_copy(model, SIZE, 0)
    adapter = detect.Detector(IOSpec()) if task == "det" else segment.Segmenter(IOSpec())
    adapter.perturb_classifier(fitted, probe_images(2, SIZE, 1))
    return fitted


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return build("det", tmp_path_factory.mktemp("det"))


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return build("seg", tmp_path_factory.mktemp("seg"))


@pytest.fixture(scope="module")
def detected(detector: Any, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    path = tmp_path_factory.mktemp("out") / "d.onnx"
    return export_onnx(
        detector, path, ExportOptions(task="detect", dynamic=OPEN, io=IOSpec("uint8"), exporter="torchscript")
    )


def pixels(count: int, height: int, width: int) -> Tensor:
    """uint8 images, none of them one that the export looked at."""
    images = probe_images(count, (3, height, width), seed=77)
    return (128 + 50 * images).round().clamp(0, 255).to(torch.uint8)


def run(done: Exported, images: Tensor) -> list[Tensor]:
    session = ort.InferenceSession(done.path.read_bytes(), providers=["CPUExecutionProvider"])
    return [torch.from_numpy(y) for y in session.run(None, {"image": images.numpy()})]


def test_the_newer_exporter_leaves_the_size_open_too(detector: Any, tmp_path: Path) -> None:
    """Traced at a square: what is equal there must not be taken for the same size."""
    done = export_onnx(
        detector, tmp_path / "d.onnx", ExportOptions(task="detect", dynamic=OPEN, exporter="dynamo")
    )
    assert done.answers["matched"] >= 0.99 and done.shape == (None, 3, None, None)


@pytest.mark.parametrize("height, width", [(64, 64), (45, 83)])
def test_boxes_are_those_of_mmdet_in_the_same_order(
    detector: Any, detected: Exported, height: int, width: int
) -> None:
    images = pixels(2, height, width)
    boxes, scores, labels = run(detected, images)
    assert boxes.shape == (2, 100, 4) and scores.shape == labels.shape == (2, 100)
    assert labels.dtype == torch.int64
    for row, expected in enumerate(detect.reference(detector, normalised(images, detector))):
        count = len(expected.scores)
        assert count >= 5
        torch.testing.assert_close(scores[row, :count], expected.scores, atol=1e-4, rtol=0)
        torch.testing.assert_close(boxes[row, :count], expected.boxes, atol=1e-2, rtol=0)
        assert torch.equal(labels[row, :count], expected.labels)
        for padded in (boxes, scores, labels):
            assert bool((padded[row, count:] == -1).all())
        assert bool((boxes[row, :count] <= torch.tensor([width, height] * 2)).all())


def test_half_precision_at_a_fixed_size(detector: Any, tmp_path: Path) -> None:
    """The older exporter names sizes alike that differ from level to level; float16 keeps the names."""
    done = export_onnx(
        detector,
        tmp_path / "d.onnx",
        ExportOptions(task="detect", lowering=Lowering("fp16"), exporter="torchscript"),
    )
    assert done.answers["matched"] >= 0.9 and done.answers["boxes"] >= 10
    named = [
        dim.dim_param
        for value in onnx.load(done.path).graph.value_info
        for dim in value.type.tensor_type.shape.dim
    ]
    assert set(named) <= {"", "batch"}


def test_an_image_without_boxes_gives_padding(detector: Any, tmp_path: Path) -> None:
    quiet_one = build("det", tmp_path)
    with torch.no_grad():
        quiet_one.bbox_head.retina_cls.bias.fill_(-50)
    done = export_onnx(quiet_one, tmp_path / "d.onnx", ExportOptions(task="detect", exporter="torchscript"))
    assert done.answers["boxes"] >= 10 and done.answers["matched"] >= 0.99  # of the copy that finds some
    assert all(bool((y == -1).all()) for y in run(done, probe_images(1, SIZE, seed=5)))


def test_the_file_says_how_to_use_it(detected: Exported) -> None:
    metadata = detected.metadata
    assert metadata["task"] == "detect" and metadata["image"].startswith("uint8 RGB")
    assert json.loads(metadata["resize"]) == {"long": 64, "short": 64, "keep_ratio": True}
    suppression = json.loads(metadata["suppression"])
    assert suppression["score_threshold"] == 0.05 and suppression["max_per_image"] == 100
    assert json.loads(metadata["parity"])["matched"] == detected.answers["matched"] >= 0.99


def test_a_gpu_has_a_kernel_for_every_operator(detected: Exported, segmenter: Any, tmp_path: Path) -> None:
    """Suppression, sorting, scattering and the largest class included: nothing goes back to the CPU."""
    labels = export_onnx(
        segmenter, tmp_path / "s.onnx", ExportOptions(task="segment", exporter="torchscript")
    )
    inspections = inspect(detected.path), inspect(labels.path)
    assert inspections[0].costs.nodes.keys() >= {
        "NonMaxSuppression",
        "TopK",
        "GatherND",
        "ScatterND",
        "Where",
    }
    assert inspections[1].costs.nodes.keys() >= {"ArgMax", "Resize"}
    assert [inspection.no_cuda for inspection in inspections] == [{}, {}]


def test_a_detector_and_a_segmenter_are_measured(
    detected: Exported, segmenter: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many boxes suppression leaves is known only after a run; the rows are as any others."""
    monkeypatch.setattr(latency, "WARMUP_SECONDS", 0.0)
    labels = export_onnx(
        segmenter, tmp_path / "s.onnx", ExportOptions(task="segment", dynamic=OPEN, exporter="torchscript")
    )
    quick = ["--seconds", "0", "--iterations", "2", "--rounds", "2", "--max-spread", "9999%", "--no-memory"]
    words = [str(detected.path), str(labels.path), "--input", "64x96", "--batch", "1", "2", *quick]
    assert main(["bench", *words, "-o", str(tmp_path / "b.json")]) == 0
    rows = read_bench(tmp_path / "b.json").rows
    assert [(row.model, tuple(row.input_shape)) for row in rows] == [
        (name, (batch, 3, 64, 96)) for name in ("det", "seg") for batch in (1, 2)
    ]
    assert all(row.resident.p50_ms > 0 and row.end_to_end.p50_ms > 0 and not row.failures for row in rows)
    assert main(["report", str(tmp_path / "b.json"), "-o", str(tmp_path / "r.html")]) == 0


def test_pairs_by_hand() -> None:
    """A box that moved by 0.04 pixels is found again, however thin; by 0.06 only where it is wide."""
    boxes = torch.tensor([[0.0, 0.0, 100.0, 100.0], [10.0, 0.0, 10.4, 200.0]])
    expected = detect.Detections(boxes, torch.tensor([0.9, 0.8]), torch.tensor([1, 1]))

    def moved(by: float, score: float = 0.0, label: int = 1, taller: float = 0.0) -> list[tuple[int, int]]:
        shift = torch.tensor([by, 0.0, by, taller])
        got = detect.Detections(boxes + shift, expected.scores + score, torch.full((2,), label))
        return detect.pairs(got, expected, 0.99, 1e-3)

    assert moved(0.0) == moved(0.04) == moved(0.0, 5e-4) == [(0, 0), (1, 1)]
    assert moved(0.06) == [(0, 0)]  # IoU 0.999, and 0.34 / 0.46 = 0.74
    assert moved(0.0, taller=0.9) == [(0, 0), (1, 1)]  # 0.9 of 100 and of 200 pixels: IoU 0.991 and 0.995
    assert moved(0.04, taller=0.9) == [(0, 0), (1, 1)]  # the thin one: IoU 0.82, within 0.05 and 1 pixel
    assert moved(0.04, taller=1.1) == []  # IoU 0.989; 1.1 is more than half a per cent of either
    assert moved(0.0, 2e-3) == moved(0.0, label=0) == []
    wide = detect.Detections(boxes[:1], expected.scores[:1], expected.labels[:1])
    aside = detect.Detections(
        boxes[:1] + 0.45, wide.scores, wide.labels
    )  # IoU 0.982, corners within 0.5 of 0.5
    assert detect.pairs(aside, wide, 0.99, 1e-3) == []


@pytest.mark.parametrize("part", ["nms", "decode"])
def test_a_wrong_ending_leaves_no_file(
    detector: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    if part == "nms":  # boxes of any overlap are kept
        wrong = detect.SUPPRESSION.replace("{{{overlap}}}", "{{0.999}}")
        assert wrong != detect.SUPPRESSION
        monkeypatch.setattr(detect, "SUPPRESSION", wrong)
    else:  # sides grow by nothing
        right = decode.Decode.boxes
        monkeypatch.setattr(
            decode.Decode,
            "boxes",
            lambda self, anchors, deltas: right(self, anchors, deltas * torch.tensor([1.0, 1.0, 0.0, 0.0])),
        )
    with pytest.raises(ParityError, match="are matched, 99% at least are needed: the graph is wrong"):
        export_onnx(detector, tmp_path / "d.onnx", ExportOptions(task="detect", exporter="torchscript"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("logits", [False, True], ids=["labels", "logits"])
def test_labels_are_those_of_mmseg(segmenter: Any, tmp_path: Path, logits: bool) -> None:
    io = IOSpec("uint8", logits)
    done = export_onnx(
        segmenter,
        tmp_path / "s.onnx",
        ExportOptions(task="segment", dynamic=OPEN, io=io, exporter="torchscript"),
    )
    images = pixels(2, 48, 70)
    [got] = run(done, images)
    expected = segment.reference(segmenter, normalised(images, segmenter))
    if logits:
        scale = float(expected.amax(0).sub(expected.amin(0)).max())
        torch.testing.assert_close(got, expected, atol=1e-3 * scale, rtol=0)
        return
    assert got.dtype == torch.int64 and len(expected.argmax(1).unique()) == 2
    assert float((got == expected.argmax(1)).double().mean()) > 0.999


def test_what_does_not_fit_the_task(detector: Any, segmenter: Any, tmp_path: Path) -> None:
    refused: list[tuple[Any, dict[str, Any], str]] = [
        (segmenter, {"task": "detect"}, "task detect exports RetinaNet and its like"),
        (detector, {"task": "segment"}, "task segment exports segmenters"),
        (detector, {"task": "detect", "dynamic": ("batch", "height")}, "open together or not at all"),
        (detector, {"task": "detect", "io": IOSpec(logits=True)}, "are for task segment, got detect"),
        (detector, {"task": "classify", "io": IOSpec("uint8")}, "uint8 images are for the tasks"),
    ]
    for model, options, message in refused:
        with pytest.raises(DotsZooError, match=message):
            export_onnx(model, tmp_path / "m.onnx", ExportOptions(exporter="torchscript", **options))
    assert not list(tmp_path.iterdir())

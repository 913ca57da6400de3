"""The operators that stand in for mmcv's: values, gradients, what is refused, when they are put in place."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dots_zoo import DotsZooError
from dots_zoo.openmm import mmcv_ops as mm_ops
from dots_zoo.openmm.progress import quiet

with quiet():
    mm_ops.install()
    from mmcv.ops import batched_nms, nms, roi_align, sigmoid_focal_loss, soft_nms
    from mmdet.models.losses import focal_loss


def overlap(a: list[float], b: list[float], offset: float) -> float:
    """Intersection over union of two boxes whose width is x2 - x1 + offset."""
    area = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (a, b)]
    width = min(a[2], b[2]) - max(a[0], b[0]) + offset
    height = min(a[3], b[3]) - max(a[1], b[1]) + offset
    common = max(0.0, width) * max(0.0, height)
    return common / (sum(area) - common)


def greedy(boxes: list[list[float]], scores: list[float], threshold: float, offset: float) -> list[int]:
    """Keep the best box, drop what overlaps it by more than the threshold, and so on."""
    left = sorted(range(len(boxes)), key=lambda i: -scores[i])
    kept: list[int] = []
    while left:
        best, *left = left
        kept.append(best)
        left = [i for i in left if overlap(boxes[best], boxes[i], offset) <= threshold]
    return kept


@pytest.mark.parametrize("offset", [0, 1])
def test_nms_is_the_greedy_rule(offset: int) -> None:
    draws = torch.Generator().manual_seed(offset)
    corner = torch.rand(40, 2, generator=draws) * 20
    boxes = torch.cat([corner, corner + 2 + torch.rand(40, 2, generator=draws) * 12], 1)
    scores = torch.rand(40, generator=draws)
    dets, kept = nms(boxes, scores, 0.4, offset=offset)
    assert kept.tolist() == greedy(boxes.tolist(), scores.tolist(), 0.4, offset)
    assert 1 < len(kept) < 40
    torch.testing.assert_close(dets, torch.cat([boxes[kept], scores[kept, None]], 1))


def test_an_offset_changes_what_overlaps() -> None:
    # 5x5 and 5x5 pixels that share 3x5: 15 / 35 with the offset; without, 4x4 that share 2x4: 8 / 24.
    boxes, scores = torch.tensor([[0.0, 0, 4, 4], [2, 0, 6, 4]]), torch.tensor([0.9, 0.8])
    assert len(nms(boxes, scores, 0.4, offset=0)[1]) == 2
    assert len(nms(boxes, scores, 0.4, offset=1)[1]) == 1


def test_nms_of_nothing_and_by_class() -> None:
    assert nms(torch.zeros(0, 4), torch.zeros(0), 0.5)[1].tolist() == []
    boxes, scores = torch.tensor([[0.0, 0, 9, 9]] * 3), torch.tensor([0.5, 0.9, 0.7])
    dets, kept = batched_nms(boxes, scores, torch.tensor([0, 0, 1]), {"type": "nms", "iou_threshold": 0.5})
    assert kept.tolist() == [1, 2]  # one a class, the better first
    torch.testing.assert_close(dets[:, 4], torch.tensor([0.9, 0.7]))


def test_focal_loss_is_the_paper_s_equation() -> None:
    logits = torch.tensor([[0.0, 2.0], [-1.0, 0.5]])
    target = torch.tensor([0, 2])  # class 0, background
    gamma, alpha = 2.0, 0.25
    p = 1 / (1 + torch.exp(-logits))
    positive, negative = -alpha * (1 - p) ** gamma * p.log(), -(1 - alpha) * p**gamma * (1 - p).log()
    expected = torch.stack([torch.stack([positive[0, 0], negative[0, 1]]), negative[1]])
    torch.testing.assert_close(sigmoid_focal_loss(logits, target, gamma, alpha, None, "none"), expected)
    assert expected[0, 0].item() == pytest.approx(0.25 * 0.25 * 0.693147, rel=1e-5)  # p = 1/2
    mean = sigmoid_focal_loss(logits, target, gamma, alpha, None, "mean")
    torch.testing.assert_close(mean, expected.sum() / 2)  # mmcv's mean is over rows
    weighted = sigmoid_focal_loss(logits[:1], target[:1], gamma, alpha, torch.tensor([3.0, 5.0]), "none")
    torch.testing.assert_close(weighted, 3 * expected[:1])  # by the class of the row


def test_focal_loss_has_the_derivative_of_its_values() -> None:
    logits = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0, 1, 2, 3, 3])
    for reduction in ("mean", "sum"):
        assert torch.autograd.gradcheck(
            lambda x, reduction=reduction: sigmoid_focal_loss(x, target, 1.5, 0.4, None, reduction), (logits,)
        )


def test_what_retinanet_uses_on_a_gpu_is_what_it_uses_on_a_cpu() -> None:
    logits, target = torch.randn(6, 4, requires_grad=True), torch.tensor([0, 3, 4, 1, 4, 2])
    one_hot = torch.nn.functional.one_hot(target, 5)[:, :4]
    weight = torch.rand(6)
    gpu = focal_loss.sigmoid_focal_loss(logits, target, weight, avg_factor=3.0)
    cpu = focal_loss.py_sigmoid_focal_loss(logits, one_hot, weight, avg_factor=3.0)
    torch.testing.assert_close(gpu, cpu)
    for a, b in zip(torch.autograd.grad(gpu, logits), torch.autograd.grad(cpu, logits), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: soft_nms(torch.rand(2, 4), torch.rand(2)), "softnms"),
        (
            lambda: roi_align(torch.rand(1, 1, 4, 4), torch.tensor([[0.0, 0, 0, 2, 2]]), 2),
            "roi_align_forward",
        ),
    ],
)
def test_another_operator_is_named_with_the_way_to_get_it(call: object, name: str) -> None:
    with pytest.raises(DotsZooError, match=rf"mmcv operator '{name}'.*pip uninstall mmcv-lite"):
        call()  # type: ignore[operator]


def test_a_compiled_mmcv_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, mm_ops.EXTENSION)
    monkeypatch.setattr(mm_ops.importlib.util, "find_spec", lambda name: object())
    assert mm_ops.install() is False and mm_ops.EXTENSION not in sys.modules


CODE = """
import importlib.util, sys
import dots_zoo
assert not any(name.startswith(("mmcv", "mmengine")) for name in sys.modules)
from dots_zoo.openmm import mmcv_ops as mm_ops
assert importlib.util.find_spec("mmcv._ext") is None
assert mm_ops.install() and mm_ops.install()
assert importlib.util.find_spec("mmcv._ext").name == "mmcv._ext"
from mmcv.ops import nms
print("in place")
"""


@pytest.mark.processes
def test_nothing_happens_before_it_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("import mmcv.ops, sys; print('ran', sys.argv[1:], __name__)")
    done = [
        subprocess.run([sys.executable, "-W", "ignore", *words], capture_output=True, text=True, check=True)
        for words in (["-c", CODE], ["-m", "dots_zoo.openmm.mmcv_ops", str(tmp_path / "script.py"), "--x"])
    ]
    assert [run.stdout.splitlines()[-1] for run in done] == ["in place", "ran ['--x'] __main__"]

"""Training, testing and predicting on pictures made here, a killed run, and what is refused."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest
from PIL import Image

from dots_zoo.commands.cli import main
from dots_zoo.openmm.progress import quiet
from helpers.paths import ROOT

with quiet():
    from dots_zoo.openmm.config import build_model
    from dots_zoo.openmm.predict import infer
    from helpers.tiny_mm import SIDE, make_camvid, make_coco, write_config

EPOCHS = {"det": 9, "seg": 8}


class Trained:
    """A tiny data set, a config, and the folder of a finished training."""

    def __init__(self, task: str, folder: Path) -> None:
        self.task = task
        make = make_coco if task == "det" else make_camvid
        self.data = make(folder / "data", {"train": 48, "val": 8, "test": 8})
        self.config = write_config(folder / "tiny.py", task, EPOCHS[task])
        self.out = folder / "run"
        self.words = ["--data-root", str(self.data)]

    def run(self, *words: str) -> int:
        return main([self.task, *words, *self.words])

    @property
    def rows(self) -> list[dict[str, float]]:
        return [json.loads(line) for line in (self.out / "metrics.jsonl").read_text().splitlines()]

    @property
    def best(self) -> str:
        [path] = self.out.glob("best_*.pth")
        return str(path)


@pytest.fixture(scope="module", params=["det", "seg"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    training = Trained(request.param, tmp_path_factory.mktemp(request.param))
    assert training.run("train", str(training.config), "--out", str(training.out)) == 0
    return training


def metric(row: dict[str, float], task: str) -> float:
    return row["val/coco/bbox_mAP_50"] if task == "det" else row["val/mIoU"] / 100


def test_it_learns_and_says_what_it_did(trained: Trained) -> None:
    rows = trained.rows
    assert [row["epoch"] for row in rows] == list(range(1, EPOCHS[trained.task] + 1))
    assert rows[-1]["loss"] < 0.6 * rows[0]["loss"]
    assert max(metric(row, trained.task) for row in rows) > 0.6
    run = json.loads((trained.out / "run.json").read_text())
    assert run["steps"] == rows[-1]["step"] and run["best"] == Path(trained.best).name
    assert run["backbone"] == "cell_mobile" and run["versions"]["mmengine"]


def test_the_course_is_drawn(trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "curves.png"
    assert main([trained.task, "curves", str(trained.out), "-o", str(out)]) == 0
    with Image.open(out) as picture:
        assert picture.size == (1200, 340) and len(picture.convert("RGB").getcolors(10**6)) > 20
    assert main([trained.task, "curves", str(tmp_path), "-o", str(out)]) == 2
    assert "expected the --out of a training" in capsys.readouterr().err


def test_a_checkpoint_is_tested_on_the_test_images(
    trained: Trained, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ["test", str(trained.config), trained.best, "--out", str(tmp_path / "logs")]
    assert trained.run(*words) == 0
    printed = capsys.readouterr().out
    assert trained.run(*words, "--json") == 0
    metrics = json.loads(capsys.readouterr().out)
    if trained.task == "det":
        assert metrics["coco/bbox_mAP_50"] > 0.5 and "coco/bbox_mAP_50" in printed
    else:
        mean = (metrics["IoU/Sky"] + metrics["IoU/Building"]) / 2
        assert metrics["mIoU"] == pytest.approx(mean, abs=0.01) and mean > 50 and "IoU/Sky" in printed


TASKS = {"det": "detect", "seg": "segment"}


def exported(trained: Trained, path: Path, *words: str) -> Path:
    task = ["--task", TASKS[trained.task], "--checkpoint", trained.best, "--exporter", "torchscript"]
    sizes = ["--input", f"{SIDE}x{SIDE}", "--dynamic", "batch", "height", "width"]
    assert main(["export", str(trained.config), *task, *sizes, "-o", str(path), *words]) == 0
    return path


def test_an_exported_file_has_the_metric_of_the_network(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {"det": ["--image-type", "uint8"], "seg": ["--logits", "--fuse"]}[trained.task]
    file = exported(trained, tmp_path / "m.onnx", *words)
    metrics = []
    for weights in (trained.best, str(file)):
        logs = str(tmp_path / "logs" / Path(weights).suffix)
        capsys.readouterr()
        assert trained.run("test", str(trained.config), weights, "--out", logs, "--json") == 0
        metrics.append(json.loads(capsys.readouterr().out))
    name, within = {"det": ("coco/bbox_mAP", 1e-3), "seg": ("mIoU", 0.1)}[trained.task]
    assert metrics[1][name] == pytest.approx(metrics[0][name], abs=within) and metrics[0][name] > 0.2
    facts = {p.key: p.value for p in onnx.load(str(file)).metadata_props}
    assert facts["task"] == TASKS[trained.task] and facts["model"] == "tiny"
    assert json.loads(facts["class_names"]) == (
        ["square", "disc"] if trained.task == "det" else ["Sky", "Building"]
    )
    parity = json.loads(facts["parity"])
    assert parity["matched" if trained.task == "det" else "label_agreement"] > 0.99


@pytest.mark.processes
def test_the_program_of_the_docs_finds_what_the_network_finds(trained: Trained, tmp_path: Path) -> None:
    """With onnxruntime, numpy and Pillow alone: docs/deployment.md."""
    if trained.task == "seg":
        pytest.skip("a detector's program")
    file = exported(trained, tmp_path / "m.onnx", "--image-type", "uint8")
    page = (ROOT / "docs/deployment.md").read_text("utf-8")
    [program] = re.findall(r"^```py\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(program.splitlines()) <= 20
    photo = sorted(trained.data.glob("images/test*.jpg"))[0]
    words = [sys.executable, "-c", program, str(file), str(photo)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path)
    model = build_model(trained.config, "det", checkpoint=trained.best)
    expected = infer(model, photo).pred_instances
    kept = expected[expected.scores >= 0.3]
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == len(kept.scores) > 0
    for line, box, score, label in zip(lines, kept.bboxes, kept.scores, kept.labels, strict=True):
        assert line[0] == ("square", "disc")[label] and float(line[1]) == pytest.approx(
            float(score), abs=0.02
        )
        assert [float(x) for x in line[2:]] == pytest.approx(box.tolist(), abs=0.6)  # another JPEG decoder


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected --checkpoint FILE, the weights of a training"),
        (["--checkpoint", "none.pth"], "none.pth: no such checkpoint file"),
        (
            ["--checkpoint", "BEST", "--pretrained"],
            "--pretrained builds a network, and this is one",
        ),
        (["--checkpoint", "BEST", "--image-type", "png"], "image_type: expected float32 or uint8, got 'png'"),
        (["--checkpoint", "BEST", "--genotype", "darts_v2"], "does not fit the model of the config"),
        (["--checkpoint", "BEST", "--half-io", "--precision", "fp16"], "float16 inputs and outputs are for"),
    ],
)
def test_exports_that_cannot_be_made(
    trained: Trained, words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.onnx"
    given = [trained.best if word == "BEST" else word for word in words]
    line = ["export", str(trained.config), "--task", TASKS[trained.task], "-o", str(out), *given]
    assert main(line) == 2
    assert message in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_a_file_of_another_task_is_not_tested(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = ["--genotype", "darts_v1", "--num-classes", "2", "--exporter", "torchscript", "--input", "32x32"]
    assert main(["export", "cell_cifar", *tiny, "-o", str(tmp_path / "m.onnx")]) == 0
    folder = str(tmp_path / "logs")
    assert trained.run("test", str(trained.config), str(tmp_path / "m.onnx"), "--out", folder) == 2
    assert f"expected a file of dots-zoo export --task {TASKS[trained.task]}" in capsys.readouterr().err


def test_predictions_are_drawn_and_written(trained: Trained, tmp_path: Path) -> None:
    images = sorted(trained.data.glob("**/images/*.jpg"))[:2]
    out = tmp_path / "drawn"
    words = [str(trained.config), trained.best, *map(str, images), "-o", str(out), "--score", "0.05"]
    assert main([trained.task, "predict", *words]) == 0
    entries = json.loads((out / "predictions.json").read_text())
    assert [entry["image"] for entry in entries] == [str(path) for path in images]
    with Image.open(out / f"{images[0].stem}.png") as drawn, Image.open(images[0]) as picture:
        assert drawn.size == picture.size and drawn.tobytes() != picture.tobytes()
    if trained.task == "det":
        [first, *_] = entries[0]["boxes"]
        assert first["label"] in ("square", "disc") and first["score"] >= 0.05
        assert all(-1 <= x <= SIDE + 1 for x in first["box"])
    else:
        with Image.open(out / f"{images[0].stem}_labels.png") as labels:
            shares = {name: labels.tobytes().count(i) / SIDE**2 for i, name in enumerate(("Sky", "Building"))}
        assert entries[0]["shares"] == pytest.approx(shares, abs=1e-3)


def test_a_built_model_predicts_what_the_command_does(trained: Trained) -> None:
    model = build_model(trained.config, trained.task, checkpoint=trained.best)
    assert not model.training and model.cfg.default_scope == ("mmdet" if trained.task == "det" else "mmseg")
    assert model.data_preprocessor.mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])
    sample = infer(model, next(iter(sorted(trained.data.glob("**/images/*.jpg")))))
    prediction = sample.pred_instances.bboxes if trained.task == "det" else sample.pred_sem_seg.data
    assert prediction.shape[-1] == (4 if trained.task == "det" else SIDE)


@pytest.mark.processes
@pytest.mark.parametrize("trained", ["seg"], indirect=True)
def test_a_killed_training_goes_on_to_the_same_result(trained: Trained, tmp_path: Path) -> None:
    out, whole = tmp_path / "run", trained.rows[:4]
    words = ["train", str(trained.config), "--out", str(out), *trained.words]
    words += ["--cfg-options", f"train_cfg.max_epochs={len(whole)}"]
    command = [sys.executable, "-W", "ignore", "-m", "dots_zoo", trained.task, *words]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 240
        while not (out / "epoch_2.pth").is_file() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    (out / "last_checkpoint").write_text("")  # as when the kill comes while it is written
    (out / "epoch_4.pth").write_bytes((out / "epoch_2.pth").read_bytes()[:1000])  # half a checkpoint
    before = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert before and before[-1]["epoch"] < len(whole)
    assert main([trained.task, *words, "--resume"]) == 0
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    epochs = [row["epoch"] for row in rows]
    # Killed between a checkpoint and its evaluation, mmengine goes on with the next epoch.
    assert epochs == [epoch for epoch in range(1, 5) if epoch in epochs] and len(epochs) >= len(whole) - 1
    assert rows[0] == before[0] and rows[-1]["step"] == whole[-1]["step"]
    assert rows[-1]["loss"] == pytest.approx(whole[-1]["loss"], rel=0.2)  # other random draws after the kill
    assert rows[-1]["loss"] < 0.8 * whole[0]["loss"]


def test_a_taken_folder_and_what_does_not_fit_are_refused(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, out = str(trained.config), str(tmp_path / "out")
    other = ["--cfg-options", "model.neck.out_channels=8", "model.bbox_head.in_channels=8"]
    if trained.task == "seg":
        other = ["--cfg-options", "model.backbone.width=8", "model.auxiliary_head.in_channels=8"]
    small = tmp_path / "small.png"
    Image.new("RGB", (20, 90)).save(small)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    image = str(next(iter(trained.data.glob("**/images/*.jpg"))))
    refused = [
        (["train", config, "--out", str(trained.out), *trained.words], "expected a new or an empty "),
        (["train", config, "--out", out, "--amp", *trained.words], "--amp: mmengine's mixed precision"),
        (["test", config, trained.best, "--out", out, *trained.words, *other], "does not fit the model"),
        (["test", config, out + ".pth", "--out", out, *trained.words], "no such checkpoint file"),
        (["test", config, str(trained.config), "--out", out, *trained.words], "not a checkpoint"),
        (["predict", config, trained.best, str(small), "-o", out], "at least 32x32 pixels"),
        (["predict", config, trained.best, str(broken), "-o", out], "not an image that can be decoded"),
        (["predict", config, trained.best, image, image, "-o", out], "the same name"),
        (["check", config, "--input", "64"], "input: expected HEIGHTxWIDTH"),
    ]
    for words, message in refused:
        assert main([trained.task, *words]) == 2, words
        error_line = capsys.readouterr().err
        assert (
            error_line.startswith("dots-zoo: error: ")
            and message in error_line
            and len(error_line.splitlines()) == 1
        )
        assert not Path(out).exists()


@pytest.mark.processes
@pytest.mark.parametrize("trained", ["seg"], indirect=True)
def test_a_broken_image_is_named_and_leaves_nothing(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(trained.data, data)
    for path in data.glob("**/images/*.jpg"):
        path.write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    out = tmp_path / "out"
    words = ["train", str(trained.config), "--out", str(out), "--data-root", str(data)]
    for workers in ([], ["--cfg-options", "train_dataloader.num_workers=1"]):
        assert main([trained.task, *words, *workers]) == 2
        error_line = capsys.readouterr().err
        assert ".jpg: not an image that can be decoded" in error_line and len(error_line.splitlines()) == 1
        assert not out.exists()


@pytest.mark.parametrize("trained", ["det"], indirect=True)
def test_pycocotools_and_faster_coco_eval_agree(trained: Trained, tmp_path: Path) -> None:
    faster = pytest.importorskip("faster_coco_eval")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    prefix = str(tmp_path / "found")
    words = ["test", str(trained.config), trained.best, "--out", str(tmp_path / "logs")]
    assert trained.run(*words, "--cfg-options", f"test_evaluator.outfile_prefix={prefix}") == 0
    numbers = []
    for reader, evaluation in ((COCO, COCOeval), (faster.COCO, faster.COCOeval_faster)):
        with quiet():
            truth = reader(str(trained.data / "instances_test.json"))
            run = evaluation(truth, truth.loadRes(f"{prefix}.bbox.json"), "bbox")
            run.evaluate()
            run.accumulate()
            run.summarize()
        numbers.append(list(run.stats[:12]))
    assert numbers[0] == pytest.approx(numbers[1], abs=1e-9) and numbers[0][1] > 0.5

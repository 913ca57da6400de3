"""Every kind of network reference with every command that names a network, and the Python functions."""

import json
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
import torch
from PIL import Image
from torch import nn

from dots_zoo import fuse
from dots_zoo.commands.cli import main
from dots_zoo.export import export
from dots_zoo.genotype import load_genotype, to_text
from dots_zoo.openmm.progress import quiet
from dots_zoo.reference import create, genotype_of, resolve
from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.search import search
from dots_zoo.train import evaluate, predict, train

with quiet():
    from helpers.tiny_mm import write_config

SMALL = {"channels": 2, "layers": 3}
TINY = {**SMALL, "batch_size": 720, "epochs": 1, "validation": 0.2, "drop_path_rate": 0.0, "quiet": True}
AS_WORDS = ["--channels", "2", "--layers", "3"]
KINDS = ("timm_ours", "timm", "cell", "file", "text", "search", "training", "local", "best", "timm_training")
CELLS = ("timm_ours", "cell", "file", "text", "search", "training", "local", "best")
TRAINED = ("training", "local", "best", "timm_training")
UNTRAINED = tuple(kind for kind in KINDS if kind not in TRAINED)
FAST_CHECKS = (("det", "training"), ("seg", "search"), ("det", "timm"), ("seg", "timm_training"))
NO_CELL = "expected a network of cells, got another of timm's"
every_kind = pytest.mark.parametrize("kind", KINDS)


def fast(*kinds: str) -> pytest.MarkDecorator:
    """Every kind, those not named in the slow suite."""
    slow = [pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS if kind not in kinds]
    return pytest.mark.parametrize("kind", [*kinds, *slow])


@pytest.fixture(scope="module")
def refs(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A reference of every kind; every cell is that of one search, but those of timm_ours and cell."""
    root = tmp_path_factory.mktemp("references")
    training = {"training.batch_size": 720, "training.kernels": "off"}
    options = {"space": "S2", "epochs": 1, "layers": 3, "channels": 2, "quiet": True, **training}
    found = search("dropnas", out=root / "search", **options).path
    net = train(found, out=root / "net", macro="cifar", **TINY).path
    other = train("test_byobnet", out=root / "other", **{**TINY, "channels": None, "layers": None}).path
    Image.new("RGB", (8, 8), (200, 10, 10)).save(root / "image.png")
    return SimpleNamespace(
        root=root,
        image=str(root / "image.png"),
        timm_ours="darts_v1",
        timm="test_byobnet",
        cell="darts_pt_cifar10_s0_1",
        file=str(found / "genotype.json"),
        text=to_text(load_genotype(found / "genotype.json")),
        search=str(found),
        training=str(net),
        local=f"local-dir:{net}",
        best=str(net / "best"),
        timm_training=str(other),
    )


def refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that is refused; return what it says, one line."""
    capsys.readouterr()
    assert main(argv) == 2
    [line] = capsys.readouterr().err.splitlines()
    return line


def shape_of(kind: str) -> list[str]:
    """Words that make the network small, where it is not trained and of cells."""
    return AS_WORDS if kind in CELLS and kind in UNTRAINED else []


@every_kind
def test_draw(kind: str, refs: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "cell.svg"
    words = ["draw", getattr(refs, kind), "-o", str(out)]
    if kind in CELLS:
        assert main(words) == 0 and out.read_text().startswith("<?xml")
    else:
        assert NO_CELL in refused(words, capsys) and not out.exists()


@pytest.mark.parametrize("kind", CELLS)
def test_the_cell_is_the_same_wherever_it_is_named(kind: str, refs: SimpleNamespace) -> None:
    names = {"timm_ours": "darts_v1", "cell": "darts_pt_cifar10_s0_1"}
    assert genotype_of(getattr(refs, kind)).cells == load_genotype(names.get(kind, refs.file)).cells


@every_kind
def test_predict(kind: str, refs: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["predict", getattr(refs, kind), refs.image, "--json"]
    if kind in TRAINED:
        assert main(words) == 0
        [row] = json.loads(capsys.readouterr().out)["rows"]
        python = predict(getattr(refs, kind), refs.image)
        assert row == python.rows[0] and len(row["answers"]) == 5
    elif kind != "timm":  # whose weights would be fetched
        said = refused(words, capsys)
        assert "has no pretrained weights: train it" in said or "a genotype has no weights: train it" in said


@every_kind
def test_eval(kind: str, refs: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", getattr(refs, kind), "--json", "--quiet"]
    if kind in TRAINED:
        assert main(words) == 0
        accuracy = json.loads(capsys.readouterr().out)["score"]["accuracy"]
        assert accuracy == evaluate(getattr(refs, kind), quiet=True).accuracy
    elif kind != "timm":
        said = refused(words, capsys)
        assert "has no pretrained weights: train it" in said or "a genotype has no weights: train it" in said


@fast("timm", "file", "training")
def test_train(kind: str, refs: SimpleNamespace, tmp_path: Path) -> None:
    recipe = ["--batch-size", "720", "--epochs", "1", "--drop-path-rate", "0", "--quiet"]
    assert main(["train", getattr(refs, kind), *shape_of(kind), *recipe, "-o", str(tmp_path / "net")]) == 0
    config = json.loads((tmp_path / "net/config.json").read_text())
    assert config["num_classes"] == 10
    run = json.loads((tmp_path / "net/run.json").read_text())
    assert run["architecture"] == resolve(getattr(refs, kind), size=8).architecture


@fast("timm", "search", "local", "best")
def test_export(kind: str, refs: SimpleNamespace, tmp_path: Path) -> None:
    path, size = tmp_path / "m.onnx", [] if kind in TRAINED else ["--input", "32x32"]
    words = [*shape_of(kind), *size, "--exporter", "torchscript", "-o", str(path)]
    assert main(["export", getattr(refs, kind), *words]) == 0
    facts = {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}
    if kind in CELLS:
        assert facts["genotype"] == to_text(genotype_of(getattr(refs, kind)))
    network = create(resolve(getattr(refs, kind), size=8, **(SMALL if shape_of(kind) else {})), weights=False)
    assert int(facts["params"]) == sum(parameter.numel() for parameter in network.parameters())


@fast("file", "best")
def test_export_of_a_fused_network(
    kind: str, refs: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = [] if kind in TRAINED else ["--input", "32x32"]
    words = ["export", getattr(refs, kind), "--fuse", *shape_of(kind), *size, "--exporter", "torchscript"]
    out = tmp_path / "m.onnx"
    if kind in CELLS:
        assert main([*words, "-o", str(out)]) == 0 and out.is_file()
    else:
        assert "fuse rewrites the networks of dots_zoo" in refused([*words, "-o", str(out)], capsys)


@pytest.mark.parametrize(
    ("task", "kind"),
    [
        pytest.param(task, kind, marks=() if (task, kind) in FAST_CHECKS else pytest.mark.slow)
        for task in ("det", "seg")
        for kind in KINDS
    ],
)
def test_det_and_seg_check(
    task: str, kind: str, refs: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path / "tiny.py", task, 1)
    words = [task, "check", str(config), "--genotype", getattr(refs, kind), "--input", "64x64", "--json"]
    if kind in CELLS:
        assert main(words) == 0
        assert json.loads(capsys.readouterr().out)
    else:
        assert NO_CELL in refused(words, capsys)


@pytest.mark.parametrize("kind", ["training", "local", "best", "timm_training"])
def test_the_functions_of_python_take_what_the_commands_take(
    kind: str, refs: SimpleNamespace, tmp_path: Path
) -> None:
    done = export(getattr(refs, kind), tmp_path / "m.onnx", exporter="torchscript")
    assert done.path.is_file()
    again = predict(done.path, refs.image).rows[0]["answers"]
    answers = predict(getattr(refs, kind), refs.image).rows[0]["answers"]
    assert [a["class"] for a in again] == [a["class"] for a in answers]
    if kind in CELLS:
        network: nn.Module = create(resolve(getattr(refs, kind)), weights=True).eval()
        images = torch.randn(2, 1, 8, 8)
        with torch.no_grad():
            torch.testing.assert_close(fuse(network)(images), network(images), rtol=1e-3, atol=1e-4)


def test_what_is_no_network_is_refused_by_all_alike(tmp_path: Path, refs: SimpleNamespace) -> None:
    calls = (
        lambda: train("darts_v9", out=tmp_path / "net"),
        lambda: evaluate("darts_v9"),
        lambda: predict("darts_v9", refs.image),
        lambda: export("darts_v9", tmp_path / "m.onnx"),
        lambda: genotype_of("darts_v9"),
    )
    for call in calls:
        with pytest.raises(DotsZooError, match=r"unknown model 'darts_v9' \(nearest: darts_v2"):
            call()
    assert list(tmp_path.iterdir()) == []

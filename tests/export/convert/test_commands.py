"""The command from a name to a file: what it prints, what it writes, what it refuses."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

import dots_zoo  # noqa: F401
from dots_zoo.export.convert import command as commands
from dots_zoo.export.convert.network import Weights, build_model
from dots_zoo.genotype import to_text
from dots_zoo.reference import resolve, weights_sha256
from dots_zoo.runtime.errors import DotsZooError
from helpers.fitting import fitted

SIZE = (3, 32, 32)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    model = fitted(timm.create_model("test_byobnet"), SIZE)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def export(output: Path, name: str = "test_byobnet", **options: Any) -> Any:
    done = commands.export(name, output, exporter="torchscript", input=SIZE[1:], **options)
    print("\n".join(commands.export_lines(name, done)))
    return done


def test_from_a_checkpoint_to_a_file(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    done = export(tmp_path / "m.onnx", checkpoint=checkpoint)
    assert not done.fitted_for_check  # it has the weights of the checkpoint
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("test_byobnet: image (batch, 3, 32, 32) -> logits; ")
    assert lines[1].startswith(f"parity: ONNX Runtime differs by {done.parity.error:.1e} of the movement")
    assert lines[1].endswith("1e-03 allowed, batches 1, 3, sizes 32x32")
    assert lines[2].startswith("logits: mean difference ") and lines[2].endswith("top-1 agreement 100.0%")
    assert len(lines) == 3 and done.path == tmp_path / "m.onnx"


def test_weights_that_were_never_fitted_are_named(tmp_path: Path, capsys: pytest.CaptureFixture):
    export(tmp_path / "m.onnx")
    assert (
        "copy with fitted statistics: the weights of this model were never fitted" in capsys.readouterr().out
    )


def test_features_of_a_checkpoint_have_its_weights(checkpoint: Path):
    whole = build_model(resolve("test_byobnet"), False, Weights(checkpoint))
    features = build_model(resolve("test_byobnet"), True, Weights(checkpoint))
    expected = whole.state_dict()
    for key, value in features.state_dict().items():
        [match] = [k for k in expected if k.replace(".", "_") == key.replace(".", "_")]
        assert torch.equal(value, expected[match])


def test_cells_with_a_genotype_and_a_checkpoint(tmp_path: Path):
    kwargs = {"genotype": "darts_v1", "num_classes": 3}
    small = {"channels": 4, "layers": 3}
    model = fitted(timm.create_model("cell_cifar", **kwargs, **small), SIZE)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    reference = resolve("cell_cifar", **small)
    loaded = build_model(reference, False, Weights(tmp_path / "w.pth"), **kwargs)
    assert weights_sha256(loaded) == weights_sha256(model)
    features = build_model(reference, True, Weights(tmp_path / "w.pth"), **kwargs)
    assert torch.equal(features.model.stem[0][0].weight, model.stem[0][0].weight)
    same = build_model(
        resolve("darts_v1", macro="cifar", **small), True, Weights(tmp_path / "w.pth"), num_classes=3
    )
    assert weights_sha256(same) == weights_sha256(features)


def test_size_genotype_and_classes_reach_the_model(tmp_path: Path):
    size = {"channels": 4, "layers": 3, "num_classes": 3}
    done = export(tmp_path / "m.onnx", "cell_cifar", genotype="darts_v1", **size)
    expected = timm.create_model("cell_cifar", genotype="darts_v1", **size)
    assert done.metadata["params"] == str(sum(p.numel() for p in expected.parameters()))
    assert done.metadata["genotype"] == to_text(expected.genotype)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "no_such_model",
            {},
            "unknown model 'no_such_model'.* dots-zoo list and dots-zoo list --cells print",
        ),
        ("test_byobnet", {"genotype": "darts_v1"}, "timm cannot build this model: .*genotype"),
        ("cell_cifar", {}, "pass genotype="),
        ("dots_cifar10", {"pretrained": True}, "no pretrained weights"),
        ("test_byobnet", {"checkpoint": Path("none.pth")}, "none.pth: no such checkpoint file"),
        (
            "test_byobnet",
            {"checkpoint": Path("none.pth"), "pretrained": True},
            "both give weights: choose",
        ),
    ],
)
def test_what_cannot_be_built(name: str, options: dict[str, Any], message: str, tmp_path: Path):
    with pytest.raises(DotsZooError, match=message):
        export(tmp_path / "m.onnx", name, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["other", b"garbage", b""])
def test_checkpoints_that_do_not_fit(content: str | bytes, tmp_path: Path):
    path = tmp_path / "w.pth"
    if content == "other":
        torch.save(timm.create_model("test_resnet").state_dict(), path)
    else:
        path.write_bytes(content)
    with pytest.raises(DotsZooError, match="w.pth: cannot be loaded into ByobNet: ") as error:
        export(tmp_path / "m.onnx", checkpoint=path)
    assert len(str(error.value)) < 500 and "\n" not in str(error.value)
    assert not (tmp_path / "m.onnx").exists()


def test_a_folder_that_is_not_there_is_found_before_the_work(tmp_path: Path):
    """No network of that name can be built, either."""
    message = "cannot be written: give a file in an existing, writable folder"
    with pytest.raises(DotsZooError, match=message):
        export(tmp_path / "none" / "m.onnx", "no_such_model")


def test_dynamic_axes():
    assert commands.open_axes(["batch"]) == ("batch",)
    assert commands.open_axes(["batch", "height", "width"]) == ("batch", "height", "width")
    assert commands.open_axes(["none"]) == ()
    for names in (["batch", "batch"], ["batch", "none"]):
        with pytest.raises(DotsZooError, match="dynamic: expected none, or batch, height, width once"):
            commands.open_axes(names)


def test_a_module_is_exported_as_it_is_and_its_file_opens(tmp_path: Path):
    model = fitted(timm.create_model("test_byobnet"), SIZE)
    done = commands.export(model, tmp_path / "m.onnx", input="32x32", exporter="torchscript")
    assert done.path == tmp_path / "m.onnx"
    images = torch.randn(2, *SIZE)
    [logits] = done.session().run(None, {"image": images.numpy()})
    with torch.inference_mode():
        torch.testing.assert_close(torch.from_numpy(logits), model(images), rtol=1e-3, atol=1e-4)
    with pytest.raises(DotsZooError, match="a module: --channels builds a network, and this is one"):
        commands.export(model, tmp_path / "n.onnx", channels=3)


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(path: Path, data: bytes) -> int:
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DotsZooError, match="m.onnx: cannot be written .*No space left on device") as error:
        export(tmp_path / "m.onnx")
    assert error.value.exit_code == 2 and list(tmp_path.iterdir()) == []

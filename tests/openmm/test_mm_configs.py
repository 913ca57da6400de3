"""Every shipped config: costs, one training step, one prediction, and the settings that the papers name."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from dots_zoo import DotsZooError, load_genotype
from dots_zoo.openmm.progress import quiet
from helpers.matrix import mostly_slow
from helpers.paths import GOLDEN

with quiet():
    from mmengine.config import Config

    from dots_zoo.openmm import config as mm_config
    from dots_zoo.openmm.backbone import DotsBackbone
    from dots_zoo.openmm.check import check
    from dots_zoo.openmm.config import backbone_of, load_config, shipped

COSTS = json.loads((GOLDEN / "mm_costs.json").read_text())
CONFIGS = [(task, name) for task in ("det", "seg") for name in shipped(task)]
KINDS = [
    ("det", "retinanet_dots_imagenet_light_fpn_bccd"),
    ("det", "retinanet_mobilenetv2_light_fpn_bccd"),
    ("seg", "bisenetv1_dots_imagenet_camvid"),
]
ids = [name for _, name in CONFIGS]


def test_the_golden_costs_are_of_the_configs_there_are() -> None:
    assert sorted(COSTS) == sorted(ids) and len(ids) == 15


@pytest.mark.parametrize(("task", "name"), mostly_slow(CONFIGS, KINDS), ids=ids)
def test_it_costs_trains_and_predicts(task: str, name: str) -> None:
    result = check(load_config(name, task), task)
    golden = COSTS[name]
    assert {key: result[key] for key in ("parameters", "macs", "input_size")} == {
        key: golden[key] for key in ("parameters", "macs", "input_size")
    }
    assert result["strides"] == [4, 8, 16, 32] and result["loss"] > 0
    assert result["parameters_changed"] > 90
    assert result["prediction"].endswith("boxes" if task == "det" else "labels")
    height, width = golden["input_size"]
    text = ast.get_docstring(ast.parse(shipped(task)[name].read_text()))
    assert text is not None and f"dots-zoo {task} train {name} " in text
    parameters, macs = f"{golden['parameters'] / 1e6:.2f} M", f"{golden['macs'] / 1e9:.2f} G"
    assert f"{parameters} parameters, {macs} MACs at {width}x{height}." in text
    assert "Not trained." in text or "mAP" in text or "mIoU" in text


@pytest.mark.parametrize("name", shipped("det"))
def test_the_channels_written_down_are_the_backbone_s(name: str) -> None:
    """mmdet's own tools do not fill them in."""
    written = Config.fromfile(shipped("det")[name]).model.neck.in_channels
    assert written == load_config(name, "det").model.neck.in_channels


def test_retinanet_has_the_paper_s_settings() -> None:
    cfg = load_config("retinanet_dots_imagenet_fpn_1x_coco", "det")
    assert cfg.optim_wrapper.optimizer == dict(type="SGD", lr=0.01, momentum=0.9, weight_decay=1e-4)
    assert cfg.train_cfg.max_epochs == 12 and cfg.param_scheduler[1].milestones == [8, 11]
    assert cfg.train_dataloader.batch_size * 8 == 16 == cfg.auto_scale_lr.base_batch_size
    [scale] = [step.scale for step in cfg.train_pipeline if step.type == "Resize"]
    assert scale == (1333, 800)
    neck = cfg.model.neck
    assert (neck.out_channels, neck.start_level, neck.num_outs) == (256, 1, 5)


@pytest.mark.parametrize("name", [name for name in shipped("det") if name.endswith("_coco")])
def test_images_of_many_sizes_are_evaluated_one_by_one(name: str) -> None:
    """A batch is filled up to one size, and AP would depend on which images share one."""
    cfg = load_config(name, "det")
    assert cfg.val_dataloader.batch_size == cfg.test_dataloader.batch_size == 1


def test_bisenet_has_its_paper_s_settings() -> None:
    cfg = load_config("bisenetv1_dots_imagenet_4xb4-160k_cityscapes-1024x1024", "seg")
    assert cfg.optim_wrapper.optimizer == dict(type="SGD", lr=0.025, momentum=0.9, weight_decay=1e-4)
    poly = cfg.param_scheduler[1]
    assert (poly.type, poly.power, poly.eta_min, poly.end) == ("PolyLR", 0.9, 0.0, 160000)
    assert cfg.train_dataloader.batch_size * 4 == 16 and cfg.train_cfg.max_iters == 160000
    steps = {step.type: step for step in cfg.train_dataloader.dataset.pipeline}
    assert [width / 2048 for width, _ in steps["RandomChoiceResize"].scales] == [0.75, 1, 1.5, 1.75, 2]
    assert "PhotoMetricDistortion" not in steps


def test_resnet_18_costs_what_mmseg_says_of_its_own() -> None:
    """13.43 M and 59.2 GMACs at 1024x1024: so the paths, the fusion and the heads are BiSeNet's."""
    golden = COSTS["bisenetv1_resnet18_4xb4-160k_cityscapes-1024x1024"]
    assert round(golden["parameters"] / 1e6, 2) == 13.43 and round(golden["macs"] / 1e9, 1) == 59.2


def test_a_genotype_takes_the_place_of_the_cell() -> None:
    name = "retinanet_dots_imagenet_light_fpn_bccd"
    cfg = load_config(
        name, "det", genotype="darts_v2", options=["model.backbone.model_kwargs.channels=8", "epochs=3"]
    )
    backbone = backbone_of(cfg.model)
    assert load_genotype(backbone.genotype) == load_genotype("darts_v2")
    assert backbone.model_name == "cell_mobile" and backbone.model_kwargs == {"channels": 8}
    assert cfg.model.neck.in_channels == [8, 32, 64, 128] and cfg.epochs == 3
    assert DotsBackbone(**{k: v for k, v in backbone.items() if k != "type"}).out_channels == [8, 32, 64, 128]
    with pytest.raises(DotsZooError, match="--genotype: expected a config whose backbone is a"):
        load_config("retinanet_mobilenetv2_light_fpn_bccd", "det", genotype="darts_v2")


def test_the_data_s_folder_moves_with_everything_in_it() -> None:
    cfg = load_config("retinanet_dots_imagenet_light_fpn_bccd", "det", data_root="/elsewhere")
    assert cfg.train_dataloader.dataset.data_root.rstrip("/") == "/elsewhere"
    assert cfg.val_evaluator.ann_file == "/elsewhere/instances_val.json"
    cfg = load_config("bisenetv1_dots_imagenet_camvid", "seg", data_root="/elsewhere/")
    assert cfg.test_dataloader.dataset.data_root == "/elsewhere/test"


@pytest.mark.parametrize(
    ("text", "task", "message"),
    [
        (
            "model = dict(type='X')",
            "det",
            r"expected a model and default_scope 'mmdet', got default_scope None",
        ),
        ("default_scope = 'mmdet'\nmodel = dict()", "seg", "expected a model and default_scope 'mmseg'"),
        ("1 / 0", "det", "cannot be read: ZeroDivisionError"),
    ],
)
def test_a_config_that_does_not_fit_is_told(tmp_path: Path, text: str, task: str, message: str) -> None:
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(DotsZooError, match=message):
        load_config(tmp_path / "mine.py", task)
    with pytest.raises(DotsZooError, match=r"config absent.py: no such file; shipped are .*dots_imagenet"):
        load_config("absent.py", task)


def test_options_are_key_and_value() -> None:
    name = "retinanet_dots_imagenet_light_fpn_bccd"
    cfg: Any = load_config(name, "det", options=["a.b=3", "c=[1,2]", "d=x=y"])
    assert (cfg.a.b, cfg.c, cfg.d) == (3, [1, 2], "x=y")
    with pytest.raises(DotsZooError, match="--cfg-options: expected KEY=VALUE, got 'lr'"):
        load_config(name, "det", options=["lr"])


def test_weights_for_a_model_that_is_only_used_are_not_looked_for() -> None:
    """A detector's checkpoint has the backbone's; what was frozen in training does not matter."""
    name = "retinanet_dots_imagenet_light_fpn_bccd"
    cfg: Any = load_config(
        name, "det", options=["model.backbone.checkpoint=gone.safetensors", "model.backbone.norm_eval=True"]
    )
    backbone = backbone_of(mm_config._without_weights(cfg.model))
    assert backbone.checkpoint is None and not backbone.norm_eval
    assert backbone_of(cfg.model).checkpoint == "gone.safetensors"

"""What users add by the calls that the package uses itself: it goes everywhere that ours goes."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import dots_zoo
from dots_zoo import MacroArchitecture, Operation
from dots_zoo.data import DataOptions, Dataset, ImageData, load_data, register_dataset
from dots_zoo.drawing.draw import draw
from dots_zoo.genotype import load_genotype, primitives, to_text
from dots_zoo.macro import cifar
from dots_zoo.reference import resolve
from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.search.methods.darts import DartsConfig, darts_training
from dots_zoo.search.methods.darts import stages as darts_stages
from dots_zoo.search.methods.registry import METHODS, Derivation, Method, plan, register_method
from dots_zoo.search.run.command import choose
from dots_zoo.search.run.run import run_search
from dots_zoo.search.space.named import (
    NamedSpace,
    darts_space,
    groups_by_function,
    groups_by_weights,
    named_space,
    register_space,
)
from dots_zoo.search.stages.config import TrainingConfig
from dots_zoo.search.stages.stage import Stage
from dots_zoo.search.supernet import MacroName
from dots_zoo.train.api import eval_line
from dots_zoo.train.model import ModelOptions
from dots_zoo.train.recipe import Recipe
from dots_zoo.train.run import run_training
from helpers.tables import tables_as_before
from helpers.toy_search import toy_data, toy_training

onnx = pytest.importorskip("onnx")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    with tables_as_before():
        yield


class Mobile(nn.Module):
    """A depthwise and a pointwise convolution: it begins without a ReLU, and ends without a batch norm."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)
        self.pointwise = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.pointwise(self.depthwise(x))
        return out


def mobile(channels: int, stride: int, affine: bool) -> nn.Module:
    return Mobile(channels, stride)


def relu_conv(channels: int, stride: int, affine: bool) -> nn.Module:
    conv = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
    return nn.Sequential(nn.ReLU(), conv, nn.BatchNorm2d(channels, affine=affine))


def searched(out: Path, space: str, method: str = "darts", **changes: Any) -> Any:
    """One epoch of two steps on 64 digits."""
    data = load_data(DataOptions())
    few = replace(data, images=data.images[:64], labels=data.labels[:64])
    numbers = {"epochs": 1, "warm_up": 0, "layers": 3, "channels": 4, "training": toy_training(batch_size=16)}
    config = METHODS[method].config(**{**numbers, **changes})
    return run_search(method, config, Derivation(), space, few, out, progress=False)


def short_training(genotype: str, data: str, out: Path, macro: str = "cifar") -> dict[str, Any]:
    options = ModelOptions(macro=macro, channels=4, layers=3)
    recipe = Recipe(epochs=1, batch_size=32, aux_weight=0.0, drop_path_rate=0.0)
    loaded = load_data(DataOptions(data=data, train_fraction=0.1 if data == "digits" else 1.0))
    return run_training(genotype, options, loaded, recipe, out, progress=False)


@pytest.mark.parametrize(
    ("name", "build"), [("mobile_3x3", mobile), ("relu_conv_3x3", relu_conv)], ids=["bare", "relu_to_norm"]
)
def test_an_operation_is_searched_drawn_trained_and_exported(name: str, build: Any, tmp_path: Path) -> None:
    dots_zoo.register_operation(Operation(name, build))
    register_space(NamedSpace("mine", darts_space((name, "noise"), 1)))
    found = searched(tmp_path / "search", "mine")
    lines = [json.loads(line) for line in (tmp_path / "search/metrics.jsonl").read_text().splitlines()]
    operations = [edge.op for cell in found.cells.values() for edge in cell.edges]
    assert lines[-1]["parametric"] == operations.count(name) and lines[-1]["skips"] == 0
    assert set(lines[-1]["weights"]["alpha.normal"]["2<-0"]) == {name, "noise"}

    pairs = f"[('{name}', 0), ('skip_connect', 1)]"
    cells = [f"{cell}={pairs}, {cell}_concat=[2]" for cell in ("normal", "reduce")]
    genotype = load_genotype(f"Genotype({', '.join(cells)})")
    assert load_genotype(to_text(genotype)) == genotype
    picture = draw(genotype, tmp_path / "cell.svg").read_text("utf-8")
    assert name in picture and "#999999" in picture

    path = dots_zoo.save_genotype(genotype, tmp_path / "cell.json")
    short_training(str(path), "digits", tmp_path / "net")
    from dots_zoo.export.convert.options import ExportOptions
    from dots_zoo.export.convert.to_onnx import export_onnx

    model = timm.create_model(f"local-dir:{tmp_path / 'net'}", pretrained=True)
    options = ExportOptions(input_size=(1, 8, 8), exporter="torchscript")
    export_onnx(model, tmp_path / "m.onnx", options)
    facts = {entry.key: entry.value for entry in onnx.load(str(tmp_path / "m.onnx")).metadata_props}
    assert facts["genotype"] == to_text(genotype) and json.loads(facts["parity"])["outputs"]


@pytest.mark.parametrize("memory", ["fast", "lean", "checkpoint"])
def test_an_operation_without_relu_and_norm_gets_the_gradient_of_its_formula(memory: str) -> None:
    """A supernet of one edge that mixes it with the identity, against the sum written by hand."""
    from dots_zoo.search.space.space import CellSpace, SearchSpace
    from dots_zoo.search.supernet.mixture import Mixture, everything
    from dots_zoo.search.supernet.supernet import Shape, Supernet

    dots_zoo.register_operation(Operation("mobile_3x3", mobile))
    rows = (("mobile_3x3", "skip_connect"), ("mobile_3x3", "skip_connect"))
    space = SearchSpace(1, tuple(CellSpace(kind, rows) for kind in ("normal", "reduce")))
    torch.manual_seed(0)
    supernet = Supernet(space, Shape(channels=4, layers=3, classes=3, in_chans=1, memory=memory)).double()
    weights = {kind: torch.rand(2, 2, dtype=torch.float64, requires_grad=True) for kind in space.cell_types}
    active = {kind: everything(space, kind) for kind in space.cell_types}
    images = torch.randn(2, 1, 8, 8, dtype=torch.float64)

    def loss(alphas: dict[str, Tensor]) -> Tensor:
        out: Tensor = supernet(images, Mixture(alphas, active)).square().sum()
        return out

    loss(weights).backward()
    for kind, row, column in (("normal", 0, 0), ("normal", 1, 1), ("reduce", 1, 0)):
        step = torch.zeros(2, 2, dtype=torch.float64)
        step[row, column] = 1e-5
        with torch.no_grad():
            moved = [loss({**weights, kind: weights[kind] + sign * step}) for sign in (1, -1)]
        numeric = ((moved[0] - moved[1]) / 2e-5).item()
        assert weights[kind].grad is not None
        assert weights[kind].grad[row, column].item() == pytest.approx(numeric, rel=1e-4)


def test_the_facts_of_an_operation_are_read_from_its_record(tmp_path: Path) -> None:
    dots_zoo.register_operation(Operation("blur", relu_conv, "blur", "#123456", "sep_conv", parametric=False))
    dots_zoo.register_operation(Operation("dice", relu_conv, random=True, spaces=("darts", "nasbench201")))
    assert "blur" in primitives("darts") and "blur" not in primitives("nasbench201")
    assert "dice" in primitives("nasbench201")
    without, with_weights = groups_by_weights()
    assert "blur" in without and "dice" in with_weights
    [group] = [group for group in groups_by_function() if "blur" in group]
    assert "sep_conv_3x3" in group and not any("dice" in group for group in groups_by_function())
    pairs = "[('dice', 0), ('blur', 1)]"
    text = f"Genotype(normal={pairs}, normal_concat=[2], reduce={pairs}, reduce_concat=[2])"
    assert "#123456" in draw(load_genotype(text), tmp_path / "cell.svg").read_text("utf-8")
    from dots_zoo.export.convert.to_onnx import export_onnx

    model = timm.create_model("cell_cifar", genotype=text, channels=4, layers=3)
    with pytest.raises(DotsZooError, match=r"operation dice \(at cells.0.nodes.0.ops.0\), which is random"):
        export_onnx(model, tmp_path / "m.onnx")


def test_an_operation_counts_as_a_skip_connection_where_its_record_says_so() -> None:
    dots_zoo.register_operation(
        Operation("my_skip", lambda c, stride, affine: nn.MaxPool2d(1, stride), skip=True)
    )
    from dots_zoo.search.methods.p_darts import derive_limited

    weights = {f"alpha.{kind}": torch.tensor([[0.6, 0.4]] * 2) for kind in ("normal", "reduce")}
    cells = derive_limited(1, darts_space(("my_skip", "sep_conv_3x3"), 1), weights)
    assert sorted(edge.op for edge in cells["normal"].edges) == ["my_skip", "sep_conv_3x3"]
    assert {edge.op for edge in cells["reduce"].edges} == {"my_skip"}


def test_a_space_is_searched_by_its_name_and_shown_in_the_help(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    register_space(NamedSpace("small", darts_space(("skip_connect", "dil_conv_3x3"), 1), "one node"))
    found = searched(tmp_path / "run", "small")
    assert {edge.op for cell in found.cells.values() for edge in cell.edges} <= {
        "skip_connect",
        "dil_conv_3x3",
    }
    assert "space: small" in (tmp_path / "run/config.yaml").read_text()
    assert choose(["darts", "--space", "small", "--out", "x"]).space == "small"
    with pytest.raises(SystemExit):
        choose(["darts", "--help"])
    assert "small (one node)" in " ".join(capsys.readouterr().out.split())


@dataclass(frozen=True)
class MineConfig:
    """Mine: DARTS under another name.

    Args:
        epochs: of the operation search.
        warm_up: its first epochs, which train weights only.
        macro: macro-architecture of the supernet.
        layers: number of its cells.
        channels: width of its first cells.
        training: what the training loop needs.
    """

    epochs: int = 2
    warm_up: int = 0
    macro: MacroName | None = None
    layers: int = 3
    channels: int = 16
    training: TrainingConfig = field(default_factory=darts_training)


def mine(config: MineConfig, space: Any, after: int) -> tuple[Stage, ...]:
    return darts_stages(DartsConfig(**vars(config)), space, after)


def test_a_method_is_searched_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    register_method(Method("mine", MineConfig, mine, topology="pairs"))
    found = searched(tmp_path / "mine", "S2", "mine")
    assert found.provenance["method"] == "mine"
    assert found.cells == searched(tmp_path / "darts", "S2", "darts").cells
    chosen = choose(["mine", "--epochs", "3", "--out", "x"])
    assert chosen.config == MineConfig(epochs=3) and chosen.derivation.topology == "pairs"
    with pytest.raises(SystemExit):
        choose(["--help"])
    assert "Mine: DARTS under another name." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("fields", "derivation", "message"),
    [
        ({"decides_edges": True}, Derivation("pairs"), "decides about edges itself: expected topology none"),
        ({"grouped": lambda config: True}, Derivation(), "groups keep more than one operation on an edge"),
        (
            {"trains_weights": lambda config: False},
            Derivation(selection="perturbation"),
            "expected epochs of 1 or more",
        ),
    ],
)
def test_the_record_of_a_method_says_what_goes_together(
    fields: dict[str, Any], derivation: Derivation, message: str
) -> None:
    register_method(Method("mine", MineConfig, mine, **fields))
    with pytest.raises(DotsZooError, match=f"search mine: .*{message}"):
        plan("mine", MineConfig(), derivation, named_space("S2"))


def test_a_method_that_decides_edges_is_told_what_chooses_and_stands_in_the_matrix(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told: list[str] = []

    def deciding(config: MineConfig, space: Any, after: int, by: str) -> tuple[Stage, ...]:
        told.append(by)
        return mine(config, space, after)

    register_method(Method("mine", MineConfig, deciding, decides_edges=True))
    plan("mine", MineConfig(), Derivation(selection="perturbation"), named_space("S2"))
    plan("mine", MineConfig(), Derivation(), named_space("S2"))
    assert told == ["accuracy", "magnitude"]
    with pytest.raises(SystemExit):
        choose(["--help"])
    assert (
        "\n  sgas, mine                           yes              -          -\n" in capsys.readouterr().out
    )


def stripes(options: DataOptions) -> ImageData:
    return replace(toy_data(64), name=options.data, options=asdict(options))


def test_a_data_set_is_searched_and_trained_on_by_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    register_dataset(Dataset("stripes", stripes, "four patterns"))
    assert len(load_data(DataOptions(data="stripes", train_fraction=0.5)).labels) == 32
    with pytest.raises(DotsZooError, match="threads: expected only with image_folder, got it with stripes"):
        load_data(DataOptions(data="stripes", threads=2))
    short_training("darts_v1", "stripes", tmp_path / "net")
    assert "data: stripes\n" in (tmp_path / "net/config.yaml").read_text()
    assert choose(["darts", "--data", "stripes", "--out", "x"]).data == DataOptions(data="stripes")
    for ask in (lambda: choose(["darts", "--help"]), lambda: eval_line().parser.parse_args(["--help"])):
        with pytest.raises(SystemExit):
            ask()
        assert "stripes (four patterns)" in " ".join(capsys.readouterr().out.split())


def test_a_data_set_that_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(DotsZooError, match="data: expected one of digits, .*image_folder, got 'mnist'"):
        load_data(DataOptions(data="mnist"))


def test_a_macro_architecture_builds_any_cell_under_its_timm_name(tmp_path: Path) -> None:
    dots_zoo.register_macro(MacroArchitecture("narrow", cifar, channels=4, layers=3, cfg={"num_classes": 7}))
    model = timm.create_model("cell_narrow", genotype="darts_v1")
    assert model(torch.zeros(1, 3, 16, 16)).shape == (1, 7)
    features = timm.create_model("cell_narrow", genotype="darts_v1", features_only=True)
    assert features.feature_info.reduction() == [1, 2, 4]
    dots_zoo.register("narrow_darts", "darts_v2", macro="narrow", channels=6)
    assert timm.create_model("narrow_darts").cells[0].out_chs == 24
    short_training("darts_v1", "digits", tmp_path / "net", macro="narrow")
    config = json.loads((tmp_path / "net/config.json").read_text())
    assert config["architecture"] == "cell_narrow.import_dots_zoo"
    assert eval_line().parser.parse_args(["darts_v1", "--macro", "narrow"]).macro == "narrow"
    with pytest.raises(dots_zoo.GenotypeError, match="built of 'darts' cells: use macro nb201"):
        timm.create_model("cell_narrow", genotype="|none~0|+|none~0|none~1|+|none~0|none~1|skip_connect~2|")


def test_the_smallest_macro_architecture_that_is_usual_for_a_size_is_taken(tmp_path: Path) -> None:
    dots_zoo.register_macro(MacroArchitecture("narrow", cifar, channels=4, layers=3, usual_up_to=16))
    cell = "darts_pt_cifar10_s0_1"
    sizes = {size: resolve(cell, size=size).architecture for size in (16, 17, 64, 65)}
    assert sizes == {16: "cell_narrow", 17: "cell_cifar", 64: "cell_cifar", 65: "cell_mobile"}
    with pytest.raises(DotsZooError, match="macro: expected one of mobile, .*narrow, got 'wide'"):
        resolve(cell, macro="wide")


@pytest.mark.parametrize("name", ["", "a b", "x~0", "a|b", "-x", "x" * 41, 3])
def test_a_malformed_name_is_refused_in_every_table(name: Any) -> None:
    space = darts_space(("noise",), 1)
    for add in (
        lambda: dots_zoo.register_operation(Operation(name, mobile)),
        lambda: register_space(NamedSpace(name, space)),
        lambda: register_method(Method(name, MineConfig, mine)),
        lambda: register_dataset(Dataset(name, stripes)),
    ):
        with pytest.raises(DotsZooError, match="expected a name of 1 to 40 letters, digits, hyphens and"):
            add()


@pytest.mark.parametrize(
    ("add", "message"),
    [
        (
            lambda: dots_zoo.register_operation(Operation("noise", mobile)),
            "register operation: .*'noise', which is taken",
        ),
        (lambda: register_space(NamedSpace("S0", darts_space())), "register space: .*'S0', which is taken"),
        (
            lambda: register_method(Method("darts", MineConfig, mine)),
            "register method: .*'darts', which is",
        ),
        (
            lambda: register_dataset(Dataset("digits", stripes)),
            "register data set: .*'digits', which is",
        ),
        (
            lambda: dots_zoo.register_macro(MacroArchitecture("cifar", cifar, 4, 3)),
            "register macro-architecture: .*'cifar', which is taken",
        ),
        (lambda: Operation("x", 3), "operation 'x', build: expected a function of .channels, stride, affine"),
        (
            lambda: Operation("x", mobile, colour="blue"),
            "operation 'x', colour: expected '#RRGGBB', got 'blue'",
        ),
        (
            lambda: Operation("x", mobile, spaces=("s",)),
            "operation 'x', spaces: expected one or more of darts",
        ),
        (lambda: Method("x", int, mine), "method 'x', config: expected a dataclass with the fields macro"),
        (
            lambda: Method("x", MineConfig, 3),
            "method 'x', stages: expected a function of .config, space, aft",
        ),
        (lambda: Dataset("x", 3), "data set 'x', load: expected a function of DataOptions, got 3"),
        (
            lambda: Dataset("x", stripes, reads=("size",)),
            "data set 'x', reads: expected some of .*got 'size'",
        ),
        (
            lambda: MacroArchitecture("X", cifar, 4, 3),
            "macro-architecture 'X': expected a name of lower-case",
        ),
        (lambda: MacroArchitecture("x", 3, 4, 3), "macro-architecture 'x', build: expected a function of"),
        (
            lambda: MacroArchitecture("x", cifar, 4, 3, space="s"),
            "macro-architecture 'x', space: expected one",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(add: Any, message: str) -> None:
    with pytest.raises(DotsZooError, match=message):
        add()


def test_nothing_of_another_test_is_left() -> None:
    assert "mine" not in METHODS and "cell_narrow" not in timm.list_models()

"""A genotype says which plug-in its operations need: where it is written, read, and carried in a training."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm

from dots_zoo import GenotypeError
from dots_zoo.genotype import OPS, bundled_names, load_genotype, save_genotype
from dots_zoo.genotype.schema import write_json
from dots_zoo.plugins import load
from dots_zoo.reference import resolve
from dots_zoo.runtime.errors import DotsZooError
from helpers.paths import ROOT
from helpers.tables import tables_as_before

EXAMPLE = ROOT / "docs/examples/my_search.py"
PAIRS = "[('depthwise_3x3', 0), ('skip_connect', 1)]"
TEXT = f"mine = Genotype(normal={PAIRS}, normal_concat=[2], reduce={PAIRS}, reduce_concat=[2])"
PLUGINS = '  "plugins": {"depthwise_3x3": "my_search.py"},\n'
NEEDED = (
    "expected the plug-in my_search.py, which registers depthwise_3x3, got none: add --plugin my_search.py, "
    r"in Python dots_zoo.plugins.load\('my_search.py'\)"
)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    with tables_as_before():
        yield


def written(text: str = TEXT) -> str:
    """Return the JSON of a genotype of the example, which is not loaded afterwards."""
    with tables_as_before():
        load(EXAMPLE)
        return write_json(load_genotype(text))


def test_a_genotype_names_the_plug_in_of_its_operations_and_is_read_with_it() -> None:
    text = written()
    assert PLUGINS in text and text.count("my_search") == 1
    load(EXAMPLE)
    genotype = load_genotype(text)
    assert genotype == load_genotype(TEXT) and write_json(genotype) == text


def test_a_genotype_without_one_keeps_its_bytes() -> None:
    folder = ROOT / "dots_zoo/genotype/published"
    for name in ("dots_imagenet", "fair_darts_cifar10_a", "darts_pt_svhn_s4_2"):
        assert name in bundled_names()
        assert write_json(load_genotype(name)) == (folder / f"{name}.json").read_text("ascii")


def test_without_the_plug_in_the_error_names_it_and_the_option(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(written())
    with pytest.raises(GenotypeError, match=f"^{path}: {NEEDED}$"):
        load_genotype(path)
    with pytest.raises(GenotypeError, match=f"^text: {NEEDED}$"):
        load_genotype(path.read_text())


def test_a_text_form_cannot_name_it_and_the_error_says_how_it_comes() -> None:
    with pytest.raises(
        GenotypeError, match=r"got \[2, 0, 'depthwise_3x3'\]; one of your own comes with --plug"
    ):
        load_genotype(TEXT)
    with pytest.raises(GenotypeError, match=r"got \[2, 0, 'nor_conv_1x1'\]$"):  # known, but in another space
        load_genotype(TEXT.replace("depthwise_3x3", "nor_conv_1x1"))


def test_several_plug_ins_are_named_together_and_quoted_for_a_shell() -> None:
    text = written().replace(PLUGINS, '  "plugins": {"depthwise_3x3": "my ops.py", "blur": "my.blurs"},\n')
    with pytest.raises(
        GenotypeError,
        match="the plug-in my ops.py and my.blurs, which registers depthwise_3x3, blur, got none: "
        "add --plugin 'my ops.py' --plugin my.blurs, in Python",
    ):
        load_genotype(text.replace('[3, 0, "skip', '[3, 0, "blur').replace("skip_connect", "blur"))


@pytest.mark.parametrize(
    ("plugins", "sentence"),
    [
        ([], r"plugins: expected a JSON object of operations and the plug-ins that register them, got \[\]"),
        ({"sep_conv_3x3": "a.py"}, "plugins: expected names of operations on its edges, got 'sep_conv_3x3'"),
        ({"depthwise_3x3": 1}, "plugins, depthwise_3x3: expected a file's name or a module, .*, got 1"),
        ({"depthwise_3x3": ""}, "plugins, depthwise_3x3: expected a file's name or a module, .*, got ''"),
        ({"depthwise_3x3": "\x1b[2J"}, r"plugins, depthwise_3x3: .*, got '\\x1b\[2J'"),
        (
            {"depthwise_3x3": "a" * 101},
            "plugins, depthwise_3x3: expected a file's name .* 1 to 100 characters",
        ),
    ],
)
def test_a_malformed_entry_is_refused(plugins: Any, sentence: str) -> None:
    data = json.loads(written()) | {"plugins": plugins}
    load(EXAMPLE)
    with pytest.raises(GenotypeError, match=f"^text, {sentence}"):
        load_genotype(json.dumps(data))


def test_a_name_that_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    load(EXAMPLE)
    OPS["depthwise_3x3"] = replace(OPS["depthwise_3x3"], plugin="a" * 101)
    with pytest.raises(GenotypeError, match="^genotype mine, plugins, depthwise_3x3: expected a file's name"):
        save_genotype(load_genotype(TEXT), tmp_path / "mine.json")


def test_the_folder_of_a_training_asks_for_it_before_anything_is_built(tmp_path: Path) -> None:
    net = tmp_path / "net"
    with tables_as_before():
        load(EXAMPLE)
        model = timm.create_model("cell_cifar", genotype=TEXT, channels=4, layers=3)
        timm.models.save_for_hf(model, net, model_args={"genotype": write_json(model.genotype)})
    with pytest.raises(DotsZooError, match=f"^{net}/config.json, genotype: {NEEDED}$"):
        resolve(str(net))
    load(EXAMPLE)
    assert resolve(str(net)).architecture == "cell_cifar"

"""Plug-ins by file, by module and by entry point: what they register is known, an error is one sentence."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm

import dots_zoo
from dots_zoo.commands.cli import main
from dots_zoo.data.datasets import DATASETS
from dots_zoo.genotype import OPS
from dots_zoo.macro import MACROS
from dots_zoo.plugins import load
from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.search.methods.registry import METHODS, register_method
from dots_zoo.search.space.named import SPACES, named_space
from helpers.paths import ROOT
from helpers.tables import tables_as_before

EXAMPLE = ROOT / "docs/examples/my_search.py"

EVERYTHING = """
from torch import nn

import dots_zoo
from dots_zoo.macro import cifar
from dots_zoo.search.methods import darts, darts_space

dots_zoo.register_operation(dots_zoo.Operation("my_pool", lambda c, stride, affine: nn.MaxPool2d(1, stride)))
dots_zoo.register_space(dots_zoo.NamedSpace("my_space", darts_space(("my_pool", "noise"), 1)))
dots_zoo.register_method(dots_zoo.Method("my_method", darts.DartsConfig, darts.stages, text="My title"))
dots_zoo.register_dataset(dots_zoo.Dataset("my_data", lambda options: None))
dots_zoo.register_macro(dots_zoo.MacroArchitecture("my_macro", cifar, channels=4, layers=3))
pairs = "[('my_pool', 0), ('skip_connect', 1)]"
text = f"Genotype(normal={pairs}, normal_concat=[2], reduce={pairs}, reduce_concat=[2])"
dots_zoo.register("my_network", text, macro="my_macro")
"""

ADD_POOL = """
import dots_zoo
from torch import nn

dots_zoo.register_operation(dots_zoo.Operation("my_pool", lambda c, stride, affine: nn.MaxPool2d(1, stride)))
"""


@pytest.fixture(autouse=True)
def _as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    modules = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    with tables_as_before():
        yield
    for name in set(sys.modules) - modules:
        if name.startswith("my_"):
            del sys.modules[name]


def write(path: str, text: str) -> str:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return path


def test_a_file_registers_whatever_can_be_registered_and_is_loaded_once(tmp_path: Path) -> None:
    write("my_file.py", EVERYTHING)
    load("my_file.py", Path("my_file.py"), tmp_path / "my_file.py")
    tables = {
        "my_pool": OPS,
        "my_space": SPACES,
        "my_method": METHODS,
        "my_data": DATASETS,
        "my_macro": MACROS,
    }
    assert {name for name, table in tables.items() if name in table} == set(tables)
    assert len(timm.create_model("my_network").cells) == 3
    assert METHODS["my_method"].title == "My title" and METHODS["darts"].title.startswith(
        "DARTS: one softmax"
    )
    assert OPS["my_pool"].plugin == OPS["my_pool"].origin == "my_file.py"
    assert not any(OPS[name].origin for name in ("none", "sep_conv_3x3", "nor_conv_1x1"))


def test_a_module_is_imported_and_named_by_its_dotted_name() -> None:
    write("site/my_package/__init__.py", "")
    write("site/my_package/cells.py", ADD_POOL)
    load("my_package.cells")
    load("my_package.cells")
    assert OPS["my_pool"].origin == "my_package.cells"


def test_an_operation_that_a_module_registered_by_itself_names_the_module() -> None:
    write("site/my_module.py", ADD_POOL)
    import my_module  # noqa: F401

    load("my_module")
    assert OPS["my_pool"].plugin == "" and OPS["my_pool"].origin == "my_module"


def install(text: str) -> None:
    write("site/my_installed.py", text)
    write("site/my_distribution-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: my_distribution\n")
    write("site/my_distribution-1.0.dist-info/entry_points.txt", "[dots_zoo.plugins]\npool = my_installed\n")


def test_an_installed_plug_in_is_loaded_by_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    install(ADD_POOL)
    assert main(["list", "--cells", "dots_cifar10"]) == 0
    assert OPS["my_pool"].origin == "my_installed"


def test_an_installed_plug_in_that_fails_names_its_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    install("1 / 0\n")
    assert main(["list", "--cells", "dots_cifar10"]) == 2
    sentence = capsys.readouterr().err
    assert "error: plug-in my_installed (installed by my_distribution), /" in sentence
    assert sentence.endswith("my_installed.py, line 1: ZeroDivisionError: division by zero\n")


TAKEN = ADD_POOL.replace("my_pool", "noise")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("import dots_zoo\ndef f(:\n", "line 2: SyntaxError: invalid syntax"),
        ("def f():\n  {}['a']\n\n\nf()\n", "line 2: KeyError: 'a'"),
        (
            "import torch\ntorch.zeros(2).view(3)\n",
            "line 2: RuntimeError: shape .* invalid for input of size 2",
        ),
        ("import my_missing\n", "line 1: ModuleNotFoundError: No module named 'my_missing'"),
        ("raise SystemExit(3)\n", "line 1: SystemExit: 3"),
        (
            TAKEN,
            "line 5: register operation: expected a new name, got 'noise', which is taken; choose another",
        ),
        ("import dots_zoo\ndots_zoo.register_operaton\n", "line 2: AttributeError: module 'dots_zoo' has no"),
    ],
)
def test_an_error_in_a_file_is_one_sentence_with_its_line(text: str, sentence: str) -> None:
    write("my_file.py", text)
    for _ in range(2):  # a file that failed is tried again
        with pytest.raises(DotsZooError, match=f"^plug-in my_file.py, {sentence}") as error:
            load("my_file.py")
        assert "\n" not in str(error.value)


def test_an_error_in_a_package_names_the_file_of_it() -> None:
    write("site/my_package/__init__.py", "from . import cells\n")
    write("site/my_package/cells.py", TAKEN)
    with pytest.raises(
        DotsZooError, match=r"^plug-in my_package, .*my_package/cells.py, line 5: register oper"
    ):
        load("my_package")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "my_fle.py",
            r"plug-in my_fle.py: expected a Python file, got nothing there \(nearest: my_file.py\)",
        ),
        ("my_folder.py", "plug-in my_folder.py: expected a Python file, got a folder"),
        (
            "my_file",
            "plug-in my_file: expected a module that can be imported, got none: .*--plugin my_file.py",
        ),
        ("my_other", "plug-in my_other: expected a module that .*, got none: install it, or give its file"),
        ("my_other.part", "plug-in my_other.part: expected a module that can be imported, got none"),
        ("a/b", "--plugin: expected a file FILE.py or the name of a module, got 'a/b'"),
        ("", "--plugin: expected a file FILE.py or the name of a module, got ''"),
        ("other/my_file.py", "expected a new file name, got that of .*, which is loaded: rename it"),
    ],
)
def test_what_is_no_plug_in_is_refused_with_what_to_give(name: str, sentence: str) -> None:
    write("my_file.py", "")
    write("other/my_file.py", "")
    Path("my_folder.py").mkdir()
    load("my_file.py")
    with pytest.raises(DotsZooError, match=sentence):
        load(name)


def test_an_option_without_a_value_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--plugin"]) == 2
    assert "--plugin: expected a file FILE.py or the name of a module" in capsys.readouterr().err


def test_an_unknown_name_says_how_ones_own_are_loaded() -> None:
    with pytest.raises(DotsZooError, match="space: expected .*; one of your own comes with --plugin FILE"):
        named_space("mine")


def test_calls_of_search_and_data_are_names_of_dots_zoo() -> None:
    assert dots_zoo.register_method is register_method
    assert set(dots_zoo.ON_FIRST_USE) <= set(dir(dots_zoo))
    with pytest.raises(AttributeError, match="module 'dots_zoo' has no attribute 'register_methods'"):
        dots_zoo.register_methods  # noqa: B018


@pytest.mark.processes
def test_a_method_is_loaded_where_no_extra_is_installed() -> None:
    """A genotype of a plug-in is exported on a machine that never searches."""
    code = (
        "import sys\n"
        "absent = 'accelerate numba sklearn scipy tensorboard matplotlib'.split()\n"
        "sys.modules.update(dict.fromkeys(absent))\n"
        "import dots_zoo\n"
        f"dots_zoo.plugins.load({str(EXAMPLE)!r})\n"
        "pairs = \"[('depthwise_3x3', 0), ('skip_connect', 1)]\"\n"
        "text = f'Genotype(normal={pairs}, normal_concat=[2], reduce={pairs}, reduce_concat=[2])'\n"
        "print(dots_zoo.load_genotype(text).normal.edges[0].op)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (answer.stdout, answer.returncode) == ("depthwise_3x3\n", 0), answer.stderr


def test_the_example_can_be_read_at_once() -> None:
    assert len(EXAMPLE.read_text("utf-8").splitlines()) <= 40

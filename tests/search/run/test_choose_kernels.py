"""Whether kernels are installed is decided once for a search and its seeds, printed, and kept."""

import pytest
import yaml

from dots_zoo.data.datasets import ImageData
from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.search.methods.registry import Derivation
from dots_zoo.search.run.run import run_search
from dots_zoo.search.run.seeds import search_seeds
from dots_zoo.search.supernet import install_kernels
from helpers.toy_search import PLANTED_SPACE, toy_config, toy_data, toy_training

EPOCHS = 2  # of 4 steps: 128 images, half of them in batches of 16
LONG = 10**6  # epochs that kernels pay for


class Stop(Exception):
    """As if a search ended before its first step."""


class OutOfReach(ImageData):
    """Images of which no batch can be read."""

    def train_batch(self, *arguments, **options):
        raise Stop


def searched(folder, kernels="auto", method="darts", epochs=EPOCHS, data=None, **options):
    training = toy_training(kernels=kernels, batch_size=16)
    config = toy_config(method, epochs=epochs, warm_up=0, training=training)
    return run_search(
        method, config, Derivation(), PLANTED_SPACE, data or toy_data(128), folder, progress=False, **options
    )


def decided(folder, capsys, **options):
    """What a long search prints before its first step."""
    with pytest.raises(Stop):
        searched(folder, epochs=LONG, data=OutOfReach(**vars(toy_data(128))), **options)
    return capsys.readouterr().out


def kept(folder):
    return yaml.safe_load((folder / "config.yaml").read_text())["training"]["kernels"]


def test_kernels_are_off_where_compiling_takes_longer_than_the_steps_that_are_planned(tmp_path, capsys):
    first = searched(tmp_path / "run")
    line = "kernels: off, which save about 0 s in 8 steps and take 10 s to compile\n"
    assert capsys.readouterr().out == line and kept(tmp_path / "run") == "off"
    assert searched(tmp_path / "run", resume=True) == searched(tmp_path / "run", "off", resume=True) == first
    with pytest.raises(DotsZooError, match="made with training.kernels 'off', expected 'on'"):
        searched(tmp_path / "run", "on", resume=True)


def test_a_search_that_is_resumed_keeps_the_decision(tmp_path, capsys):
    folder = tmp_path / "run"
    assert decided(folder, capsys).startswith("kernels: on, which save about") and kept(folder) == "on"
    for kernels, printed in (("auto", f"kernels: on, as in {folder / 'config.yaml'}\n"), ("on", "")):
        assert decided(folder, capsys, kernels=kernels, resume=True) == printed and kept(folder) == "on"


def test_all_seeds_of_a_study_share_one_decision(tmp_path, capsys):
    """The steps of all of them count."""
    training = toy_training(batch_size=16)
    study = "darts", toy_config("darts", epochs=EPOCHS, warm_up=0, training=training), Derivation()
    for resume in (False, True):
        options = {"progress": False, "resume": resume}
        search_seeds([3, 4], *study, PLANTED_SPACE, toy_data(128), tmp_path, **options)
        reason = f"as in {tmp_path}/seed3/config.yaml" if resume else "which save about 0 s in 16 steps"
        out = capsys.readouterr().out
        assert out.startswith(f"kernels: off, {reason}") and out.count("kernels: off") == 2
    assert [kept(tmp_path / f"seed{seed}") for seed in (3, 4)] == ["off", "off"]


def test_a_method_that_computes_one_operation_of_an_edge_saves_less(tmp_path, capsys):
    saved = {name: decided(tmp_path / name, capsys, method=name).split()[5] for name in ("darts", "gdas")}
    assert 0 < float(saved["gdas"]) < float(saved["darts"])


def test_without_numba_they_are_off_and_cannot_be_on(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(install_kernels, "find_spec", lambda name: None)
    assert decided(tmp_path / "run", capsys) == "kernels: off, numba, which compiles them, is not installed\n"
    message = "training.kernels on: expected a CPU with numba installed, got a CPU without it; choose auto or"
    with pytest.raises(DotsZooError, match=message):
        searched(tmp_path / "on", "on")
    assert not (tmp_path / "on").exists()

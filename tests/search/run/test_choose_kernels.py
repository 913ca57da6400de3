"""Whether kernels are installed is decided once for a search and its seeds, printed, and kept."""

import pytest
import yaml

from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.search.methods.registry import Derivation
from dots_zoo.search.run import choose_kernels
from dots_zoo.search.run.run import search
from dots_zoo.search.run.seeds import search_seeds
from dots_zoo.search.supernet import install_kernels
from helpers.toy_search import PLANTED_SPACE, toy_config, toy_data, toy_training

EPOCHS = 2  # of 4 steps: 128 images, half of them in batches of 16


def searched(folder, kernels="auto", method="darts", **options):
    training = toy_training(kernels=kernels, batch_size=16)
    config = toy_config(method, epochs=EPOCHS, warm_up=0, training=training)
    return search(
        method, config, Derivation(), PLANTED_SPACE, toy_data(128), folder, progress=False, **options
    )


def kept(folder):
    return yaml.safe_load((folder / "config.yaml").read_text())["training"]["kernels"]


def test_kernels_are_off_where_compiling_takes_longer_than_the_steps_that_are_planned(tmp_path, capsys):
    searched(tmp_path / "run")
    line = "kernels: off, which save about 0 s in 8 steps and take 30 s to compile\n"
    assert capsys.readouterr().out == line and kept(tmp_path / "run") == "off"


def test_a_search_that_is_resumed_keeps_the_decision(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "run"
    monkeypatch.setattr(choose_kernels, "COMPILE_SECONDS", 0.0)
    first = searched(folder)
    assert capsys.readouterr().out.startswith("kernels: on, which save about") and kept(folder) == "on"
    monkeypatch.setattr(choose_kernels, "COMPILE_SECONDS", 1e9)
    assert searched(folder, resume=True) == first and searched(folder, "on", resume=True) == first
    assert capsys.readouterr().out == f"kernels: on, as in {folder / 'config.yaml'}\n"
    with pytest.raises(DotsZooError, match="made with training.kernels 'on', expected 'off'"):
        searched(folder, "off", resume=True)


def test_all_seeds_of_a_study_share_one_decision(tmp_path, capsys, monkeypatch):
    """The steps of all of them count."""
    training = toy_training(batch_size=16)
    study = "darts", toy_config("darts", epochs=EPOCHS, warm_up=0, training=training), Derivation()
    for resume in (False, True):
        options = {"progress": False, "resume": resume}
        search_seeds([3, 4], *study, PLANTED_SPACE, toy_data(128), tmp_path, **options)
        reason = f"as in {tmp_path}/seed3/config.yaml" if resume else "which save about 0 s in 16 steps"
        out = capsys.readouterr().out
        assert out.startswith(f"kernels: off, {reason}") and out.count("kernels") == 1
        monkeypatch.setattr(choose_kernels, "COMPILE_SECONDS", 0.0)
    assert [kept(tmp_path / f"seed{seed}") for seed in (3, 4)] == ["off", "off"]


def test_a_method_that_computes_one_operation_of_an_edge_saves_less(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(choose_kernels, "COMPILE_SECONDS", 1e9)
    monkeypatch.setattr(choose_kernels, "SAVED_SECONDS", 1e6)
    saved = {}
    for method in ("darts", "gdas"):
        searched(tmp_path / method, method=method)
        saved[method] = float(capsys.readouterr().out.split()[5])
    assert 0 < saved["gdas"] < saved["darts"]


def test_without_numba_they_are_off_and_cannot_be_on(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(install_kernels, "find_spec", lambda name: None)
    monkeypatch.setattr(choose_kernels, "COMPILE_SECONDS", 0.0)
    searched(tmp_path / "run")
    assert capsys.readouterr().out == "kernels: off, numba, which compiles them, is not installed\n"
    message = "training.kernels on: expected a CPU with numba installed, got a CPU without it; choose auto or"
    with pytest.raises(DotsZooError, match=message):
        searched(tmp_path / "on", "on")
    assert not (tmp_path / "on").exists()

"""The retraining loop: what it minimises, on which images, that it learns, and that it can be interrupted."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from dots_zoo.data.augment import Augmentation
from dots_zoo.data.datasets import ImageData
from dots_zoo.network import CellNet
from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.train.loop import Checkpoint, ahead, fit, loss_of
from dots_zoo.train.recipe import Recipe
from dots_zoo.train.score import score
from dots_zoo.train.split import split, with_batch_that_fits
from dots_zoo.train.state import Row, State, best_epoch
from helpers.striped_images import PLAIN, shades, shades_of, stripes


def net(**kwargs: Any) -> CellNet:
    torch.manual_seed(0)
    return CellNet("darts_v1", "cifar", 4, 3, num_classes=2, **kwargs)


def train(recipe: Recipe, data: ImageData | None = None, **kwargs: Any) -> State:
    return fit(net(), data or stripes(), recipe, progress=False, **kwargs)


def parameters(model: torch.nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_it_learns_and_reports_each_epoch() -> None:
    seen: list[list[Row]] = []
    state = train(replace(PLAIN, epochs=4), on_epoch=lambda history: seen.append(list(history)))
    assert [len(history) for history in seen] == [1, 2, 3, 4] and seen[-1] == state.history
    assert [row["epoch"] for row in state.history] == [0, 1, 2, 3]
    assert state.history[-1]["loss"] < state.history[0]["loss"]
    assert state.history[-1]["test_accuracy"] > 0.8 and state.history[-1]["test_images"] == 32


def test_evaluations_come_when_asked_and_after_the_last_epoch() -> None:
    for every, expected in ((1, [0, 1, 2]), (2, [1, 2]), (0, [2])):
        history = train(replace(PLAIN, epochs=3, evaluate_every=every)).history
        assert [row["epoch"] for row in history if "test_loss" in row] == expected


def test_every_image_is_used_once_an_epoch_and_never_one_that_is_held_out() -> None:
    model, data, used = net(), shades(), []

    def see(module: torch.nn.Module, inputs: tuple[Tensor]) -> None:
        if module.training:
            used.append(shades_of(inputs[0]))

    model.register_forward_pre_hook(see)
    state = fit(model, data, replace(PLAIN, validation=16), progress=False)
    assert len(used) == 6 and sorted(sum(used[:3], [])) == sorted(sum(used[3:], [])) == list(range(48))
    assert used[0] != used[3] and sorted(used[0]) != used[0]
    result = score(state.model, data, Accelerator(), held_out=torch.arange(48, 64), batch_size=5)
    assert state.history[-1]["validation_accuracy"] == result.accuracy and result.images == 16
    assert state.history[-1]["validation_loss"] == pytest.approx(result.loss, rel=1e-5)


def by_class(count: int, classes: int) -> ImageData:
    """Images that come class by class, as those of a folder, of which class 0 has half."""
    labels = torch.arange(count).clamp(min=count // 2).sub(count // 2) * classes // (count // 2 + 1)
    return replace(shades(count), labels=labels, classes=classes)


def test_images_are_held_out_at_the_end_or_at_the_end_of_every_class() -> None:
    parts = split(shades(), replace(PLAIN, validation=0.25))
    assert parts.validation is not None and parts.validation.tolist() == list(range(48, 64))
    assert split(shades(), PLAIN).validation is None
    data = by_class(60, 3)
    sizes = data.labels.bincount().tolist()
    assert sizes[0] > 2 * sizes[1] > 0 and data.labels.tolist() == sorted(data.labels.tolist())
    parts = split(data, replace(PLAIN, validation=12))
    assert parts.validation is not None and len(parts.validation) == 12
    held_out = data.labels[parts.validation].bincount().tolist()
    assert all(abs(12 * size / 60 - held) < 1 for size, held in zip(sizes, held_out, strict=True))
    assert sorted([*parts.training.tolist(), *parts.validation.tolist()]) == list(range(60))
    for label in range(3):  # the last of each class
        held, kept = (part[data.labels[part] == label] for part in (parts.validation, parts.training))
        assert held.min() > kept.max()


def test_a_batch_is_cut_to_the_training_images() -> None:
    data, recipe = stripes(), replace(PLAIN, batch_size=100, validation=16)
    assert with_batch_that_fits(recipe, data, 1).batch_size == 48
    assert with_batch_that_fits(recipe, data, 5).batch_size == 45
    assert with_batch_that_fits(PLAIN, data, 1) is PLAIN
    with pytest.raises(DotsZooError, match="expected 80 training images or more, got 48"):
        with_batch_that_fits(recipe, data, 40)


def row(epoch: int, accuracy: float, loss: float) -> Row:
    return {"epoch": epoch, "validation_accuracy": accuracy, "validation_loss": loss}


def test_the_best_epoch_has_the_highest_accuracy_and_of_equals_the_lowest_loss() -> None:
    assert best_epoch([row(0, 0.5, 1.0), row(1, 0.9, 2.0), row(2, 0.9, 1.5), row(3, 0.8, 0.1)]) == 2
    assert best_epoch([row(0, 0.9, 1.5), row(1, 0.9, 1.5)]) == 0
    assert best_epoch([{"epoch": 0, "test_accuracy": 1.0}]) is None


def test_the_weights_of_the_best_epoch_are_kept_beside_the_last_and_resumed(tmp_path: Path) -> None:
    recipe = replace(PLAIN, epochs=4, validation=16, learning_rate=0.4, ema_decay=0.5)
    kept, steps = Checkpoint(tmp_path / "c", 0.0), iter(range(10))

    def end(module: torch.nn.Module, inputs: Any) -> None:
        if module.training and next(steps, None) is None:
            raise Stop

    whole = train(recipe)
    stopped = net()
    stopped.register_forward_pre_hook(end)
    with pytest.raises(Stop):
        fit(stopped, stripes(), recipe, checkpoint=kept, progress=False)
    resumed = train(recipe, checkpoint=kept)
    assert whole.best.keys() == resumed.best.keys()
    for name, tensor in whole.best.items():
        assert torch.equal(resumed.best[name], tensor), name
    best = best_epoch(whole.history)
    network = net()
    network.load_state_dict(whole.best)
    held_out = torch.arange(48, 64)
    result = score(network, stripes(), Accelerator(), held_out=held_out)
    assert best is not None and result.accuracy == whole.history[best]["validation_accuracy"]
    assert result.loss == pytest.approx(whole.history[best]["validation_loss"], rel=1e-5)
    assert not train(replace(recipe, evaluate_every=0)).best and not train(PLAIN).best


def test_the_network_sees_growing_images_and_is_evaluated_on_whole_ones() -> None:
    model, seen = net(), []
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[-1]))
    fit(model, stripes(), replace(PLAIN, epochs=3, first_size=4, growing_epochs=2), progress=False)
    trained, evaluated = [4, 4, 8], 8  # fours: two pixels more are none yet
    assert seen == [side for epoch in trained for side in [epoch] * 4 + [evaluated]]


def test_the_auxiliary_loss_is_weighted() -> None:
    model, data = net(aux_head=True).train(), stripes()
    images, labels = data.plain_batch(torch.arange(16)), data.labels[:16]
    plain, half, whole = (
        loss_of(model, images, labels, replace(PLAIN, aux_weight=weight))[0] for weight in (0.0, 0.5, 1.0)
    )
    assert half.item() > plain.item()
    torch.testing.assert_close(whole - plain, 2 * (half - plain))


def test_gradients_are_clipped() -> None:
    recipe = replace(PLAIN, epochs=1, batch_size=64, learning_rate=1.0, momentum=0.0, weight_decay=0.0)
    before = parameters(net())
    for clip, expected in ((1e-3, 1e-3), (2e-3, 2e-3)):
        moved = parameters(train(replace(recipe, clip=clip)).model) - before
        assert moved.norm().item() == pytest.approx(expected, rel=1e-2)
    assert (parameters(train(replace(recipe, clip=0.0)).model) - before).norm().item() > 1e-2


def test_the_average_of_the_weights_is_kept_and_evaluated() -> None:
    recipe = replace(PLAIN, epochs=1, batch_size=16, ema_decay=0.5)
    state = train(recipe)
    assert state.ema is not None and state.kept is state.ema.module
    assert not torch.equal(parameters(state.kept), parameters(state.model))
    result = score(state.kept, stripes(), Accelerator())
    assert state.history[-1]["test_loss"] == pytest.approx(result.loss)
    assert score(state.model, stripes(), Accelerator()).loss != pytest.approx(result.loss)


class SharesOfWhite(torch.nn.Module):
    """Takes the share of white of an image for the probability of class 1, and keeps what it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.seen = torch.nn.Parameter(torch.ones(())), []

    def set_drop_path(self, rate: float) -> None:
        pass

    def forward(self, images: Tensor) -> Tensor:
        white = (images.mean((1, 2, 3)) * 0.3 + 0.4).clamp(1e-6, 1 - 1e-6)
        if self.training:
            self.seen.append(white)
        return self.scale * torch.stack([1 - white, white], 1).log()


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_mixed_images_have_mixed_targets(mix: str) -> None:
    """The cross-entropy of shares p with targets t is least, and the entropy of p, where t = p."""
    plain, model = stripes(), SharesOfWhite()
    white = (255 * plain.labels).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8).contiguous()
    recipe = replace(PLAIN, epochs=1, learning_rate=1e-9, **{mix: 1.0})
    [row] = fit(model, replace(plain, images=white), recipe, progress=False).history  # type: ignore[arg-type]
    shares = torch.cat(model.seen)
    assert row["loss"] == pytest.approx(
        torch.distributions.Bernoulli(shares).entropy().mean().item(), rel=1e-3
    )
    assert ((0.1 < shares) & (shares < 0.9)).any()


def test_it_leaves_the_callers_random_state_alone_and_does_not_depend_on_it() -> None:
    recipe, results = replace(PLAIN, epochs=1, drop_path_rate=0.3, mixup=0.2), []
    for seed in (1, 2):
        model = net()
        torch.manual_seed(seed)
        expected = torch.random.get_rng_state()
        results.append(parameters(fit(model, stripes(), recipe, progress=False).model))
        assert torch.equal(torch.random.get_rng_state(), expected)
    assert torch.equal(*results)
    other = fit(net(), stripes(), replace(recipe, seed=1), progress=False)
    assert not torch.equal(parameters(other.model), results[0])


class Stop(Exception):
    """As if the process ended here."""


@pytest.mark.parametrize("stop", [1, 3, 4, 6])
def test_a_training_that_goes_on_ends_with_the_same_bits(stop: int, tmp_path: Path) -> None:
    recipe = replace(PLAIN, drop_path_rate=0.3, ema_decay=0.9, mixup=0.2, augmentation=Augmentation())
    whole, kept, steps = train(recipe), Checkpoint(tmp_path / "c", 0.0, {"model": "a"}), iter(range(stop))

    def end(module: torch.nn.Module, inputs: Any) -> None:
        if module.training and next(steps, None) is None:
            raise Stop

    stopped = net()
    stopped.register_forward_pre_hook(end)
    with pytest.raises(Stop):
        fit(stopped, stripes(), recipe, checkpoint=kept, progress=False)
    resumed = train(recipe, checkpoint=kept)
    for name in ("model", "kept"):
        for key, value in getattr(whole, name).state_dict().items():
            assert torch.equal(getattr(resumed, name).state_dict()[key], value), key
    left, right = ([{**row, "seconds": 0} for row in state.history] for state in (resumed, whole))
    assert left == right


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    kept = Checkpoint(tmp_path / "c", 0.0, {"model": "a"})
    train(replace(PLAIN, epochs=1), checkpoint=kept)
    with pytest.raises(DotsZooError, match=r"made with recipe.batch_size 16, expected 32; pass the same"):
        train(replace(PLAIN, epochs=1, batch_size=32), checkpoint=kept)
    with pytest.raises(DotsZooError, match="made with model 'a', expected 'b'"):
        train(replace(PLAIN, epochs=1), checkpoint=replace(kept, identity={"model": "b"}))
    for path in kept.folder.iterdir():
        path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(
        DotsZooError, match=r"not a checkpoint .*; no other is left: remove .*c to begin anew"
    ):
        train(replace(PLAIN, epochs=1), checkpoint=kept)


def test_a_loss_that_is_not_finite_stops_and_is_not_kept(tmp_path: Path) -> None:
    kept = Checkpoint(tmp_path / "c", 0.0)
    with pytest.raises(DotsZooError, match="not finite in epoch 0; lower learning_rate or clip$"):
        train(PLAIN, replace(stripes(), std=(0.0,) * 3), checkpoint=kept)
    assert not kept.folder.exists()


def test_a_training_that_is_told_to_end_keeps_its_step_and_goes_on(tmp_path: Path) -> None:
    kept = Checkpoint(tmp_path / "c", stop=lambda: True)
    with pytest.raises(SystemExit) as ended:
        train(PLAIN, checkpoint=kept)
    assert ended.value.code == 143 and len(list(kept.folder.iterdir())) == 1
    resumed, whole = train(PLAIN, checkpoint=replace(kept, stop=lambda: False)), train(PLAIN)
    for key, value in whole.kept.state_dict().items():
        assert torch.equal(resumed.kept.state_dict()[key], value), key


@pytest.mark.parametrize(
    ("changes", "classes", "message"),
    [
        ({"batch_size": 65}, 2, "expected 65 images .* got 64 images"),
        ({"validation": 60}, 2, "expected 16 images .* got 4 images"),
        ({"validation": 80}, 2, "expected some of the 64 training images, but not all, got 80"),
        ({"validation": 0.001}, 2, "expected some of the 64 training images, but not all, got 0.001"),
        ({"first_size": 9, "growing_epochs": 1}, 2, "the side of the images or less, 8, got 9"),
        ({"validation": 1}, 2, "expected images of all 2 classes among the 1 training .* got 1"),
    ],
)
def test_images_that_do_not_suffice_are_refused(changes: dict[str, Any], classes: int, message: str) -> None:
    with pytest.raises(DotsZooError, match=message):
        split(stripes(classes=classes), replace(PLAIN, **changes))
    with pytest.raises(DotsZooError, match="a batch that 3 processes can share"):
        split(stripes(), PLAIN, processes=3)


def test_ahead_gives_the_same_items_and_passes_errors_on() -> None:
    assert list(ahead(range(5))) == [0, 1, 2, 3, 4] and list(ahead([])) == []

    def broken() -> Any:
        yield 1
        raise DotsZooError("no more")

    with pytest.raises(DotsZooError, match="no more"):
        list(ahead(broken()))


def test_bf16_computes_under_autocast() -> None:
    model, logits = net(), []
    model.register_forward_hook(lambda module, inputs, output: logits.append(output.dtype))
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        fit(model, stripes(), replace(PLAIN, epochs=1, precision="bf16"), progress=False)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    assert set(logits) == {torch.bfloat16}
    assert all(p.dtype == torch.float32 for p in model.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = loss_of(model, torch.rand(2, 3, 8, 8), torch.arange(2), PLAIN)
    assert loss.dtype == torch.float32

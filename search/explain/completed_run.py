"""A completed search, read back from its folder: its settings, and its state after a stage.

The folder's last checkpoint is the search at its end; `stages/operation` and `stages/topology` hold it at the
end of these searches, where others followed (`methods.plan`). Nothing here writes into the folder.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml  # type: ignore[import-untyped]

from dots_zoo.data.datasets import Data, DataOptions
from dots_zoo.data.load import load_data
from dots_zoo.genotype import Genotype, load_genotype
from dots_zoo.runtime.checkpoint_files import load_state
from dots_zoo.runtime.config import build
from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.runtime.table import PLUGIN_HINT, look_up

from ..methods.registry import METHODS, Derivation, plan
from ..space.named import named_space
from ..stages.checkpoint import restore_run_state
from ..stages.loop import run_of
from ..stages.stage import Relaxation, Run, Search, Stage, StepIndex
from ..stages.validate import measure
from ..supernet import Mixture
from ..supernet.install_kernels import can_install

End = Literal["operation", "topology"]
NEEDED = ("genotype.json", "run.json", "config.yaml", "metrics.jsonl")


@dataclass(frozen=True)
class StageSnapshot:
    """A search at the end of a stage, with everything that computing with it takes.

    Args:
        run: the constants of the run.
        stage: that has ended.
        search: its state.
        step_index: of the stage's last epoch, for its schedules.
    """

    run: Run
    stage: Stage
    search: Search
    step_index: StepIndex

    @property
    def relaxation(self) -> Relaxation:
        return self.stage.relax(self.search)

    def weights(self) -> dict[str, Any]:
        """Return the weights by which decisions are taken, by the name of their logits."""
        logits = {name: tensor.detach() for name, tensor in self.search.logits.items()}
        return dict(self.relaxation.compute_weights(logits, self.step_index))

    def mixture(self) -> Mixture:
        """Return the mixture of the supernet under these weights."""
        return self.relaxation.build_mixture(self.weights(), self.step_index)

    def measure(self, mixture: Mixture) -> tuple[float, float]:
        """Return loss and accuracy of the supernet on the validation split."""
        return measure(self.run, self.search.supernet, mixture, self.stage.batch_size, self.step_index)

    def limited(self, images: int | None) -> "StageSnapshot":
        """Return the same with only the first images of the validation split; all of them for None.

        Raises:
            DotsZooError: if there are fewer images.
        """
        part = self.run.parts["b"]
        if images is not None and not 1 <= images <= len(part):
            raise DotsZooError(
                f"image_count: expected 1 to {len(part)}, the images of the validation split, got {images}"
            )
        return replace(self, run=replace(self.run, parts={**self.run.parts, "b": part[:images]}))


@dataclass(frozen=True)
class CompletedRun:
    """The folder of a completed search: its settings, the facts of its run.json, its cells."""

    folder: Path
    settings: Mapping[str, Any]
    facts: Mapping[str, Any]
    genotype: Genotype

    @property
    def method(self) -> str:
        return str(self.facts["method"])

    @cached_property
    def config(self) -> Any:
        return _built(self.folder, METHODS[self.method].config, self.settings)

    @cached_property
    def derivation(self) -> Derivation:
        derivation: Derivation = _built(self.folder, Derivation, self.settings)
        return derivation

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        space = named_space(self.settings["space"])
        return plan(self.method, self.config, self.derivation, space)

    @cached_property
    def data(self) -> Data:
        return load_data(_built(self.folder, DataOptions, self.settings))

    def lines(self) -> Sequence[Mapping[str, Any]]:
        """Return the lines of metrics.jsonl."""
        text = (self.folder / "metrics.jsonl").read_text("utf-8")
        return [json.loads(line) for line in text.splitlines()]

    def last_stage(self, end: End) -> int:
        """Return the index of the last stage of the operation search or of the topology search."""
        kept = [index for index, stage in enumerate(self.stages) if stage.saved_as == end]
        return kept[0] if kept else len(self.stages) - 1

    def snapshot(self, end: End) -> StageSnapshot:
        """Return the search at the end of its operation search or its topology search, reloaded each time.

        Raises:
            DotsZooError: if it was not saved, or none of its weights was ever trained.
        """
        index = self.last_stage(end)
        stage, last = self.stages[index], index == len(self.stages) - 1
        folder = self.folder / "checkpoint" if last else self.folder / "stages" / end
        saved = load_state(folder, {"method": self.method, **self.settings})
        if saved is None:
            raise DotsZooError(
                f"{folder}: expected the search as its {end} search left it, got nothing; it was made by an "
                "earlier dots_zoo or the file was removed: search again"
            )
        run = run_of(self.config.training, self.data)
        if not can_install(run.accelerator.device):  # the state of a search on a CPU works elsewhere, too
            run = replace(run, kernels=False)
        run_state = restore_run_state(saved, run)
        if run_state.progress.stage != index or run_state.progress.done != max(1, stage.epochs):
            raise DotsZooError(f"{saved.path}: expected the end of stage {stage.name!r}; {UNFINISHED}")
        if not run_state.progress.epoch:
            raise DotsZooError(
                f"{self.folder}: {self.method} of 0 epochs trained no weights: there is nothing to analyse"
            )
        awake = replace(run_state.search, resting={})  # an analysis may weigh resting operations
        return StageSnapshot(run, stage, awake, StepIndex(run.seed, run_state.progress.epoch - 1))


UNFINISHED = "the search has not ended: resume it with --resume"


def read_completed_run(folder: Path) -> CompletedRun:
    """Return the search in a folder.

    Raises:
        DotsZooError: if it is not one that is complete.
    """
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if (folder / "seeds.json").is_file():
        raise DotsZooError(f"{folder}: holds searches of several seeds: pass one of its folders, as seed0")
    if "config.yaml" not in missing and missing:
        raise DotsZooError(f"{folder}: expected {', '.join(missing)}; {UNFINISHED}")
    if missing:
        there = "a file" if folder.exists() else "nothing there"
        got = f"one without {', '.join(missing)}" if folder.is_dir() else there
        raise DotsZooError(f"{folder}: expected the folder of a completed search, got {got}")
    try:
        settings = yaml.safe_load((folder / "config.yaml").read_text("utf-8"))
        facts = json.loads((folder / "run.json").read_text("utf-8"))
        method = facts["method"]
        incomplete = not isinstance(method, str) or not {"space", "data"} <= settings.keys()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise DotsZooError(
            f"{folder}: config.yaml and run.json are not those of a search ({error})"
        ) from error
    if incomplete:
        raise DotsZooError(
            f"{folder}/config.yaml: expected a method of dots_zoo, a space by name and a data set by name, "
            f"got method {method} and {', '.join(sorted(settings)) or 'nothing'}"
        )
    look_up(METHODS, method, f"{folder}/run.json, method", PLUGIN_HINT)
    return CompletedRun(folder, settings, facts, load_genotype(folder / "genotype.json"))


def _built(folder: Path, config_class: type[Any], settings: Mapping[str, Any]) -> Any:
    try:
        return build(config_class, settings)
    except (KeyError, TypeError) as error:
        raise DotsZooError(
            f"{folder}/config.yaml: not the settings of this dots_zoo ({error}); search again"
        ) from error

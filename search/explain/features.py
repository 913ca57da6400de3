"""Clusters of an edge's operations by the similarity of their feature maps.

Source: DropNAS (IJCAI 2020), Sec. 2.2, Fig. 1 and Fig. 4: 1,000 random images, the maps of every operation
but none on edge 2<-0 in the first and in the last cell, K-means into 3 clusters, PCA for the picture. An
operation is one point: its maps of all images, after its batch norm, without its weight. The correlation of
two operations is Pearson's over all pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import torch
from matplotlib.figure import Figure
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from torch import Tensor, nn

from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.runtime.progress import steps_bar
from dots_zoo.runtime.seeding import generator, seeded

from ..stages.config import require_at_least
from ..stages.validate import batch_statistics
from ..supernet import MixedOp, Nodes, without_kernels
from .completed_run import CompletedRun, StageSnapshot
from .edge_option import EdgeConfig, SelectedEdge, select_edge
from .shuffle import searched_cells


@dataclass(frozen=True)
class FeaturesConfig:
    """Clusters of the feature maps of an edge's operations (DropNAS Fig. 1 and 4).

    Args:
        edge: the edge, and its operations.
        cell: the first of its type from the input on, or the last.
        clusters: of K-means.
        image_count: images of the validation split, drawn at random; all where there are fewer.
        seed: of the images and of K-means.
    """

    edge: EdgeConfig = field(default_factory=EdgeConfig)
    cell: Literal["first", "last"] = "first"
    clusters: int = 3
    image_count: int = 1000  # Fig. 1
    seed: int = 0

    def __post_init__(self) -> None:
        require_at_least("", clusters=(self.clusters, 1), image_count=(self.image_count, 1))


def explain(completed_run: CompletedRun, config: FeaturesConfig, progress: bool) -> dict[str, Any]:
    """Cluster the feature maps of the supernet at the end of its operation search."""
    snapshot = completed_run.snapshot("operation")
    selected = select_edge(snapshot.search, config.edge)
    with steps_bar(1, show=progress) as bar:
        maps = maps_of(snapshot, selected, config)
        bar.update()
    return clustered(maps, config.clusters, config.seed) | {
        "edge": {"cell_type": selected.cell_type, "edge": selected.title, "cell": config.cell},
        "images": len(next(iter(maps.values()))),
    }


def maps_of(snapshot: StageSnapshot, selected: SelectedEdge, config: FeaturesConfig) -> dict[str, Tensor]:
    """Return the maps of every operation in the chosen cell, unweighted, (N, C, H, W).

    They are those of images of the validation split.
    """
    supernet = without_kernels(snapshot.search.supernet)
    cells = [cell for cell_type, cell in searched_cells(supernet) if cell_type == selected.cell_type]
    edge = cast(Nodes, cells[0 if config.cell == "first" else -1].nodes).edges[selected.row]
    split = snapshot.run.parts["b"]
    order = torch.randperm(len(split), generator=generator(config.seed, "features"))[: config.image_count]
    chosen = split[order].to(snapshot.run.accelerator.device)
    operations = [(c, n) for c, n in zip(selected.columns, selected.names, strict=True) if n != "none"]
    collected: dict[str, list[Tensor]] = {name: [] for _, name in operations}

    def note(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        for column, name in operations:
            collected[name].append(cast(MixedOp, module).candidate(column, arguments[0]).float().cpu())

    hook = edge.register_forward_pre_hook(note)
    draws = seeded(chosen.device, config.seed, "features")
    try:
        with torch.no_grad(), batch_statistics(supernet), draws:
            for part in chosen.tensor_split(max(1, round(len(chosen) / snapshot.stage.batch_size))):
                supernet(snapshot.run.data.plain_batch(part), snapshot.mixture())
    finally:
        hook.remove()
    return {name: torch.cat(maps) for name, maps in collected.items()}


def clustered(maps: Mapping[str, Tensor], clusters: int, seed: int) -> dict[str, Any]:
    """Return cluster, position in the plane and correlations of every operation.

    Raises:
        DotsZooError: if there are fewer operations than clusters.
    """
    if not 1 <= clusters <= len(maps):
        raise DotsZooError(f"clusters: expected 1 to {len(maps)}, one an operation at most, got {clusters}")
    points = torch.stack([tensor.flatten() for tensor in maps.values()]).double()  # (operations, pixels)
    labels = KMeans(clusters, n_init=10, random_state=seed).fit_predict(points.numpy()).tolist()
    flat = PCA(2, svd_solver="full").fit(points.numpy())
    plane = flat.transform(points.numpy()).tolist()
    names = list(maps)
    first = list(dict.fromkeys(labels))  # clusters are numbered as they come up
    return {
        "operations": names,
        "cluster": {name: first.index(label) for name, label in zip(names, labels, strict=True)},
        "plane": dict(zip(names, plane, strict=True)),
        "explained_variance": flat.explained_variance_ratio_.tolist(),
        "correlation": _correlations(points),
        "alone": [name for name, label in zip(names, labels, strict=True) if labels.count(label) == 1],
    }


def _correlations(points: Tensor) -> list[list[float]]:
    """Return Pearson's correlation of every two rows; 0 where a row is constant."""
    centred = points - points.mean(dim=1, keepdim=True)
    unit = centred / centred.norm(dim=1, keepdim=True).clamp_min(1e-12)
    correlations: list[list[float]] = (unit @ unit.T).tolist()
    return correlations


def draw(figures: dict[str, Any]) -> Figure:
    """Plot the operations in the plane, coloured by cluster, and the matrix of their correlations."""
    figure = Figure(figsize=(12, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = figures["operations"]
    for name in names:
        x, y = figures["plane"][name]
        left.scatter(x, y, color=f"C{figures['cluster'][name]}")
        left.annotate(name, (x, y), textcoords="offset points", xytext=(4, 4), fontsize=8)
    where = figures["edge"]
    left.set_title(
        f"{where['edge']} of the {where['cell']} {where['cell_type']} cell: clusters, first two axes"
    )
    left.margins(0.25)
    picture = right.imshow(figures["correlation"], vmin=-1, vmax=1, cmap="RdBu_r")
    right.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
    right.set_yticks(range(len(names)), names, fontsize=8)
    right.set_title("correlation of the maps")
    figure.colorbar(picture, ax=right)
    return figure


def line(figures: dict[str, Any]) -> str:
    """Summarise the result in one line."""
    groups: dict[int, list[str]] = {}
    for name, cluster in figures["cluster"].items():
        groups.setdefault(cluster, []).append(name)
    return "clusters: " + " | ".join(", ".join(names) for names in groups.values())

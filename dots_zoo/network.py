"""CellNet, the network of a genotype, under timm's model contract.

Source: DARTS (ICLR 2019) and its public evaluation networks; timm's `forward_features`, `forward_head`,
`forward_intermediates`, `prune_intermediate_layers`, `reset_classifier`, `group_matcher`.

Differs from the public code: any input size works (adaptive pooling, odd sizes), no ReLU works in place, and
one drop-path rate is raised through `set_drop_path` instead of by assigning an attribute.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import ClassifierHead
from timm.models._features import feature_take_indices
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .cell import DropPath
from .genotype import Genotype, load_genotype
from .genotype.schema import write_json
from .macro import build_macro
from .runtime.errors import DotsZooError


class AuxiliaryHead(nn.Module):
    """The auxiliary classifier of DARTS's evaluation networks: (N, in_chs, H, W) -> (N, num_classes).

    The papers' pooling windows need a map of at least 5 + stride pixels. A smaller map is pooled adaptively
    to the same 2x2, and an output larger than 1x1 is averaged, so that every input size can be trained.
    """

    def __init__(self, in_chs: int, num_classes: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(in_chs, 128, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(128)
        self.conv2 = nn.Conv2d(128, 768, 2, bias=False)
        # The ImageNet head (stride 2) never had the second batch norm: public checkpoints depend on it.
        self.bn2: nn.Module = nn.BatchNorm2d(768) if stride == 3 else nn.Identity()
        self.fc = nn.Linear(768, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)  # not in place: x is the feature map that the next cell reads
        if min(x.shape[-2:]) < 5 + self.stride:
            x = F.adaptive_avg_pool2d(x, 2)
        else:
            x = F.avg_pool2d(x, 5, self.stride)
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


class CellNet(nn.Module):
    """A network of a genotype's cells in a macro-architecture: (N, in_chans, H, W) -> (N, num_classes).

    Args:
        genotype: a Genotype, the name of a bundled cell, a file or a text, as for `load_genotype`.
        macro: 'mobile', 'cifar', 'nb201' or one that was added.
        channels: width of the first cell's nodes.
        layers: number of cells.
        drop_path_rate: one rate for every edge of every cell except the identities.
        aux_head: return (logits, auxiliary logits) from forward in training mode.

    Raises DotsZooError for a size that the macro-architecture cannot have, GenotypeError for a cell that
    cannot be built.
    """

    __jit_unused_properties__ = ["_model_args"]

    def __init__(
        self,
        genotype: Genotype | str,
        macro: str,
        channels: int,
        layers: int,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        aux_head: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.genotype = load_genotype(genotype)
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        self.grad_checkpointing = False
        self._recorded_args = dict[str, Any]()
        with torch.device(device) if device is not None else nullcontext():
            plan = build_macro(macro, self.genotype, channels, layers, in_chans)
            self.stem, self.cells, self.norm = nn.ModuleList(plan.stem), nn.ModuleList(plan.cells), plan.norm
            self.taps = plan.taps()
            self.feature_info = plan.feature_info()
            self.num_features = self.head_hidden_size = self.feature_info[-1]["num_chs"]
            self.head = ClassifierHead(self.num_features, num_classes, global_pool, drop_rate)
            if aux_head and plan.aux is None:
                raise DotsZooError(f"macro {macro} has no auxiliary head: pass aux_head=False")
            cell, stride = plan.aux or (0, 0)
            self.aux_block = len(plan.stem) + cell
            in_chs = plan.blocks[self.aux_block].num_chs
            self.aux_head = AuxiliaryHead(in_chs, num_classes, stride) if aux_head else None
        self.drop_path_rate = drop_path_rate
        if drop_path_rate:
            self.set_drop_path(drop_path_rate)
        if dtype is not None:
            self.to(dtype)

    @property
    def _model_args(self) -> dict[str, Any]:
        """Return the arguments that timm saves to build the network again, its cell as JSON."""
        args = dict(self._recorded_args)
        if "genotype" in args:
            args["genotype"] = write_json(self.genotype)
        if self.aux_head is None:
            args.pop("aux_head", None)
        return args

    @_model_args.setter
    def _model_args(self, args: dict[str, Any]) -> None:
        self._recorded_args = args  # timm.create_model assigns them

    def set_drop_path(self, rate: float) -> None:
        """Set the drop-path rate, in [0, 1), of every edge but identities; training raises it by epoch."""
        if not 0.0 <= rate < 1.0:
            raise DotsZooError(f"drop-path rate: expected a probability in [0, 1), got {rate}")
        self.drop_path_rate = rate
        for module in self.modules():
            if isinstance(module, DropPath):
                module.drop_prob = rate

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute every cell in the backward pass instead of keeping its activations."""
        self.grad_checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return timm's parameter groups for layer-wise learning rates: the stem, then one group a cell."""
        return {
            "stem": r"^stem",
            "blocks": r"^cells\.(\d+)" if coarse else [(r"^cells\.(\d+)", None), (r"^norm", (99999,))],
        }

    def no_weight_decay(self) -> set[str]:
        """Return no names: the papers decay every parameter."""
        return set()

    def get_classifier(self) -> nn.Module:
        """Return the last linear layer, nn.Identity where there is none."""
        classifier: nn.Module = self.head.fc
        return classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a new one of num_classes (0: none), and the auxiliary head's with it."""
        self.num_classes = num_classes
        weight = next(self.parameters())
        placed = {"device": weight.device, "dtype": weight.dtype}
        self.head.reset(num_classes, global_pool, in_features=self.num_features, **placed)  # type: ignore[arg-type]
        if self.aux_head is not None:
            if num_classes == 0:
                self.aux_head = None
            else:
                self.aux_head.fc = nn.Linear(768, num_classes).to(self.aux_head.fc.weight)

    def _run(self, x: Tensor, collect: list[int], last: int) -> tuple[Tensor, list[Tensor]]:
        """Run blocks 0..last of stem and cells; return the last output, those of the blocks to collect."""
        collected: list[Tensor] = []
        prev_prev, prev = x, x
        for i, block in enumerate(self.stem):
            if i <= last:
                prev_prev, prev = prev, block(prev)
                if i in collect:
                    collected.append(prev)
        if len(self.stem) == 1:
            prev_prev = prev
        first = len(self.stem)
        for i, cell in enumerate(self.cells):
            if first + i <= last:
                if self.grad_checkpointing and not torch.jit.is_scripting():
                    out = _checkpoint_cell(cell, prev_prev, prev)
                else:
                    out = cell(prev_prev, prev)
                prev_prev, prev = prev, out
                if first + i in collect:
                    collected.append(prev)
        return prev, collected

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the features before pooling: (N, in_chans, H, W) -> (N, num_features, H', W')."""
        features: Tensor = self.norm(self._run(x, [], self.taps[-1])[0])
        return features

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Classify features (N, num_features, H', W') -> (N, num_classes), or only pool with pre_logits."""
        out: Tensor = self.head(x, pre_logits=pre_logits)
        return out

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return logits (N, num_classes) of (N, in_chans, H, W), in training the auxiliary ones too."""
        if self.aux_head is not None:
            if self.training:
                features, collected = self._run(x, [self.aux_block], self.taps[-1])
                return self.forward_head(self.norm(features)), self.aux_head(collected[0])
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Return the feature maps at the taps in order: (N, num_chs, ceil(H / stride), ceil(W / stride)).

        Args:
            indices: the taps to return; all for None, the last n for an int n.
            norm: apply the final normalisation, which only the nb201 macro has, to the last tap.
            stop_early: run no further than the deepest tap in `indices`.
            intermediates_only: return the taps alone, instead of (final features, taps).
        """
        if output_fmt != "NCHW":
            raise DotsZooError(f"output_fmt: expected 'NCHW', got {output_fmt!r}")
        take, deepest = _taken(len(self.taps), indices)
        last = self.taps[deepest] if stop_early else self.taps[-1]
        x, taps = self._run(x, [self.taps[i] for i in take], last)
        if norm and deepest == len(self.taps) - 1:
            taps[-1] = self.norm(taps[-1])
        if intermediates_only:
            return taps
        return (self.norm(x) if last == self.taps[-1] else x), taps

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Delete the blocks that the taps in `indices` do not need; return the indices from the start.

        Everything up to the deepest of them stays, since each cell reads the two before it.
        """
        take, deepest = _taken(len(self.taps), indices)
        end = self.taps[deepest] + 1
        cut = deepest < len(self.taps) - 1
        self.cells = self.cells[: max(0, end - len(self.stem))]
        self.stem = self.stem[:end]
        if cut or prune_norm:
            self.norm = nn.Identity()
        if cut:
            self.num_features = self.head_hidden_size = self.feature_info[deepest]["num_chs"]
        if cut or prune_head:
            self.reset_classifier(0, "")
        return take


def _taken(count: int, indices: int | Sequence[int] | None) -> tuple[list[int], int]:
    """Return (taps from the start, the deepest) of `indices` as timm reads them, or raise DotsZooError."""
    wanted = indices if indices is None or isinstance(indices, int) else list(indices)
    try:
        take, deepest = feature_take_indices(count, wanted)
    except AssertionError as error:
        raise DotsZooError(f"out_indices {indices}: {error}; the model has {count} taps") from None
    return list(take), deepest


def _checkpoint_cell(cell: nn.Module, prev_prev: Tensor, prev: Tensor) -> Tensor:
    """Run a cell under gradient checkpointing, its running statistics frozen while it is recomputed.

    A compiler that traces the whole cell moves the statistics once by itself, and cannot trace these
    contexts. Where it breaks the graph within the cell (batch norm of momentum None), they move twice.
    """
    if torch.compiler.is_compiling():
        compiled: Tensor = checkpoint(cell, prev_prev, prev, use_reentrant=False)
        return compiled

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _frozen_statistics(cell)

    out: Tensor = checkpoint(cell, prev_prev, prev, use_reentrant=False, context_fn=contexts)
    return out


@contextmanager
def _frozen_statistics(module: nn.Module) -> Iterator[None]:
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d) and m.training]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        norm.num_batches_tracked = None
    try:
        yield
    finally:
        for norm, (momentum, counter) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, counter

"""Rewrite a trained network exactly into fewer operations: `dots_zoo.fuse.fuse(model)`.

The network is traced to a graph of torch.fx, and every rewrite of `REWRITES` turns that graph into one that
computes the same function: equal to 1e-10 in float64, up to the order of sums in float32. The result is for
evaluation only: batch norm is gone.

The rewrites that pay depend on the runtime. `DEFAULT` holds those measured to be no slower on the CPU
provider of ONNX Runtime; the rest saves launches and costs copies (`benchmarks/fuse.py`,
docs/performance.md).
"""

import copy
from collections import Counter
from collections.abc import Callable, Sequence

from torch import fx, nn

from ..network import CellNet
from ..ops import FactorizedReduce
from ..runtime.errors import DotsZooError
from .chains import merge_chains
from .graph import op_type, tidy
from .local import early_relu, fold, merge_parallel, merge_sums, share_relu, shift

# name -> rewrite, in the order in which they are applied.
REWRITES: dict[str, Callable[[fx.GraphModule], None]] = {
    "shift": shift,  # FactorizedReduce's shift by one pixel as a depthwise convolution: no Pad, no Slice
    "fold": fold,  # batch norm into the convolution before it
    "relu": share_relu,  # one ReLU a tensor
    "sums": merge_sums,  # a sum of convolutions as one over the concatenation
    "chains": merge_chains,  # separable convolutions side by side as grouped convolutions
    "parallel": merge_parallel,  # convolutions of one tensor as one of more outputs, across cells too
    "early_relu": early_relu,  # ReLU before a concatenation that nothing else reads: runtimes fuse it there
}

DEFAULT = ("shift", "fold", "relu", "sums", "chains", "early_relu")


def fuse(model: nn.Module, rewrites: Sequence[str] = DEFAULT) -> fx.GraphModule:
    """Return a network with fewer operations that computes what `model` computes in evaluation mode.

    The result takes and returns what `model` does; `pretrained_cfg`, `feature_info` and the other
    descriptions of timm are carried over, and of its methods only `forward` is left.

    Args:
        model: a network of dots_zoo, or timm's features_only wrapper of one; it is left as it is.
        rewrites: names from REWRITES; all but 'relu' and 'early_relu' build on 'fold'.

    Raises DotsZooError for another model and for an unknown rewrite.
    """
    unknown = sorted(set(rewrites) - REWRITES.keys())
    if unknown:
        raise DotsZooError(f"fuse: unknown rewrite {unknown[0]!r}: expected some of {', '.join(REWRITES)}")
    if not isinstance(model, CellNet) and not isinstance(getattr(model, "model", None), CellNet):
        raise DotsZooError(
            f"fuse rewrites the networks of dots_zoo and timm's features_only wrapper of them, got "
            f"{type(model).__name__}"
        )
    reference_copy = copy.deepcopy(model).eval()
    fused = fx.GraphModule(
        reference_copy, _Tracer("shift" in rewrites).trace(reference_copy), type(model).__name__
    )
    for name, rewrite in REWRITES.items():
        if name in rewrites:
            rewrite(fused)
            tidy(fused)
    for key in ("pretrained_cfg", "default_cfg", "feature_info", "num_classes", "num_features", "genotype"):
        if hasattr(model, key):
            setattr(fused, key, copy.deepcopy(getattr(model, key)))
    return fused.eval()


class _Tracer(fx.Tracer):
    """A tracer through all but torch's own modules, and FactorizedReduce where a rewrite looks for it."""

    def __init__(self, keep_reductions: bool) -> None:
        super().__init__()
        self.keep_reductions = keep_reductions

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        kept = self.keep_reductions and isinstance(m, FactorizedReduce)
        return kept or super().is_leaf_module(m, module_qualified_name)


def launches(fused: fx.GraphModule) -> dict[str, int]:
    """Count the nodes of each operation: convolutions, ReLUs, sums, concatenations and slices."""
    op_counts = Counter(op_type(fused, node) for node in fused.graph.nodes)
    return {name: count for name, count in op_counts.items() if name}

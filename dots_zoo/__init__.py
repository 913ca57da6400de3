"""dots_zoo: cells found by DOTS and the DARTS family as timm backbones.

Importing it registers the names: `import dots_zoo, timm; timm.create_model('dots_imagenet')`.
"""

import importlib
from typing import TYPE_CHECKING, Any

from . import plugins
from .fuse.fuse import fuse
from .genotype import (
    Genotype,
    GenotypeError,
    Operation,
    bundled_names,
    load_genotype,
    register_operation,
    save_genotype,
)
from .hub import save_for_hf
from .macro import MacroArchitecture
from .public_weights import load_public_checkpoint
from .runtime.errors import DotsZooError
from .zoo import register, register_macro

if TYPE_CHECKING:
    from dots_zoo.search.methods.registry import Method as Method
    from dots_zoo.search.methods.registry import register_method as register_method
    from dots_zoo.search.space.named import NamedSpace as NamedSpace
    from dots_zoo.search.space.named import register_space as register_space

    from .data import Dataset as Dataset
    from .data import register_dataset as register_dataset

# Names of `dots_zoo` that are imported on first use, since `import dots_zoo` needs neither search nor data.
ON_FIRST_USE = {
    "Dataset": ".data",
    "Method": ".search.methods.registry",
    "NamedSpace": ".search.space.named",
    "register_dataset": ".data",
    "register_method": ".search.methods.registry",
    "register_space": ".search.space.named",
}

__version__ = "0.1.0"
__all__ = [
    "DotsZooError",
    "Genotype",
    "GenotypeError",
    "MacroArchitecture",
    "Operation",
    "__version__",
    "bundled_names",
    "fuse",
    "load_genotype",
    "load_public_checkpoint",
    "plugins",
    "register",
    "register_macro",
    "register_operation",
    "save_for_hf",
    "save_genotype",
]


if not TYPE_CHECKING:  # a checker would accept any name

    def __getattr__(name: str) -> Any:
        """Import a name of ON_FIRST_USE."""
        if name not in ON_FIRST_USE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(ON_FIRST_USE[name], __name__), name)

    def __dir__() -> list[str]:
        """Return all names, those of ON_FIRST_USE too."""
        return sorted({*globals(), *ON_FIRST_USE})

"""dots_zoo: cells found by DOTS and the DARTS family as timm backbones.

Importing it registers the names: `import dots_zoo, timm; timm.create_model('dots_imagenet')`.
"""

from .fuse.fuse import fuse
from .genotype import (
    Genotype,
    GenotypeError,
    Operation,
    add_operation,
    bundled_names,
    load_genotype,
    save_genotype,
)
from .hub import save_for_hf
from .macro import MacroArchitecture
from .public_weights import load_public_checkpoint
from .runtime.errors import DotsZooError
from .zoo import add_macro, register

__version__ = "0.1.0"
__all__ = [
    "DotsZooError",
    "Genotype",
    "GenotypeError",
    "MacroArchitecture",
    "Operation",
    "__version__",
    "add_macro",
    "add_operation",
    "bundled_names",
    "fuse",
    "load_genotype",
    "load_public_checkpoint",
    "register",
    "save_for_hf",
    "save_genotype",
]

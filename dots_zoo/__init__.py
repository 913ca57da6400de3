"""dots_zoo: cells found by DOTS and the DARTS family as timm backbones.

Importing it registers the names: `import dots_zoo, timm; timm.create_model('dots_imagenet')`.
"""

from .checkpoint import load_public_checkpoint
from .errors import DotsZooError
from .fuse import fuse
from .genotype import Genotype, GenotypeError, bundled_names, load_genotype, save_genotype
from .zoo import register

__version__ = "0.1.0"
__all__ = [
    "DotsZooError",
    "Genotype",
    "GenotypeError",
    "__version__",
    "bundled_names",
    "fuse",
    "load_genotype",
    "load_public_checkpoint",
    "register",
    "save_genotype",
]

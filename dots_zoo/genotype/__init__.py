"""Define a cell as data: its `operations`, `types` and rules, JSON `schema`, text forms, and `load`.

A genotype is all that passes from search to the zoo. `published/` holds the cells of the papers, one file
each.
"""

from .load import bundled_names as bundled_names
from .load import is_genotype as is_genotype
from .load import load_genotype as load_genotype
from .load import save_genotype as save_genotype
from .load import to_text as to_text
from .operations import CELLS as CELLS
from .operations import OPS as OPS
from .operations import Operation as Operation
from .operations import primitives as primitives
from .operations import register_operation as register_operation
from .types import MAX_BYTES as MAX_BYTES
from .types import MAX_EDGES as MAX_EDGES
from .types import MAX_NAME as MAX_NAME
from .types import MAX_NODES as MAX_NODES
from .types import NASBENCH201_EDGES as NASBENCH201_EDGES
from .types import CellGenotype as CellGenotype
from .types import Edge as Edge
from .types import Genotype as Genotype
from .types import GenotypeError as GenotypeError
from .types import validate as validate

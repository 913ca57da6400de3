"""One file per paper, and the table of methods (`registry`). `darts` is the shortest; start there.

The names here are the parts of a method and a space of one's own, as in `docs/examples/my_search.py`.
"""

from ..space.named import NamedSpace as NamedSpace
from ..space.named import darts_space as darts_space
from ..space.space import CellSpace as CellSpace
from ..space.space import SearchSpace as SearchSpace
from ..stages.config import LogitsConfig as LogitsConfig
from ..stages.config import TrainingConfig as TrainingConfig
from ..stages.config import WeightsConfig as WeightsConfig
from ..stages.config import check_span as check_span
from ..stages.config import require_at_least as require_at_least
from ..stages.operation_search import Formulation as Formulation
from ..stages.operation_search import operation_search as operation_search
from ..stages.stage import Search as Search
from ..stages.stage import Stage as Stage
from ..stages.stage import StepContext as StepContext
from ..stages.steps import bilevel as bilevel
from ..stages.steps import one_level as one_level
from ..stages.steps import train_weights as train_weights
from .method import Method as Method

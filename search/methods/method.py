"""Method: the record of one way to search for operations, and the table of all of them.

A file of this folder ends with its record; `registry.py` enters those of the papers.
"""

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, Literal

from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.runtime.table import add_record

from ..space.space import SearchSpace
from ..stages.operation_search import best_operations
from ..stages.stage import Search, Stage

Topology = Literal["none", "pairs", "any", "edge_weights", "edge_sigmoid"]


def best_of_every_edge(config: Any, keep: int, search: Search) -> SearchSpace:
    """Return the space of the `keep` best operations of every edge."""
    return best_operations(keep, search)


@dataclass(frozen=True)
class Method:
    """One way to search for operations; every field that takes a function passes it the configuration first.

    Args:
        name: as in `dots-zoo search NAME`.
        config: dataclass of its options with the fields of SupernetConfig, all with defaults; the Args of its
            docstring are the help of its options.
        stages: (config, space, after) -> its operation search, where `after` epochs follow on the same cosine
            of the learning rate.
        surviving: (config, keep, search) -> the space that a topology search begins with, of `keep`
            operations an edge.
        restrict_candidates: (config, search) -> the search without the candidates that neither a topology
            search nor a selection may choose.
        topology: topology search that follows by default.
        decides_edges: it decides about edges itself, so that no topology search can follow; a selection acts
            inside it, and `stages` takes the criterion that chooses an operation as a fourth argument, `by`.
        grouped: (config) -> the operations of an edge compete in groups, each of which keeps its best.
        trains_weights: (config) -> the weights of its supernet are trained, so that a selection can judge by
            them.
        depths: (config) -> cells of its supernets, where there are several.
        text: title for the help; the first line of the configuration's docstring if empty.

    Raises:
        DotsZooError: for a record that cannot be used.
    """

    name: str
    config: type[Any]
    stages: Callable[..., tuple[Stage, ...]]
    surviving: Callable[[Any, int, Search], SearchSpace] = best_of_every_edge
    restrict_candidates: Callable[[Any, Search], Search] = lambda config, search: search
    topology: Topology = "none"
    decides_edges: bool = False
    grouped: Callable[[Any], bool] = lambda config: False
    trains_weights: Callable[[Any], bool] = lambda config: True
    depths: Callable[[Any], tuple[int, ...]] = lambda config: ()
    text: str = ""

    def __post_init__(self) -> None:
        place, known = f"method {self.name!r}", fields(self.config) if is_dataclass(self.config) else ()
        required = [f.name for f in known if f.default is MISSING and f.default_factory is MISSING]
        if not {"macro", "channels", "training"} <= {f.name for f in known} or required:
            raise DotsZooError(
                f"{place}, config: expected a dataclass with the fields macro, channels and training and a "
                f"default for every field, got {self.config!r}"
            )
        if not callable(self.stages):
            raise DotsZooError(
                f"{place}, stages: expected a function of (config, space, after), got {self.stages!r}"
            )

    @property
    def title(self) -> str:
        """Return the title for the help."""
        return self.text or (self.config.__doc__ or self.name).splitlines()[0]


METHODS: dict[str, Method] = {}


def register_method(method: Method) -> None:
    """Make a method known: `search(NAME, ...)` and `dots-zoo search NAME` take it.

    Raises:
        DotsZooError: if its name is malformed or taken.
    """
    add_record(METHODS, method, "method")

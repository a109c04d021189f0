"""What families of whole paths add: their moments are the work of recursions in time, done once and carried."""

from abc import abstractmethod
from typing import Any

from vbss.families.base import Family, Natural


class Chain(Family):
    """Paths in time. Factors carry what is smoothed, so that bound and updates share the recursions."""

    @abstractmethod
    def smoothed(self, natural: Natural) -> Any:
        """A NamedTuple of arrays: moments, as the family needs them, and `entropy`, of the batch's shape."""

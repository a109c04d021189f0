"""What every algorithm returns of the latent sites."""

from abc import abstractmethod
from collections.abc import Iterator

import equinox as eqx
import numpyro.distributions as dist
from jaxtyping import Array


class AbstractPosterior(eqx.Module):
    """What is known of the latent sites: `posterior["site"]` is a NumPyro distribution."""

    @abstractmethod
    def __getitem__(self, name: str) -> dist.Distribution | Array:
        """The marginal of a latent site, or the array of a recording's own point."""

    @abstractmethod
    def names(self) -> set[str]:
        """The names of all latent sites and points."""

    @abstractmethod
    def sample(self, key: Array, num_samples: int) -> dict[str, Array]:
        """Joint draws {site: (num_samples, *shape)}, in the shapes of the program's sites."""

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.names()))

    def __len__(self) -> int:
        return len(self.names())

    def __contains__(self, name: str) -> bool:
        return name in self.names()

    def unknown(self, name: str) -> KeyError:
        """What to raise for a name that is not here."""
        return KeyError(f"{name!r} is not a site of this posterior; it has {sorted(self.names())}")

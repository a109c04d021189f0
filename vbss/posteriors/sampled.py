"""The posterior as draws of Markov chains."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Int
from numpyro import diagnostics

from vbss.distributions.empirical import Empirical
from vbss.errors import InputError
from vbss.posteriors.base import AbstractPosterior

_FEWEST_DRAWS = 4  # of a chain, of which halves can be compared


class SampledPosterior(AbstractPosterior):
    """Draws of all latent sites, by chain. It holds arrays alone.

    `posterior["site"]` is a `vbss.distributions.Empirical` for a continuous site, an array for a point, and a
    categorical distribution for a discrete site: its exact probabilities given each draw of the continuous sites,
    averaged (Rao-Blackwell), which tells more than the draws of its states.

    Attributes:
        samples: {site: (chains, draws, *shape)}, in the shapes of the program's sites. States are integers, drawn given
            the same draw of the continuous sites.
        probabilities: {discrete site: (*shape, K)}.
        points: {point: value}, as they were held or learnt.
        num_divergences: trajectories of each chain that went astray, shape (chains,): any are a sign that the chains
            miss a part of the posterior (raise `target_accept`, or write the program in other coordinates).
    """

    samples: dict[str, Array]
    probabilities: dict[str, Array]
    points: dict[str, Array]
    num_divergences: Int[Array, " chains"]

    def __getitem__(self, name: str) -> dist.Distribution | Array:
        if name in self.points:
            return self.points[name]
        if name not in self.samples:
            raise self.unknown(name)
        self._check_draws(1)
        if name in self.probabilities:
            return dist.CategoricalProbs(self.probabilities[name], validate_args=False)
        return Empirical(_merged(self.samples[name]))

    def names(self) -> set[str]:
        return {*self.samples, *self.points}

    def sample(self, key: Array, num_samples: int) -> dict[str, Array]:
        """Some of the draws, at random; all different unless more are asked for than there are."""
        self._check_draws(1)
        num_draws = self._chains * self._draws
        chosen = jax.random.choice(key, num_draws, (num_samples,), replace=num_samples > num_draws)
        return {name: _merged(value)[chosen] for name, value in self.samples.items()}

    def summary(self, probability: float = 0.9) -> "Summary":
        """Moments and quality of the draws of each continuous site; `print` it for a table.

        Args:
            probability: mass of the narrowest interval that is shown.

        Raises:
            InputError: if the chains have fewer than 4 draws.
        """
        self._check_draws(_FEWEST_DRAWS)
        parts: dict[str, np.ndarray] = {}
        for name, value in self.samples.items():
            if name in self.probabilities:
                continue
            if jnp.iscomplexobj(value):
                parts |= {f"{name}.real": np.asarray(value.real), f"{name}.imag": np.asarray(value.imag)}
            else:
                parts[name] = np.asarray(value)
        return Summary(diagnostics.summary(parts, probability), int(self.num_divergences.sum()))

    @property
    def _chains(self) -> int:
        return self.num_divergences.shape[0]

    @property
    def _draws(self) -> int:
        return next(iter(self.samples.values())).shape[1]

    def _check_draws(self, least: int) -> None:
        if self._draws < least:
            raise InputError(
                f"the chains have {self._draws} draws, but {least} are needed: the inference ended during or soon "
                "after its warm-up (give fit a larger max_steps, or continue with start=solution)"
            )


class Summary(NamedTuple):
    """What chains say of each site, and how far to trust it.

    Attributes:
        sites: {site: {"mean", "std", "median", the interval's ends, "n_eff", "r_hat": array of the site's shape}}.
            `n_eff` is the number of independent draws that tell as much of the mean, `r_hat` compares the spread over
            and within halves of the chains and should be below 1.01.
        num_divergences: of all chains.
    """

    sites: dict[str, dict[str, np.ndarray]]
    num_divergences: int

    def __str__(self) -> str:
        columns = list(next(iter(self.sites.values())))
        rows = [["", *columns]]
        for name, statistics in self.sites.items():
            for index in np.ndindex(np.shape(statistics["mean"])):
                label = name + (f"[{','.join(map(str, index))}]" if index else "")
                numbers = [float(np.asarray(statistics[column])[index]) for column in columns]
                rows.append([label, *(_number(column, n) for column, n in zip(columns, numbers, strict=True))])
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [" ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
        return "\n".join([*lines, f"{self.num_divergences} divergences"])

    __repr__ = __str__


def _number(column: str, number: float) -> str:
    return f"{number:.0f}" if column == "n_eff" else f"{number:.3f}" if column == "r_hat" else f"{number:.4g}"


def _merged(value: Array) -> Array:
    """Chains one after the other: (chains * draws, *shape)."""
    return value.reshape(-1, *value.shape[2:])

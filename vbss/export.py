"""Results for other libraries."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from vbss.errors import InputError, whole_number
from vbss.inference.solution import Solution


def to_arviz(
    solution: Solution,
    *,
    key: Array | None = None,
    num_samples: int = 1000,
    data: Mapping[str, Any] | None = None,
) -> Any:
    """A solution as ArviZ's container: `InferenceData`, or from ArviZ 1.0 on a `DataTree`.

    Groups: `posterior`, each latent site with the dimensions chain and draw before its own; `sample_stats`, the bound
    `elbo` in nats over `step`, if the inference has one; `observed_data`, if given. Complex sites stay complex, which
    ArviZ's summaries and netCDF files do not take.

    Args:
        solution: the end of an inference.
        key: JAX random key of the draws; by default `jax.random.key(0)`.
        num_samples: independent draws from the posterior, as one chain. Samples of MCMC are taken as they are, and
            neither this nor `key` is used.
        data: {name: array} of what was observed.

    Raises:
        ImportError: if ArviZ is not installed.
        InputError: if `num_samples` is not a positive whole number.
    """
    num_samples = whole_number("num_samples", num_samples, 1)
    try:
        arviz, xarray = import_module("arviz"), import_module("xarray")
    except ImportError as error:
        raise ImportError("to_arviz needs ArviZ: pip install 'vbss[arviz]'") from error
    groups = {"posterior": _samples(solution, jax.random.key(0) if key is None else key, num_samples)}
    if data is not None:
        groups["observed_data"] = {name: np.asarray(value) for name, value in data.items()}
    # Not by from_dict, to which every statistic is one of a draw.
    bound = xarray.Dataset({"elbo": ("step", solution.elbo)}, {"step": np.arange(len(solution.elbo))})
    if int(arviz.__version__.partition(".")[0]) >= 1:
        tree = arviz.from_dict(groups)
        if len(solution.elbo):
            tree["sample_stats"] = xarray.DataTree(bound)
        return tree
    inference_data = arviz.from_dict(**groups)
    if len(solution.elbo):
        inference_data.add_groups({"sample_stats": bound})
    return inference_data


def _samples(solution: Solution, key: Array, num_samples: int) -> dict[str, np.ndarray]:
    """The draws of each site, of shape (chains, draws, *shape)."""
    chains = getattr(solution.posterior, "samples", None)
    if chains is None:
        draws = solution.posterior.sample(key, num_samples)
        chains = {name: value[None] for name, value in draws.items()}
    if not chains:
        raise InputError("solution has no latent sites to draw.")
    return {name: np.asarray(value) for name, value in chains.items()}

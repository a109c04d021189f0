"""Guides of NumPyro: made for a program, and what they say of its latents."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro import handlers
from numpyro.infer import init_to_value
from numpyro.infer.autoguide import AutoGuide, AutoGuideList, AutoNormal

from vbss.errors import InputError
from vbss.factors import Values

Guide = Callable[..., Any]


def check_guide(guide: Any) -> None:
    """Raise InputError for what `guide_of` cannot make a guide from."""
    if not callable(guide):
        raise InputError(f"guide must be a guide of numpyro.infer.autoguide or a function, got {type(guide).__name__}")
    if isinstance(guide, AutoGuideList):
        raise InputError(
            "guide: an AutoGuideList keeps its program: pass a subclass that appends its parts in __init__"
        )


def is_automatic(guide: Guide) -> bool:
    """Whether it is an automatic guide, or a class of them, or `functools.partial` of one."""
    made = guide.func if isinstance(guide, partial) else guide
    return isinstance(made, AutoGuide) or (isinstance(made, type) and issubclass(made, AutoGuide))


def guide_of(guide: Guide, program: Callable, values: Values) -> Guide:
    """The guide for this program, an automatic one beginning at the values; a function stays as it is."""
    if not is_automatic(guide):
        return guide
    program = handlers.block(program, hide_fn=_is_discrete)
    if isinstance(guide, AutoGuide):
        made = copy.copy(guide)
        made.model, made.prototype_trace = program, None
    else:
        made = guide(program)
    if values:
        made.init_loc_fn = init_to_value(values=values)
    return made


def _is_discrete(site: dict) -> bool:
    return site["type"] == "sample" and not site["is_observed"] and site["fn"].support.is_discrete


def guide_draws(guide: Guide, params: Values, data: tuple, key: Array, num_samples: int) -> Values:
    """Joint draws {site: (num_samples, *shape)} at given params."""
    if isinstance(guide, AutoGuide):
        return guide.sample_posterior(key, params, *data, sample_shape=(num_samples,))

    @jax.vmap
    def draw(key: Array) -> Values:
        return {name: site["value"] for name, site in _samples(guide, params, data, key).items()}

    return draw(jax.random.split(key, num_samples))


def normal_marginals(
    guide: Guide, params: Values, data: tuple
) -> tuple[dict[str, tuple[Array, Array]], tuple[tuple[str, int], ...]]:
    """The marginals that are normal by construction, {site: (loc, scale)}, and the number of their event axes."""
    normals, event_ranks = {}, []
    if isinstance(guide, AutoNormal):
        for name, site in _samples(guide, params, data, jax.random.key(0)).items():
            base: Any = site["fn"]
            while isinstance(base, dist.Independent | dist.ExpandedDistribution):
                base = base.base_dist
            if isinstance(base, dist.Normal):
                loc: Any = base.loc
                scale: Any = base.scale
                normals[name] = (loc, scale)
                event_ranks.append((name, site["fn"].event_dim))
    return normals, tuple(event_ranks)


def _samples(guide: Guide, params: Values, data: tuple, key: Array) -> dict[str, Any]:
    trace = handlers.trace(handlers.substitute(handlers.seed(guide, key), params)).get_trace(*data)
    return {name: site for name, site in trace.items() if site["type"] == "sample"}

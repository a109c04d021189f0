"""From a program to the posterior that inference starts from: which sites share a factor, and which factor it is."""

from collections.abc import Iterable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro import handlers
from numpyro.infer.inspect import get_dependencies

from vbss.compilation import compiled
from vbss.context import relaxed_promotion
from vbss.distributions import Indicator, MarkovChain
from vbss.errors import InputError
from vbss.factors import Factor, GivenFactor, ModeFactor, StatisticsFactor, ValueFactor, started
from vbss.families import Gaussian, JointGaussian, NormalWishart, Wishart, statistics_family, value_family
from vbss.posteriors import Posterior
from vbss.program import Given, Model, unexpanded, unmasked

Blocks = tuple[tuple[str, ...], ...]


def initial_posterior(
    model: Model,
    data: tuple,
    key: Array,
    start: Mapping[str, Array] | None = None,
    blocks: Iterable[Iterable[str]] | None = None,
    at_mode: Iterable[str] | None = None,
) -> Posterior:
    """The posterior that a program and a factorisation ask for.

    Args:
        start: {site: probabilities or value}; sites left out start at random.
        blocks: sites that share a factor, disjoint and covering all latent sites; by default the model's `blocks`, else
            what the program's dependencies say: an indicator with what is given it, a normal with the Wishart that its
            prior has, every other site on its own.
        at_mode: sites kept at their most probable value; by default the model's `at_mode`.

    Raises:
        ValueError: for blocks that overlap, leave a site out or have no joint factor, a latent whose distribution has
            no factor here, or a start that names no site or has another shape.
    """
    posterior = default_posterior(model, data, key, named_blocks(blocks), None if at_mode is None else tuple(at_mode))
    for name, value in (start or {}).items():
        posterior = _start(posterior, name, value)
    return posterior


def named_blocks(blocks: Iterable[Iterable[str]] | None) -> Blocks | None:
    """Blocks as hashable tuples; a lone name is a block of its own."""
    if blocks is None:
        return None
    return tuple((block,) if isinstance(block, str) else tuple(block) for block in blocks)


# Compiled, so that what the trace draws only to show its shape is never drawn.
@compiled
def default_posterior(
    model: Model, data: tuple, key: Array, blocks: Blocks | None = None, at_mode: tuple[str, ...] | None = None
) -> Posterior:
    """The posterior of `initial_posterior` without a start."""
    key_trace, key_start = jax.random.split(key)
    with relaxed_promotion():
        trace = handlers.trace(handlers.seed(model, key_trace)).get_trace(*data)
    gates = _gates(_latents(trace), trace)
    trace = _in_precision_of((model, data), trace)
    latents = _latents(trace)
    blocks = model.blocks if blocks is None else blocks
    blocks = _read_blocks(model, data, latents, gates) if blocks is None else blocks
    _check_cover(blocks, latents)
    at_mode = model.at_mode if at_mode is None else at_mode
    _check_modes(at_mode, blocks, latents)
    factors: dict[str, Factor] = {}
    for block in blocks:
        key_start, key_block = jax.random.split(key_start)
        name, factor = _factor(block, block[0] in at_mode, latents, gates, trace, key_block)
        factors[name] = factor
    points, kinds = _points(trace)
    posterior = Posterior(factors, points, kinds, (*factors, *points))
    clash = posterior.names() & set(model.parameter_kinds())
    if clash:
        raise InputError(f"{sorted(clash)[0]!r} names both a site of the program and a parameter of the model")
    return posterior


def _latents(trace: dict) -> dict[str, dict]:
    latents: dict[str, dict] = {
        name: site
        for name, site in trace.items()
        if site["type"] == "sample" and not site["is_observed"] and site["value"] is not None
    }
    for name, site in latents.items():
        if unmasked(site["fn"])[1] is not None:
            raise InputError(f"latent site {name!r} is masked: mask observations, which then say nothing of it")
        if site["scale"] is not None:
            raise InputError(
                f"latent site {name!r} is scaled, by handlers.scale or a subsampled plate: only observed sites may be"
            )
    return latents


def _in_precision_of(tree: Any, trace: dict) -> dict:
    """The trace with all drawn values in the precision of the model and the data; NumPyro draws in JAX's own."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if eqx.is_inexact_array(leaf)]

    def cast(value: Any) -> Any:
        if not eqx.is_inexact_array(value):
            return value
        return value.astype(jnp.result_type(dtype, jnp.complex64) if jnp.iscomplexobj(value) else dtype)

    with relaxed_promotion():
        dtype = jnp.finfo(jnp.result_type(*leaves)).dtype if leaves else jnp.zeros(()).dtype
        drawn = ("sample", "deterministic")
        return {
            n: {**site, "value": cast(site["value"])} if site["type"] in drawn else site for n, site in trace.items()
        }


def _gates(latents: dict, trace: dict) -> dict[str, str]:
    """The indicator of each latent that is drawn given one."""
    gates = {
        name: _gate_of(site["fn"], trace)
        for name, site in latents.items()
        if isinstance(unmasked(site["fn"])[0], Given)
    }
    for name, gate in gates.items():
        base = unexpanded(unmasked(trace[gate]["fn"])[0])
        if not isinstance(base, Indicator) or base.axis != -1:
            raise InputError(f"site {name!r} is given {gate!r}, which must be a vbss.indicator with its states last")
    return gates


def _gate_of(fn: dist.Distribution, trace: dict) -> str:
    given: Any = unmasked(fn)[0]
    for name, site in trace.items():
        if site["type"] == "deterministic" and site["value"] is given.gate:
            return name.removesuffix("/onehot")
    raise InputError("Given: the gate must be what vbss.indicator returned, unchanged")


def _read_blocks(model: Model, data: tuple, latents: dict, gates: dict[str, str]) -> Blocks:
    """The factorisation that the program's dependencies suggest."""
    for name, gate in gates.items():
        first = next(other for other in gates if gates[other] == gate)
        if first != name:
            raise InputError(
                f"latent sites {first!r} and {name!r} are both given {gate!r}, which has no joint factor: join them in "
                f"one site, or name blocks that keep {name!r} on its own"
            )
    joined = {name: (gate, name) for name, gate in gates.items() if gate in latents}
    wisharts = [name for name, site in latents.items() if _is_wishart(site)]
    if wisharts:
        with relaxed_promotion():
            priors: Any = get_dependencies(model, data)["prior_dependencies"]
        for name in wisharts:
            normals = [other for other, of in priors.items() if name in of and other != name and other in latents]
            if len(normals) == 1 and _is_multivariate_normal(latents[normals[0]]):
                joined[normals[0]] = (normals[0], name)
    taken = {site for block in joined.values() for site in block}
    return tuple(joined.get(name, (name,)) for name in latents if name in joined or name not in taken)


def _base(site: dict) -> Any:
    return unexpanded(unmasked(site["fn"])[0])


def _is_wishart(site: dict) -> bool:
    return isinstance(value_family(_base(site)), Wishart)


def _is_multivariate_normal(site: dict) -> bool:
    return value_family(_base(site)) == Gaussian(1)


def _check_cover(blocks: Blocks, latents: dict) -> None:
    named = [site for block in blocks for site in block]
    for site in named:
        if site not in latents:
            raise InputError(f"blocks: {site!r} is not a latent site of the program; it has {sorted(latents)}")
        if named.count(site) > 1:
            raise InputError(f"blocks: site {site!r} is named {named.count(site)} times; blocks must be disjoint")
    missing = [site for site in latents if site not in named]
    if missing:
        raise InputError(f"blocks: latent sites {missing} are in no block; blocks must cover {sorted(latents)}")
    if () in blocks:
        raise InputError("blocks: a block must name at least one site")


def _check_modes(at_mode: tuple[str, ...], blocks: Blocks, latents: dict) -> None:
    for site in at_mode:
        if site not in latents:
            raise InputError(f"at_mode: {site!r} is not a latent site of the program; it has {sorted(latents)}")
        if (site,) not in blocks:
            raise InputError(f"at_mode: site {site!r} must have a block of its own, but the blocks are {blocks}")


def _factor(
    block: tuple[str, ...], is_mode: bool, latents: dict, gates: dict[str, str], trace: dict, key: Array
) -> tuple[str, Factor]:
    """The factor of a block, and its name: that of the site which its program is about."""
    if len(block) == 1:
        return block[0], _single_factor(block[0], is_mode, latents[block[0]], trace, key)
    if len(block) == 2:
        for gate, name in (block, block[::-1]):
            if gates.get(name) == gate:
                return name, _given_factor(gate, name, latents[name], trace, key)
        for loc, precision in (block, block[::-1]):
            if _is_wishart(latents[precision]) and _is_multivariate_normal(latents[loc]):
                value = (latents[loc]["value"], latents[precision]["value"])
                return loc, ValueFactor(NormalWishart().initial(value), NormalWishart(), (loc, precision))
    families = [value_family(_base(latents[site])) for site in block if site not in gates]
    if len(families) == len(block) and all(isinstance(family, Gaussian) for family in families):
        return block[0], _joint_gaussian(block, families, latents)
    raise InputError(
        f"blocks: sites {block} have no joint factor; joint are an indicator and a latent given it, a normal and the "
        "Wishart of its prior, and normals of one batch shape"
    )


def _joint_gaussian(block: tuple[str, ...], families: list, latents: dict) -> ValueFactor:
    values = tuple(latents[site]["value"] for site in block)
    batches = {v.shape[: v.ndim - family.event_rank] for v, family in zip(values, families, strict=True)}
    if len(batches) > 1:
        raise InputError(f"blocks: sites {block} must stand in the same plates to be joined, got shapes {batches}")
    pairs = zip(values, families, strict=True)
    joint = JointGaussian(tuple(value.shape[value.ndim - family.event_rank :] for value, family in pairs))
    return ValueFactor(joint.initial(values), joint, block)


def _given_factor(gate: str, name: str, site: dict, trace: dict, key: Array) -> Factor:
    fn: Any = unmasked(site["fn"])[0]
    family = value_family(unexpanded(fn.base))
    if family is None:
        raise _no_factor(name, fn)
    onehot = trace[f"{gate}/onehot"]["value"]
    states = jnp.repeat(site["value"], onehot.shape[-1], onehot.ndim - 1)
    return GivenFactor(_random_logits(onehot, key), family.initial(states), family, gate, name)


def _single_factor(name: str, is_mode: bool, site: dict, trace: dict, key: Array) -> Factor:
    fn: Any = unmasked(site["fn"])[0]
    base = unexpanded(fn.base) if isinstance(fn, Given) else unexpanded(fn)
    if hasattr(base, "sufficient_statistics") and not any(key.startswith(f"{name}/") for key in trace):
        raise InputError(f"latent site {name!r} is {type(base).__name__}: draw it with vbss.statistics(name, ...)")
    statistics = statistics_family(base)
    if statistics is not None:
        if isinstance(base, Indicator | MarkovChain):
            natural = {"onehot": _random_logits(trace[f"{name}/onehot"]["value"], key)}
            if isinstance(base, MarkovChain):
                natural["pair"] = jnp.zeros_like(trace[f"{name}/pair"]["value"])
        else:
            prior = statistics.natural_of(base)
            drawn = {key: trace[f"{name}/{key}"]["value"] for key in prior}
            natural = {key: jnp.broadcast_to(value, drawn[key].shape) for key, value in prior.items()}
        return ModeFactor.at(natural, statistics, name) if is_mode else StatisticsFactor(natural, statistics, name)
    family = value_family(base)
    if family is None:
        raise _no_factor(name, fn)
    natural = family.initial(site["value"])
    return ModeFactor.at(natural, family, name) if is_mode else ValueFactor(natural, family, (name,))


def _no_factor(name: str, fn: dist.Distribution) -> InputError:
    described = f"Given of {type(unexpanded(fn.base)).__name__}" if isinstance(fn, Given) else None
    return InputError(
        f"latent site {name!r} is {described or type(unexpanded(fn)).__name__}, which has no factor of the posterior: "
        "use vbss.indicator, vbss.markov_chain, a normal, gamma, Dirichlet or Wishart distribution (plain, or normal "
        "and gamma in vbss.Given), a vbss.distributions.GaussMarkovChain or complex inverse Wishart; or an algorithm "
        "that needs no factors (vbss.SVI, vbss.MCMC)"
    )


def _random_logits(onehot: Array, key: Array) -> Array:
    return jax.random.normal(key, onehot.shape, onehot.dtype)


def _points(trace: dict) -> tuple[dict[str, Array], tuple]:
    params = {name: site for name, site in trace.items() if site["type"] == "param"}
    undeclared = [name for name, site in params.items() if "kind" not in site["kwargs"]]
    if undeclared:
        raise InputError(f"param site {undeclared[0]!r} has no kind: declare it with vbss.point(name, initial, kind)")
    kinds = tuple((name, site["kwargs"]["kind"], site["kwargs"].get("given")) for name, site in params.items())
    for name, _, given in kinds:
        if given is not None and f"{given}/onehot" not in trace:
            raise InputError(f"point {name!r} is given {given!r}, which is no indicator of the program")
    return {name: site["value"] for name, site in params.items()}, kinds


def _start(posterior: Posterior, name: str, value: Array) -> Posterior:
    if name in posterior.points:
        expected = posterior.points[name]
        if value.shape != expected.shape:
            raise InputError(f"start: point {name!r} must have shape {expected.shape}, got {value.shape}")
        return posterior.with_point(name, jnp.asarray(value, expected.dtype))
    key = posterior.block_of(name)
    if key not in posterior.factors:
        raise InputError(
            f"start: {name!r} is not a latent site or point of the program; it has {sorted(posterior.names())}"
        )
    return posterior.with_factor(key, started(posterior.factors[key], value))

"""Programs with random problems of each: five of the core's contract, three of which stand here, and more models."""

from typing import Annotated, Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array

import vbss
from vbss.models import (
    LDACGMM,
    BayesianGaussianMixture,
    FactorAnalysis,
    GaussianMixture,
    LinearDynamicalSystem,
    SwitchingLinearDynamicalSystem,
)
from vbss.models import StudentMixture as LearntStudentMixture


class StudentMixture(vbss.Model):
    """u_n ~ Gamma(shape, rate), y_n | z_n = k, u_n ~ N(loc_k, (u_n precision_k)^-1)."""

    log_weights: Annotated[Array, vbss.Simplex()]
    loc: Annotated[Array, vbss.Linear(event_rank=1)]
    precision: Annotated[Array, vbss.Precision(event_rank=2)]
    shape: Array

    def __call__(self, y):
        num_components = self.log_weights.shape[0]
        with numpyro.plate("n", y.shape[0]):
            z = vbss.indicator("z", self.log_weights)
            prior = dist.Gamma(self.shape, self.shape).expand([num_components])
            u = numpyro.sample("u", vbss.Given(z, prior))
            density = vbss.MultivariateNormal(("ki", self.loc), ("kij", self.precision), weight=("nk", u))
            numpyro.sample("y", vbss.Gated("n", {"nk": z}, density), obs=y)


class VESSL(vbss.Model):
    """Positions x_m given affine pieces z_m; each element of a spectrogram belongs to one source w."""

    log_weights: Array
    center: Array
    covariance: Array
    slope: Array
    offset: Array
    log_shares: Annotated[Array, vbss.Simplex()]
    precision: Annotated[Array, vbss.Precision()]

    def __call__(self, y, observed):
        num_sources, num_pieces = self.log_shares.shape[-1], self.log_weights.shape[0]
        with numpyro.plate("m", num_sources):
            z = vbss.indicator("z", self.log_weights)
            x = numpyro.sample("x", vbss.Given(z, dist.MultivariateNormal(self.center, self.covariance)))
        x = jnp.broadcast_to(x, (*x.shape[:-2], num_pieces, x.shape[-1]))
        mean = jnp.einsum("kdl,...mkl->...mkd", self.slope, x) + self.offset
        with numpyro.plate("t", y.shape[0], dim=-2), numpyro.plate("d", y.shape[1], dim=-1):
            w = vbss.indicator("w", self.log_shares)
            density = vbss.Normal(("mkd", mean), ("d", self.precision))
            numpyro.sample("y", vbss.Gated("td", {"tdm": w, "mk": z}, density).mask(observed), obs=y)


class HiddenMarkov(vbss.Model):
    """A chain of hidden states with Gaussian emissions of one precision."""

    log_initial: Annotated[Array, vbss.Simplex()]
    log_transition: Annotated[Array, vbss.Simplex()]
    loc: Annotated[Array, vbss.Linear()]
    precision: Annotated[Array, vbss.Precision()]

    def __call__(self, y):
        z = vbss.markov_chain("z", self.log_initial, self.log_transition, y.shape[0])
        with numpyro.plate("t", y.shape[0]):
            density = vbss.Normal(("k", self.loc), ("", self.precision))
            numpyro.sample("y", vbss.Gated("t", {"tk": z}, density), obs=y)


def _log_probs(key: Array, *shape: int) -> Array:
    return jax.nn.log_softmax(jr.normal(key, shape), -1)


def _positive(key: Array, *shape: int) -> Array:
    """Random symmetric positive definite matrices."""
    root = jr.normal(key, (*shape[:-1], shape[-1] + 2))
    return root @ jnp.swapaxes(root, -1, -2) / shape[-1]


def _broad(key: Array, *shape: int) -> Array:
    """Precisions so low that no component falls onto a single observation, where the likelihood has no bound."""
    size = shape[-1]
    return (jnp.broadcast_to(jnp.eye(size), shape) + _positive(key, *shape) / 4) / 8


def gaussian_mixture(key: Array, num: int = 40, size: int = 2, components: int = 3) -> tuple[Any, tuple]:
    keys = jr.split(key, 4)
    y = jr.normal(keys[0], (num, size)) * 2
    loc, precision = jr.normal(keys[2], (components, size)), _broad(keys[3], components, size, size)
    return GaussianMixture(_log_probs(keys[1], components), loc, precision, y.mean(0)), (y,)


def student_mixture(key: Array, num: int = 40, size: int = 2, components: int = 2) -> tuple[Any, tuple]:
    keys = jr.split(key, 5)
    y = jr.normal(keys[0], (num, size)) * 2
    loc, precision = jr.normal(keys[2], (components, size)), _broad(keys[3], components, size, size)
    shape = jnp.exp(jr.normal(keys[4]) / 2) + 0.5
    return StudentMixture(_log_probs(keys[1], components), loc, precision, shape), (y,)


def lda_cgmm(
    key: Array, frequencies: int = 2, frames: int = 3, directions: int = 3, size: int = 2, sources: int = 2
) -> tuple[Any, tuple]:
    keys = jr.split(key, 4)
    steering = jnp.exp(2j * jnp.pi * jr.uniform(keys[0], (frequencies, directions, size)))
    x = jr.normal(keys[1], (frequencies, frames, size), complex) * jnp.exp(jr.normal(keys[2], (frequencies, frames, 1)))
    model = LDACGMM.init(steering, sources)
    return model, (x,)


def vessl(
    key: Array, frames: int = 3, features: int = 4, sources: int = 2, pieces: int = 2, size: int = 2
) -> tuple[Any, tuple]:
    keys = jr.split(key, 9)
    model = VESSL(
        log_weights=_log_probs(keys[0], pieces),
        center=jr.normal(keys[1], (pieces, size)),
        covariance=_positive(keys[2], pieces, size, size),
        slope=jr.normal(keys[3], (pieces, features, size)),
        offset=jr.normal(keys[4], (pieces, features)),
        log_shares=_log_probs(keys[5], features, sources),
        precision=jnp.exp(jr.normal(keys[6], (features,))),
    )
    observed = jr.bernoulli(keys[8], 0.8, (frames, features)).at[0].set(True)
    return model, (jr.normal(keys[7], (frames, features)) * 2, observed)


def hidden_markov(key: Array, length: int = 6, states: int = 2) -> tuple[Any, tuple]:
    keys = jr.split(key, 4)
    log_initial, log_transition = _log_probs(keys[0], states), _log_probs(keys[1], states, states)
    model = HiddenMarkov(log_initial, log_transition, jr.normal(keys[2], (states,)), jnp.ones(()))
    return model, (jr.normal(keys[3], (length,)) * 2,)


PROBLEMS = {
    "gaussian mixture": gaussian_mixture,
    "student mixture": student_mixture,
    "lda-cgmm": lda_cgmm,
    "vessl": vessl,
    "hidden markov": hidden_markov,
}


def learnt_student_mixture(key: Array, num: int = 40, size: int = 2, components: int = 2) -> tuple[Any, tuple]:
    keys = jr.split(key, 2)
    model, (y,) = student_mixture(keys[0], num, size, components)
    degrees_of_freedom = 2 * jnp.exp(jr.normal(keys[1], (components,)) / 2) + 1
    return LearntStudentMixture(model.log_weights, model.loc, model.precision, degrees_of_freedom, y.mean(0)), (y,)


def bayesian_mixture(key: Array, num: int = 20, size: int = 2, components: int = 3) -> tuple[Any, tuple]:
    keys = jr.split(key, 4)
    y = jr.normal(keys[0], (num, size)) * 2 + 1
    positive = jnp.exp(jr.normal(keys[1], (3,)) / 2)
    model = BayesianGaussianMixture(
        concentration=positive[0],
        loc_prior=jr.normal(keys[2], (size,)),
        loc_weight=positive[1],
        degrees_of_freedom=size + positive[2],
        scatter=_positive(keys[3], size, size),
        anchor=y.mean(0),
        num_components=components,
    )
    return model, (y,)


def factor_analysis(key: Array, num: int = 12, size: int = 4, factors: int = 2) -> tuple[Any, tuple]:
    keys = jr.split(key, 3)
    y = jr.normal(keys[0], (num, size)) * 2
    return FactorAnalysis(jr.normal(keys[1], (size, factors)), y[0], jnp.exp(jr.normal(keys[2], (size,)))), (y,)


def linear_dynamical(key: Array, length: int = 6, size: int = 3, latents: int = 2) -> tuple[Any, tuple]:
    keys = jr.split(key, 8)
    model = LinearDynamicalSystem(
        initial_loc=jr.normal(keys[0], (latents,)),
        initial_precision=_positive(keys[1], latents, latents),
        transition=jr.normal(keys[2], (latents, latents)) / 2,
        precision=_positive(keys[3], latents, latents),
        loading=jr.normal(keys[4], (size, latents)),
        offset=jr.normal(keys[5], (size,)),
        observation_precision=jnp.exp(jr.normal(keys[6], (size,)) / 2),
    )
    return model, (jr.normal(keys[7], (length, size)) * 2,)


def switching_linear_dynamical(
    key: Array, length: int = 6, size: int = 2, latents: int = 2, switches: int = 2
) -> tuple[Any, tuple]:
    keys = jr.split(key, 5)
    single, data = linear_dynamical(keys[0], length, size, latents)
    model = SwitchingLinearDynamicalSystem(
        log_initial_switch=_log_probs(keys[1], switches),
        log_switch=_log_probs(keys[2], switches, switches),
        initial_loc=single.initial_loc,
        initial_precision=single.initial_precision,
        transition=jr.normal(keys[3], (switches, latents, latents)) / 2,
        drift=jr.normal(keys[4], (switches, latents)),
        precision=jnp.broadcast_to(single.precision, (switches, latents, latents)),
        loading=single.loading,
        offset=single.offset,
        observation_precision=single.observation_precision,
    )
    return model, data


MODELS = {
    **PROBLEMS,
    "student mixture, learnt": learnt_student_mixture,
    "bayesian mixture": bayesian_mixture,
    "factor analysis": factor_analysis,
    "linear dynamical": linear_dynamical,
    "switching linear dynamical": switching_linear_dynamical,
}

"""Factors of an indicator together with a latent drawn under each of its states."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array

from vbss.factors.base import Factor, ProgramObjective, Reading, Values, placeholder
from vbss.families import Categorical, Natural, ValueFamily


class GivenFactor(Factor):
    """An indicator z and a latent x given it, jointly: q(z) q(x | z)."""

    logits: Array
    natural: Natural
    family: ValueFamily
    gate: str = eqx.field(static=True)
    site: str = eqx.field(static=True)

    @property
    def sites(self):
        return (self.gate, self.site)

    def _values(self, probs: Array, value: Array) -> Values:
        return placeholder(self.gate, probs.shape[:-1]) | {f"{self.gate}/onehot": probs, self.site: value}

    def integrate(self, objective):
        return self._integrate(jax.nn.softmax(self.logits, -1), objective)

    def integrate_every_state(self, objective):
        return self._integrate(jnp.ones_like(self.logits), objective)

    def _integrate(self, probs: Array, objective: ProgramObjective) -> Array:
        return self.family.integrate(lambda value: objective(self._values(probs, value)), self.natural)

    def representative(self):
        return self._values(jax.nn.softmax(self.logits, -1), self.family.center(self.natural))

    def _with_every_state(self, objective: ProgramObjective, value: Array) -> Array:
        # The objective is affine in the gate, so with every state held open it is a sum over the states of what x sees
        # in each: no division by a probability that may vanish.
        return objective(self._values(jnp.ones_like(self.logits), value))

    def update(self, objective):
        center = self.family.center(self.natural)
        natural = self.family.coefficients(lambda value: self._with_every_state(objective, value), center)
        value, product = self.family.reference(natural)
        slope = jax.grad(lambda probs: objective(self._values(probs, value)))(jax.nn.softmax(self.logits, -1))
        return self._replaced(slope - product + self.family.log_partition(natural), natural)

    def _replaced(self, logits: Array, natural: Natural) -> "GivenFactor":
        return GivenFactor(logits, natural, self.family, self.gate, self.site)

    def readings(self, objective):
        def draw(key: Array) -> Array:
            return self.family.probed(self.natural, key)

        def of_probs(probs: Array) -> Array:
            return objective(self._values(probs, self.family.center(self.natural)))

        def of_value(value: Array) -> Array:
            return self._with_every_state(objective, value)

        return [
            Reading(
                f"linear in the states of {self.gate!r}, each element on its own",
                of_probs,
                jax.grad(of_probs),
                lambda coefficients, probs: (coefficients * probs).sum(),
                lambda key: jax.nn.softmax(2 * jax.random.normal(key, self.logits.shape, self.logits.dtype), -1),
                self.logits.ndim - 1,
            ),
            Reading(
                f"{self.family.claim} {self.site!r}, each element and state on its own",
                of_value,
                lambda value: self.family.coefficients(of_value, value),
                lambda coefficients, value: self.family.inner(coefficients, self.family.statistics(value)).sum(),
                draw,
                self.logits.ndim,
            ),
        ]

    def perturbed(self, key):
        logits = jax.random.normal(key, self.logits.shape, self.logits.dtype)
        return self._replaced(logits, self.family.perturbed(self.natural, key))

    def canonical(self):
        return {"logits": jax.nn.log_softmax(self.logits, -1), **self.natural}

    def with_natural(self, natural):
        return self._replaced(natural["logits"], {key: v for key, v in natural.items() if key != "logits"})

    def entropy(self):
        conditional = jax.nn.softmax(self.logits, -1) * self.family.entropy(self.natural)
        return (Categorical().entropy({"onehot": self.logits}) + conditional.sum(-1)).sum()

    def sample(self, key):
        key_state, key_value = jax.random.split(key)
        state = jax.random.categorical(key_state, self.logits)
        values = self.family.sample(self.natural, key_value)
        index = state.reshape(*state.shape, *(1,) * (values.ndim - state.ndim))
        return {self.gate: state, self.site: jnp.take_along_axis(values, index, state.ndim)}

    def distributions(self):
        mixing = Categorical().distribution({"onehot": self.logits})
        components = self.family.distribution(self.natural)
        return {self.gate: mixing, self.site: dist.MixtureSameFamily(mixing, components)}

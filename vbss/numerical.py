"""The kind of unknowns whose maximiser no reading gives: degrees of freedom, shapes, weights of a network."""

import equinox as eqx
import jax
import jax.numpy as jnp
from numpyro.distributions import biject_to, constraints

from vbss.context import relaxed_promotion
from vbss.kinds import Kind


class Numerical(Kind):
    """Unknowns in which E_q[log p] is only smooth: a few L-BFGS steps in unconstrained coordinates, never downhill.

    Args:
        support: what the values keep to, as a NumPyro constraint.
        num_steps: L-BFGS steps in each update. A generalised M-step needs few: the next iteration goes on.
    """

    constraint: constraints.Constraint = eqx.field(static=True)
    num_steps: int = eqx.field(static=True)

    def __init__(self, support: constraints.Constraint = constraints.real, num_steps: int = 5):
        if num_steps < 1:
            raise ValueError(f"Numerical: num_steps must be at least 1, got {num_steps}")
        self.constraint = support
        self.num_steps = num_steps

    @property
    def support(self):
        return self.constraint

    def maximize(self, objective, value):
        import optax  # slow to import, and most models have no use for it

        start = self.unconstrain(value)
        optimizer = optax.lbfgs()

        def loss(unconstrained):
            return -objective(self.constrain(unconstrained))

        loss_and_gradient = optax.value_and_grad_from_state(loss)

        def step(carry, _):
            unconstrained, state = carry
            loss_here, gradient = loss_and_gradient(unconstrained, state=state)
            change, state = optimizer.update(
                gradient, state, unconstrained, value=loss_here, grad=gradient, value_fn=loss
            )
            return (optax.apply_updates(unconstrained, change), state), None

        with relaxed_promotion():
            (end, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), None, self.num_steps)
            is_better = loss(end) < loss(start)  # False for nan
        return jnp.where(is_better, self.constrain(jnp.asarray(end)), value)

    def perturbed(self, value, key):
        unconstrained = self.unconstrain(value)
        return self.constrain(unconstrained + jax.random.normal(key, unconstrained.shape, unconstrained.dtype) / 2)

    def unconstrain(self, value):
        with relaxed_promotion():
            return biject_to(self.constraint).inv(value)

    def constrain(self, unconstrained):
        with relaxed_promotion():
            return biject_to(self.constraint)(unconstrained)

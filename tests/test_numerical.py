import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import digamma, gammaln
from numpyro.distributions import constraints

from vbss.kinds import ReadKind
from vbss.numerical import Numerical


def test_a_smooth_objective_is_maximised_within_its_support():
    kind = Numerical(constraints.positive, num_steps=20)

    # The shape of gamma-distributed observations, whose likelihood has no closed mode.
    def objective(shape):
        return (3 * shape * jnp.log(shape) - 3 * gammaln(shape) - 4.2 * shape).sum()

    best = jax.jit(lambda v: kind.maximize(objective, v))(jnp.array([0.3, 5.0]))
    np.testing.assert_allclose(3 * (jnp.log(best) + 1 - digamma(best)) - 4.2, 0, atol=1e-6)
    assert best.shape == (2,) and not isinstance(kind, ReadKind)


def test_an_update_never_goes_downhill():
    kind = Numerical(num_steps=1)

    def objective(v):
        return -jnp.where(jnp.abs(v) < 1, jnp.cos(40 * v), jnp.nan).sum()

    start = jnp.array([0.3])
    end = kind.maximize(objective, start)
    assert jnp.isfinite(end).all() and objective(end) >= objective(start)


def test_coordinates_are_unconstrained_and_back():
    kind = Numerical(constraints.positive)
    value = jnp.array([0.5, 3.0])
    np.testing.assert_allclose(kind.constrain(kind.unconstrain(value)), value, rtol=1e-12)
    assert (kind.perturbed(value, jax.random.key(0)) > 0).all()
    with pytest.raises(ValueError, match="num_steps"):
        Numerical(num_steps=0)

import jax.numpy as jnp
import numpyro.distributions as dist

from vbss.context import relaxed_promotion
from vbss.distributions import (
    ComplexMultivariateNormal,
    ComplexNormal,
    Indicator,
    MarkovChain,
)
from vbss.families import (
    Categorical,
    ComplexGaussian,
    DiscreteChain,
    Gamma,
    Gaussian,
    statistics_family,
    value_family,
)


def test_the_family_of_a_latent():
    zeros = jnp.zeros(2)
    with relaxed_promotion():
        assert value_family(dist.Normal(zeros, 1.0)) == Gaussian(0)
        assert value_family(dist.MultivariateNormal(zeros, jnp.eye(2))) == Gaussian(1)
        assert value_family(dist.Normal(zeros, 1.0).to_event(1)) == Gaussian(1)
        assert value_family(dist.Gamma(1.0, 1.0)) == Gamma()
        assert value_family(ComplexNormal(zeros, 1.0)) == ComplexGaussian(0)
        assert value_family(ComplexMultivariateNormal(zeros, jnp.eye(2))) == ComplexGaussian(1)
        assert statistics_family(Indicator(zeros, -2)) == Categorical(-2)
        assert statistics_family(MarkovChain(zeros, jnp.zeros((2, 2)), 3)) == DiscreteChain()


def test_latents_of_no_family():
    zeros = jnp.zeros(2)
    with relaxed_promotion():
        for other in [
            dist.Normal(jnp.zeros((2, 2)), 1.0).to_event(2),
            dist.LogNormal(0.0, 1.0),
            dist.StudentT(3.0),
            dist.InverseGamma(1.0, 1.0),
            dist.TruncatedNormal(low=0.0),
            dist.LowRankMultivariateNormal(zeros, jnp.ones((2, 1)), jnp.ones(2)),
            dist.Categorical(logits=zeros),
        ]:
            assert value_family(other) is None
            assert statistics_family(other) is None

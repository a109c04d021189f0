"""What ArviZ is given: draws, the bound and the data, in the container of its version."""

import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import xarray

import vbss
from vbss.errors import InputError
from vbss.export import to_arviz
from vbss.factors import StatisticsFactor
from vbss.families import Categorical
from vbss.posteriors import AbstractPosterior, Posterior

# ArviZ announces its own next version, once a day.
pytestmark = pytest.mark.filterwarnings(r"ignore:\s*ArviZ is undergoing a major refactor:FutureWarning")


class Drawn(AbstractPosterior):
    """A posterior of a real, a complex and a discrete site."""

    def __getitem__(self, name):
        raise NotImplementedError

    def names(self):
        return {"x", "c", "z"}

    def sample(self, key, num_samples):
        x = jr.normal(key, (num_samples, 3))
        return {"x": x, "c": jax.lax.complex(x[:, 0], x[:, 1]), "z": jr.bernoulli(key, 0.5, (num_samples, 2))}


class Chains(Drawn):
    """What MCMC leaves."""

    samples: dict[str, jax.Array]


class Nothing(vbss.Model):
    def __call__(self):
        pass


def solution(posterior, elbo=(-3.0, -2.0, -1.5)):
    return vbss.Solution(Nothing(), posterior, np.array(elbo), vbss.Status.max_steps, 2)


def from_dict(groups):
    """What `from_dict` takes and gives from ArviZ 1.0 on."""

    def variable(group, name, value):
        sample_dims = () if "data" in group else ("chain", "draw")
        return (*sample_dims, *(f"{name}_dim_{axis}" for axis in range(value.ndim - len(sample_dims)))), value

    return xarray.DataTree.from_dict(
        {
            group: xarray.Dataset({name: variable(group, name, value) for name, value in values.items()})
            for group, values in groups.items()
        }
    )


@pytest.fixture(params=["installed", "1.0"])
def arviz(request, monkeypatch):
    """The installed ArviZ, and one of the interface of 1.0."""
    if request.param == "1.0":
        monkeypatch.setitem(sys.modules, "arviz", SimpleNamespace(__version__="1.0.0", from_dict=from_dict))


def test_draws_are_one_chain(arviz):
    found = to_arviz(solution(Drawn()), key=jr.key(3), num_samples=5)
    expected = Drawn().sample(jr.key(3), 5)
    assert set(found.posterior.data_vars) == set(expected)
    for name, draws in expected.items():
        variable = found.posterior[name]
        assert variable.dims[:2] == ("chain", "draw") and variable.dtype == draws.dtype
        np.testing.assert_array_equal(variable.values, draws[None])


def test_the_bound_has_a_dimension_of_its_own(arviz):
    found = to_arviz(solution(Drawn()), num_samples=2)
    assert found.sample_stats.elbo.dims == ("step",)
    np.testing.assert_array_equal(found.sample_stats.elbo, [-3.0, -2.0, -1.5])
    np.testing.assert_array_equal(found.sample_stats.step, [0, 1, 2])


def test_data_are_observed(arviz):
    y = jnp.arange(6.0).reshape(2, 3)
    found = to_arviz(solution(Drawn()), num_samples=2, data={"y": y, "n": 4})
    np.testing.assert_array_equal(found.observed_data.y, y)
    assert found.observed_data.y.dims == ("y_dim_0", "y_dim_1")
    assert found.observed_data.n == 4


def test_chains_are_taken_as_they_are(arviz):
    chains = {"x": jr.normal(jr.key(0), (4, 6, 3))}
    found = to_arviz(solution(Chains(chains), elbo=()))
    np.testing.assert_array_equal(found.posterior.x, chains["x"])
    assert "sample_stats" not in found and "observed_data" not in found


def test_draws_are_those_of_the_posterior():
    logits = jnp.log(jnp.array([[0.9, 0.1], [0.3, 0.7]]))
    factor = StatisticsFactor({"onehot": logits}, Categorical(), "component")
    posterior = Posterior({"component": factor}, {}, (), ("component",))
    found = solution(posterior).to_arviz(num_samples=400, data={"y": logits})
    assert found.posterior.component.shape == (1, 400, 2)
    np.testing.assert_allclose(found.posterior.component.mean(("chain", "draw")), [0.1, 0.7], atol=0.1)
    assert found.observed_data.y.shape == (2, 2)


def test_no_arviz_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz", None)
    with pytest.raises(ImportError, match=r"pip install 'vbss\[arviz\]'"):
        to_arviz(solution(Drawn()))


def test_bad_numbers_and_empty_posteriors_are_refused():
    with pytest.raises(InputError, match="num_samples must be a whole number, 1 or more, got 0"):
        to_arviz(solution(Drawn()), num_samples=0)
    with pytest.raises(InputError, match="no latent sites"):
        to_arviz(solution(Chains({})))

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vbss.models import by_frequency
from vbss.models.by_frequency import mapped, summed


@pytest.fixture(params=[1, 20, 35, 1000])
def few_at_a_time(request, monkeypatch):
    """Stretches of one frequency, of a few that do not divide them evenly, and of all."""
    monkeypatch.setattr(by_frequency, "_CPU_BINS", request.param)


@pytest.fixture
def rows():
    keys = jax.random.split(jax.random.key(0))
    return {
        "values": jax.random.normal(keys[0], (11, 10)),
        "counts": jax.random.bernoulli(keys[1], 0.6, (11, 10)),
        "none": None,
    }


def test_stretches_make_up_the_whole(few_at_a_time, rows):
    def function(rows):
        return rows["values"].cumsum(1), jnp.where(rows["counts"], rows["values"], 0)

    for found, expected in zip(mapped(function, rows, 10), function(rows), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_sums_leave_out_what_makes_the_stretches_equal(few_at_a_time, rows):
    def function(rows):
        return {"kept": jnp.where(rows["counts"], rows["values"], 0).sum(0), "number": rows["counts"].sum()}

    found, expected = summed(function, rows, 10), function(rows)
    np.testing.assert_allclose(found["kept"], expected["kept"], rtol=1e-12)
    assert found["number"] == expected["number"]

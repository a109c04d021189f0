"""The five programs keep the whole contract."""

import jax.random as jr
import pytest
from programs import PROBLEMS

import vbss
from vbss.context import relaxed_promotion


@pytest.mark.parametrize("name", PROBLEMS)
def test_program_keeps_the_contract(name):
    with relaxed_promotion():
        model, data = PROBLEMS[name](jr.key(21))
    report = vbss.check_derivation(model, data, key=jr.key(22), num_states=2)
    assert report.passed, f"\n{report}"
    assert all(row.verdict == "ok" for row in report.rows), f"\n{report}"  # nothing is skipped
    assert max(check.gradient for check in report.blocks) < 1e-9
    assert (report.elbo_difference is None) == (not model.closed_forms())

"""Programs keep the contract (their blocks: `test_every_program.py`)."""

import jax.random as jr
import pytest
from programs import PROBLEMS

from vbss.check.contract import State, check_contract
from vbss.check.report import Derivation
from vbss.context import relaxed_promotion
from vbss.factorization import initial_posterior
from vbss.inference import EM


@pytest.mark.parametrize("name", ["gaussian mixture", "lda-cgmm", "vessl"])
def test_program_keeps_the_contract(name):
    with relaxed_promotion():
        model, data = PROBLEMS[name](jr.key(21))
    state, other = (State(model, initial_posterior(model, data, jr.key(seed)), data) for seed in (22, 23))
    rows = check_contract(EM(), state, other, jr.key(24), 1e-10)
    assert all(row.verdict == "ok" for row in rows), f"\n{Derivation((), rows, 1e-10)}"

"""`check_derivation`: proof that a model's updates, hand-derived or derived, belong to its program."""

from collections.abc import Iterable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbss.check.blocks import check_blocks
from vbss.check.contract import State, check_contract
from vbss.check.report import BlockCheck as BlockCheck
from vbss.check.report import Derivation as Derivation
from vbss.check.report import Row as Row
from vbss.errors import whole_number
from vbss.factorization import initial_posterior
from vbss.inference.em import EM
from vbss.inference.fit import prepare
from vbss.posteriors import Posterior
from vbss.program import Model


def check_derivation(
    model: Model,
    data: Any,
    *,
    key: Array | None = None,
    start: Mapping[str, Any] | None = None,
    num_states: int = 4,
    blocks: Iterable[Iterable[str]] | None = None,
    at_mode: Iterable[str] | None = None,
    contract: bool = True,
) -> Derivation:
    """Compare a model's updates with its program at several states of the inference, and test what else must hold.

    For every block: the hand-derived update, if there is one, equals the derived one; after it the bound has zero
    gradient in the block's coordinates; it never lowers the bound. A closed-form bound equals E_q[log p - log q] of
    the program. The contract beside these:

    - probes: the program is what derived updates take for granted.
    - E_q[log p] = Monte Carlo: the exact expectation is the mean of NumPyro's own log density of the program over
      draws from q.
    - one trace: an iteration can go on from its own result without a second compilation.
    - vmap = loop: two inferences as a batch have the bounds that they have one by one.
    - float32 = float64: the bounds before and after an iteration, in both precisions.
    - two devices = one: likewise with the data shared out over two devices.
    - saved and loaded: `vbss.save` and `vbss.load` give back a model and posterior of the same bound.

    Use a small problem: every block is compiled on its own, and the contract compiles the iteration four times, the
    probes and NumPyro's log density once, which takes several times as long as the blocks.

    Args:
        data: as for `vbss.fit`.
        key: JAX random key of the random start and all draws; by default `jax.random.key(0)`.
        start: as for `vbss.fit`; by default all indicators start at random.
        num_states: consecutive iterations at which every block is checked.
        blocks, at_mode: the factorisation, as for `vbss.EM`; hand-derived updates hold for the model's own.
        contract: whether to test more than blocks and closed forms.

    Raises:
        InputError: for data, a start or a factorisation that cannot be the model's. What fails is never an exception,
            but a line of the report.
    """
    key = jax.random.key(0) if key is None else key
    algorithm = EM(blocks=blocks, at_mode=at_mode)
    num_states = whole_number("num_states", num_states, 1)
    arguments = prepare(model, data)
    chosen = {name: jnp.asarray(value) for name, value in (start or {}).items()}

    def begin(key: Array) -> State:
        posterior = initial_posterior(model, arguments, key, chosen, algorithm.blocks, algorithm.at_mode)
        return State(model, posterior, arguments)

    state = begin(key)
    tolerance = float(jnp.finfo(_precision(algorithm, state)).eps) ** 0.5
    checks, rows = check_blocks(algorithm, *state, num_states, tolerance)
    if contract:
        key_other, key_contract = jax.random.split(key)
        rows += check_contract(algorithm, state, begin(key_other), key_contract, tolerance)
    return Derivation(checks, rows, tolerance)


def _precision(algorithm: EM, state: State) -> jnp.dtype:
    """The type of the bound."""

    def bound(model: Model, posterior: Posterior, data: tuple) -> Array:
        return algorithm.elbo(model, posterior, data, algorithm.constants(model, posterior, data))

    return eqx.filter_eval_shape(bound, *state).dtype

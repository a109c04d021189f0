"""What algorithms of expectation maximisation share whose expectations are averages over draws."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbss.inference.algorithm import Algorithm, Start, check_frozen
from vbss.inference.sampled_step import Draws, coefficients_of, unknowns
from vbss.inference.step_size import StepSize
from vbss.inference.stopping import Steady
from vbss.inference.unconstrained import Unconstrained, model_start, starting_points, unconstrained
from vbss.kinds import ReadKind
from vbss.probes import is_proven, probe
from vbss.program import Model


class SampledEM(Algorithm):
    """Steps of the weight rho_n = step_size (1 + n / delay)^-forgetting, until what is climbed is steady."""

    step_size: eqx.AbstractVar[float]
    delay: eqx.AbstractVar[float]
    forgetting: eqx.AbstractVar[float]
    tolerance: eqx.AbstractVar[float]
    window: eqx.AbstractVar[int]

    @property
    def rule(self):
        return Steady(self.tolerance, self.window)

    @property
    def _steps(self) -> StepSize:
        return StepSize(type(self).__name__, self.step_size, self.delay, self.forgetting)

    def constants(self, model, state, data):
        return unconstrained(model, data, state.points, jax.random.key(0), probes=False)

    def _begun(
        self, model: Model, data: tuple, start: Start, keys: tuple[Array, Array, Array]
    ) -> tuple[Start, Unconstrained]:
        """The start, by default the model's own, and the density at its points, after tests of the program.

        Args:
            keys: of the target, of the probes, of the start.
        """
        key_target, key_probe, key_start = keys
        start = model_start(model, data, key_start) if start is None else start
        target = unconstrained(model, data, starting_points(start), key_target, probes=True)
        collapsed = target.collapsed
        check_frozen(self.frozen, model, collapsed.points)
        if not is_proven(model):
            blocks = unknowns(model, target, self.frozen)
            probe(model, collapsed.at(collapsed.initial(key_probe)), data, key_probe, blocks)
        return start, target

    def _no_coefficients(
        self, model: Model, target: Unconstrained, data: tuple, draws: Callable[[Unconstrained], Draws]
    ) -> dict[str, Any]:
        """Running coefficients before the first step: zeros."""
        blocks = unknowns(model, target, self.frozen)
        kinds = {name: kind for name, kind, _ in target.collapsed.kinds} | model.parameter_kinds()
        if not any(isinstance(kinds[name], ReadKind) for name in blocks):
            return {}  # known without a trace of the program, which takes longer than several steps
        shapes = eqx.filter_eval_shape(
            lambda model, target: coefficients_of(model, target, data, blocks, draws(target)), model, target
        )
        return jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)

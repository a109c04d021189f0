"""Variational EM whose q comes from a network, which may be tuned to the data at hand.

Source: Leglaive, Alameda-Pineda, Girin and Horaud, "A recurrent variational autoencoder for speech enhancement" (2020).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from vbss.context import relaxed_promotion
from vbss.errors import InputError, positive, whole_number
from vbss.inference.algorithm import names_of
from vbss.inference.loop import strong
from vbss.inference.reparameterised import drawn, estimated_bound, means_of, normal_posterior, normals_of
from vbss.inference.sampled_em import SampledEM
from vbss.inference.sampled_step import draws_at, improved, unknowns
from vbss.inference.unconstrained import Unconstrained, unconstrained

_LARGEST_GRADIENT = 1.0  # of the bound per number of data


class AmortisedEMState(eqx.Module):
    """Where the inference stands.

    Attributes:
        network: as it is tuned so far.
        codes: the latents' means at the last step, from which `heard` says what the network is shown; without it None.
        optimizer: its state.
        points: the program's points.
        coefficients: running coefficients of the unknowns' statistics.
        num_steps: steps taken.
        key: of the draws to come.
    """

    network: Any
    codes: dict[str, Array] | None
    optimizer: Any
    points: dict[str, Array]
    coefficients: dict[str, Any]
    num_steps: Int[Array, ""]
    key: Array


class AmortisedEM(SampledEM):
    """EM for programs with real latents whose q, independent normals, a network says of any data.

    A step first moves the network up the bound of these data, estimated at a draw of q, and then the points and
    parameters by draws of q, as `MonteCarloEM` does. Without moves of the network this is the cheapest inference, and
    just as good as the network is on such data.

    `solution.elbo` holds the estimates of the bound. `solution.posterior["site"]` is a normal distribution.

    Args:
        network: takes the program's arguments and returns {latent: (mean, log variance)}; a network trained with the
            model (`vbss.train` and `AmortisedNormal`).
        heard: what the network is shown in the data's stead, where it knows a part of what they hold: called as
            heard(model, points, {latent: mean}, *data) before every step; the first means are those of a start that is
            a dict with values of the latents, or what the network says of the data. With a network that stays as it is,
            these are the updates of Pariente, Deleforge and Vincent, "A statistically principled and computationally
            efficient approach to speech enhancement using variational autoencoders" (2019), but that sources are
            integrated out where they have q(s).
        learning_rate: of Adam, by which the network moves. Larger ones may diverge.
        num_gradient_steps: moves of the network in a step; with 0 it stays as it is.
        num_draws: of q, in each M-step.
        kl_weight: of KL(q || prior) in the bound.
        step_size, delay, forgetting: of the M-step, as for `MonteCarloEM`.
        tolerance, window: of the `Steady` at which the bound is taken to have settled.
        frozen: parameters and points that stay as they are.
    """

    network: Callable[..., Any]
    heard: Callable[..., tuple] | None = eqx.field(static=True)
    learning_rate: float = eqx.field(static=True)
    num_gradient_steps: int = eqx.field(static=True)
    num_draws: int = eqx.field(static=True)
    kl_weight: float = eqx.field(static=True)
    step_size: float = eqx.field(static=True)
    delay: float = eqx.field(static=True)
    forgetting: float = eqx.field(static=True)
    tolerance: float = eqx.field(static=True)
    window: int = eqx.field(static=True)
    frozen: tuple[str, ...] = eqx.field(static=True)

    def __init__(
        self,
        network: Callable[..., Any],
        *,
        heard: Callable[..., tuple] | None = None,
        learning_rate: float = 1e-3,
        num_gradient_steps: int = 1,
        num_draws: int = 1,
        kl_weight: float = 1.0,
        step_size: float = 1.0,
        delay: float = 20.0,
        forgetting: float = 0.0,
        tolerance: float = 3e-3,
        window: int = 50,
        frozen: Iterable[str] = (),
    ):
        if not callable(network):
            raise InputError(f"network must be a module that is called with the data, got {type(network).__name__}")
        self.network, self.heard = network, heard
        self.learning_rate = positive("AmortisedEM: learning_rate", learning_rate)
        self.num_gradient_steps = whole_number("AmortisedEM: num_gradient_steps", num_gradient_steps, 0)
        self.num_draws = whole_number("AmortisedEM: num_draws", num_draws, 1)
        self.kl_weight = positive("AmortisedEM: kl_weight", kl_weight)
        self.step_size, self.delay, self.forgetting = step_size, delay, forgetting
        self.tolerance, self.window, self.frozen = tolerance, window, names_of(frozen)
        _ = self._steps, self.rule  # which check their settings

    @property
    def default_steps(self):
        return 200

    @property
    def _optimizer(self) -> Any:
        import optax  # slow to import, and the command line has no use for it

        return optax.chain(optax.clip_by_global_norm(_LARGEST_GRADIENT), optax.adam(self.learning_rate))

    def begin(self, model, data, start, key):
        key, key_target, key_probe, key_start = jax.random.split(key, 4)
        start, target = self._begun(model, data, start, (key_target, key_probe, key_start))
        if target.discrete or not target.size:
            raise InputError(
                "AmortisedEM: the program must have continuous latents alone: infer others with vbss.EM or "
                "vbss.MonteCarloEM"
            )
        codes = None if self.heard is None else self._first_codes(start, data)
        normals = normals_of(self.network, self._shown(model, target.collapsed.points, codes, data))
        jax.eval_shape(lambda: estimated_bound(model, data, target.collapsed.points, normals, key_probe))
        zeros = self._no_coefficients(model, target, data, lambda target: self._draws(target, normals, key_probe))
        network = strong(self.network)
        optimizer = strong(self._optimizer.init(eqx.filter(network, eqx.is_inexact_array)))
        return AmortisedEMState(network, codes, optimizer, target.collapsed.points, zeros, jnp.int32(0), key)

    def owns(self, state):
        return isinstance(state, AmortisedEMState)

    def step(self, model, state, data, constants):
        target = constants.at(model, state.points)
        key_tune, key_draws, key = jax.random.split(state.key, 3)
        shown = self._shown(model, state.points, state.codes, data)
        network, optimizer, bound = self._tuned(model, state, data, shown, key_tune)
        normals = normals_of(network, shown)
        draws = self._draws(target, normals, key_draws)
        rho = self._steps.at(state.num_steps, bound.dtype)
        blocks = unknowns(model, target, self.frozen)
        model, points, coefficients = improved(model, target, data, blocks, draws, state.coefficients, rho)
        codes = None if state.codes is None else means_of(normals)
        return model, AmortisedEMState(network, codes, optimizer, points, coefficients, state.num_steps + 1, key), bound

    def posterior(self, model, state, data):
        target = unconstrained(model, data, state.points, jax.random.key(0), probes=False)
        normals = normals_of(state.network, self._shown(model, state.points, state.codes, data))
        sites = target.collapsed.sites(means_of(normals))
        event_ranks = {name: sites[name].event_rank for name in normals}
        return normal_posterior(normals, state.points, event_ranks, state.key)

    def _tuned(
        self, model: Any, state: AmortisedEMState, data: tuple, shown: tuple, key: Array
    ) -> tuple[Any, Any, Array]:
        """The network after its moves, the optimiser's state, and the bound before."""
        moving, fixed = eqx.partition(state.network, eqx.is_inexact_array)
        size = jax.tree.leaves(data)[0].size

        def loss(moving: Any, key: Array) -> Array:
            normals = normals_of(eqx.combine(moving, fixed), shown)
            return -estimated_bound(model, data, state.points, normals, key, self.kl_weight) / size

        def step(carry: tuple[Any, Any], key: Array) -> tuple[tuple[Any, Any], Array]:
            moving, optimizer = carry
            value, gradient = jax.value_and_grad(loss)(moving, key)
            with relaxed_promotion():
                change, optimizer = self._optimizer.update(gradient, optimizer, moving)
                moving = jax.tree.map(lambda a, b: a + b.astype(a.dtype), moving, change)
            return (moving, optimizer), -value * size

        if self.num_gradient_steps == 0:
            return state.network, state.optimizer, -loss(moving, key) * size
        keys = jax.random.split(key, self.num_gradient_steps)
        (moving, optimizer), bounds = jax.lax.scan(step, (moving, state.optimizer), keys)
        return eqx.combine(moving, fixed), optimizer, bounds[0]

    def _first_codes(self, start: Any, data: tuple) -> dict[str, Array]:
        means = means_of(normals_of(self.network, data))
        if isinstance(start, Mapping) and set(means) <= set(start):
            return {name: jnp.asarray(start[name], mean.dtype) for name, mean in means.items()}
        return means

    def _shown(self, model: Any, points: dict[str, Array], codes: dict[str, Array] | None, data: tuple) -> tuple:
        if self.heard is None or codes is None:
            return data
        with relaxed_promotion():
            return tuple(self.heard(model, points, codes, *data))

    def _draws(self, target: Unconstrained, normals: dict[str, tuple[Array, Array]], key: Array) -> Any:
        keys = jax.random.split(key, self.num_draws)
        return draws_at(target, jax.vmap(lambda key: target.position(drawn(normals, key)))(keys))

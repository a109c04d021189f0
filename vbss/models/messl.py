"""MESSL: sources of a binaural recording told apart by interaural phase and level; exact EM."""

from collections.abc import Callable, Mapping

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from vbss.densities import Normal, WrappedResidual
from vbss.errors import InputError, positive, whole_number
from vbss.gated import Gated
from vbss.kinds import Linear, Simplex, Variance
from vbss.models import messl_closed_forms, messl_start
from vbss.models.messl_start import LEVEL_VARIANCE
from vbss.program import Model, indicator, point

_WIDEST_DELAY = 2 * 0.15 / 340  # s: twice the time that sound takes between the ears


class MESSL(Model):
    """phase_ft | class c, delay k ~ wrap(omega_f tau_k + N(xi_fck, sigma^2_fck)), level_ft | c ~ N(mu_fc, eta^2_fc).

    Every bin has one class and one delay, drawn with the joint weights psi_ck. Differences are left against right:
    phase angle(left conj(right)) in rad, level 20 log10 |left / right| in dB, and a positive delay tau means that the
    left ear leads, so that a source on the left has positive delays and levels. (The source has both with the other
    sign.) Both variances and means may be tied over bands of frequencies. A garbage class is like another source; only
    its start tells it apart.

    Source: Mandel, Weiss and Ellis, "Model-based expectation-maximization source separation and localization" (2010).
    The pseudo-observations that keep variances from vanishing are ours.

    Attributes:
        angular_frequencies: omega, rad/s, shape (F,).
        delays: tau, s, shape (K,).
        bands: for each frequency the slot that holds its phase parameters xi and sigma^2, shape (F,), each from 0 to
            F - 1. Frequencies of one slot share them; slots of no frequency keep their values. One compiled program
            serves all ties.
        level_bands: the same for its level parameters mu and eta^2.
        level_prior_mean: of mu, dB, shape (F, C).
        level_prior_count: kappa >= 0, how many observations of that mean each frequency and class has seen, (F, C).
        pseudo_count: > 0, how many observations of zero mean and of variance 1 rad^2 or 100 dB^2 each frequency, class
            and delay has seen.
        num_sources: I.
        has_garbage: whether there is a class of what belongs to no source, the last one.

    The program takes `phase_difference` (F, T) and `level_difference` (F, T), and optionally `is_observed`, boolean
    (F, T): what other bins hold is integrated out. Sites: `label` (F, T plates; C K states, the delays of a class side
    by side), `phase_difference`, `level_difference`. Points, all of one recording: `log_weights` (log psi, (C K,)),
    `phase_loc` (xi, (F, C, K)), `phase_variance` (sigma^2), `level_loc` (mu, (F, C)), `level_variance` (eta^2), their
    first axis being the slots.
    """

    angular_frequencies: Float[Array, " f"]
    delays: Float[Array, " k"]
    bands: Int[Array, " f"]
    level_bands: Int[Array, " f"]
    level_prior_mean: Float[Array, "f c"]
    level_prior_count: Float[Array, "f c"]
    pseudo_count: Float[Array, ""]
    num_sources: int = eqx.field(static=True)
    has_garbage: bool = eqx.field(static=True, default=False)

    schedule = ("label", "log_weights", "phase_loc", "phase_variance", "level_loc", "level_variance")

    @classmethod
    def init(
        cls,
        frequencies: ArrayLike,
        num_sources: int,
        *,
        has_garbage: bool = False,
        delays: ArrayLike | None = None,
        pseudo_count: float = 1e-3,
    ) -> "MESSL":
        """A model for any recording with these frequencies, all untied, and without a prior of levels.

        Args:
            frequencies: of the bins, Hz, all above zero, shape (F,).
            num_sources: I, at least 1.
            has_garbage: whether there is a class of what belongs to no source.
            delays: tau, s; by default 31 that reach twice the distance of the ears either way.
            pseudo_count: see the class.

        Raises:
            InputError: for frequencies, delays or a number out of range.
        """
        num_sources = whole_number("num_sources", num_sources, 1)
        hertz = _row("frequencies", frequencies)
        if not (hertz > 0).all():
            raise InputError("frequencies must all be above 0 Hz: there is no phase difference at 0 Hz.")
        delays = np.linspace(-_WIDEST_DELAY, _WIDEST_DELAY, 31) if delays is None else _row("delays", delays)
        if len(delays) < num_sources or not (np.diff(delays) > 0).all():
            raise InputError(f"delays must increase and be {num_sources} or more, got {delays}.")
        each = jnp.arange(len(hertz), dtype=jnp.int32)
        flat = jnp.zeros((len(hertz), num_sources + has_garbage))
        weight = jnp.asarray(positive("pseudo_count", pseudo_count))
        omega = jnp.asarray(2 * np.pi * hertz)
        return cls(omega, jnp.asarray(delays), each, each, flat, flat, weight, num_sources, has_garbage)

    @property
    def num_classes(self) -> int:
        """C: the sources, and the garbage if there is any."""
        return self.num_sources + self.has_garbage

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frequencies, classes and delays: F, C, K."""
        return len(self.angular_frequencies), self.num_classes, len(self.delays)

    def shift(self, dtype: jnp.dtype) -> Float[Array, "f k"]:
        """omega_f tau_k, rad."""
        return (self.angular_frequencies[:, None] * self.delays[None]).astype(dtype)

    def with_level_prior(
        self, source_delays: Float[Array, " i"], num_frames: int, strength: float | Array = 3.0
    ) -> "MESSL":
        """The same with the levels of a human-sized head expected of each source, none of the garbage.

        Args:
            source_delays: of each source, s.
            num_frames: T of the recording: each frequency has seen strength T / 100 observations before.
        """
        sources = messl_start.head_levels(self.angular_frequencies, source_delays.astype(self.delays.dtype))
        padding = [(0, 0), (0, self.num_classes - self.num_sources)]
        counts = jnp.full(sources.shape, strength * num_frames / 100, sources.dtype)
        return self.replace(  # type: ignore[return-value]
            level_prior_mean=jnp.pad(sources, padding), level_prior_count=jnp.pad(counts, padding)
        )

    def log_prior(
        self,
        phase_loc: Float[Array, "f c k"],
        phase_variance: Float[Array, "f c k"],
        level_loc: Float[Array, "f c"],
        level_variance: Float[Array, "f c"],
    ) -> Float[Array, ""]:
        """The log density of the pseudo-observations, of parameters by frequency: no normalised prior, but a factor."""
        dtype = phase_loc.dtype
        weight = self.pseudo_count.astype(dtype)
        kappa, mean = self.level_prior_count.astype(dtype), self.level_prior_mean.astype(dtype)

        def expected(squared_error: Array, variance: Array) -> Array:
            return -(squared_error / variance + jnp.log(2 * jnp.pi * variance)) / 2

        levels = (kappa * expected((level_loc - mean) ** 2, level_variance)).sum()
        phases_of_nothing = expected(phase_loc**2 + 1, phase_variance).sum()
        levels_of_nothing = expected(level_loc**2 + LEVEL_VARIANCE, level_variance).sum()
        return levels + weight * (phases_of_nothing + levels_of_nothing)

    def __call__(
        self,
        phase_difference: Float[Array, "f t"],
        level_difference: Float[Array, "f t"],
        is_observed: Bool[Array, "f t"] | None = None,
    ) -> None:
        num_frequencies, num_classes, num_delays = self.shape
        dtype = phase_difference.dtype
        states = (num_frequencies, num_classes, num_delays)
        uniform = jnp.full(num_classes * num_delays, -jnp.log(num_classes * num_delays), dtype)
        log_weights = point("log_weights", uniform, Simplex())
        phase_loc = point("phase_loc", jnp.zeros(states, dtype), Linear())[self.bands]
        phase_variance = point("phase_variance", jnp.ones(states, dtype), Variance())[self.bands]
        level_loc = point("level_loc", jnp.zeros(states[:2], dtype), Linear())[self.level_bands]
        level_variance = point("level_variance", jnp.full(states[:2], LEVEL_VARIANCE, dtype), Variance())
        level_variance = level_variance[self.level_bands]
        log_prior = self.log_prior(phase_loc, phase_variance, level_loc, level_variance)
        numpyro.factor("pseudo_observations", log_prior)

        if is_observed is None:
            is_observed = jnp.ones(phase_difference.shape, bool)
        num_frames = is_observed.shape[1]
        with numpyro.plate("frequencies", num_frequencies, dim=-2), numpyro.plate("frames", num_frames, dim=-1):
            label = indicator("label", log_weights)
            in_class = label.reshape(*label.shape[:-1], num_classes, num_delays).sum(-1)
            phase = WrappedResidual(
                shift=("fj", jnp.tile(self.shift(dtype), (1, num_classes))),
                loc=("fj", phase_loc.reshape(num_frequencies, -1)),
                variance=("fj", phase_variance.reshape(num_frequencies, -1)),
            )
            level = Normal(("fc", level_loc), ("fc", 1 / level_variance))
            # What other bins hold must not reach a product, not even one with zero.
            heard_phase, heard_level = (jnp.where(is_observed, x, 0) for x in (phase_difference, level_difference))
            gated = Gated("ft", {"ftj": label}, phase).mask(is_observed)
            numpyro.sample("phase_difference", gated, obs=heard_phase)
            gated = Gated("ft", {"ftc": in_class}, level).mask(is_observed)
            numpyro.sample("level_difference", gated, obs=heard_level)

    def start(
        self,
        key: Array,
        phase_difference: Float[Array, "f t"],
        level_difference: Float[Array, "f t"],
        is_observed: Bool[Array, "f t"] | None = None,
    ) -> Mapping[str, Array]:
        """Peaks of the histogram of delays (`vbss.models.messl_start.start`)."""
        return messl_start.start(self, phase_difference, is_observed)

    def closed_forms(self) -> Mapping[str, Callable]:
        return messl_closed_forms.CLOSED_FORMS

    def validate(self, phase_difference: Array, level_difference: Array, is_observed: Array | None = None) -> None:
        num_frequencies = len(self.angular_frequencies)
        if phase_difference.ndim != 2 or len(phase_difference) != num_frequencies:
            raise InputError(
                f"phase_difference must have shape (frequencies, frames) with the model's {num_frequencies} "
                f"frequencies, got {phase_difference.shape}."
            )
        if level_difference.shape != phase_difference.shape:
            raise InputError(
                f"level_difference must have the shape of phase_difference, {phase_difference.shape}, got "
                f"{level_difference.shape}."
            )
        for name, value in (("phase_difference", phase_difference), ("level_difference", level_difference)):
            if not jnp.issubdtype(value.dtype, jnp.floating) or value.dtype != phase_difference.dtype:
                raise InputError(f"{name} must be real floating numbers, both of one type, got {value.dtype}.")
        if is_observed is not None and (is_observed.shape != phase_difference.shape or is_observed.dtype != bool):
            raise InputError(
                f"is_observed must be boolean of shape {phase_difference.shape}, got {is_observed.dtype} of shape "
                f"{is_observed.shape}."
            )
        for name, bands in (("bands", self.bands), ("level_bands", self.level_bands)):
            if bands.shape != (num_frequencies,) or not bool(((bands >= 0) & (bands < num_frequencies)).all()):
                raise InputError(
                    f"{name} must hold a slot from 0 to {num_frequencies - 1} for each of the {num_frequencies} "
                    f"frequencies, got {bands}."
                )


def _row(name: str, values: ArrayLike) -> np.ndarray:
    """Finite numbers in a row, float64."""
    row = np.asarray(values, np.float64)
    if row.ndim != 1 or row.size == 0 or not np.isfinite(row).all():
        raise InputError(f"{name} must be a row of finite numbers, got an array of shape {row.shape}.")
    return row

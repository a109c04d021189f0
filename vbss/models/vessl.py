"""Several sources on the binaural manifold: positions and masks together, from a learnt map; variational EM."""

from collections.abc import Callable, Mapping
from math import log

import equinox as eqx
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Bool, Float, Int

from vbss.densities import Normal
from vbss.errors import InputError
from vbss.gated import Gated
from vbss.kinds import Precision, Simplex
from vbss.models import vessl_closed_forms, vessl_start
from vbss.models.affine_pieces import AffinePieces, PiecewisePosterior
from vbss.models.ppam import PPAM
from vbss.posteriors import Posterior
from vbss.program import Given, Model, indicator, point


class VESSL(Model):
    """z_m ~ Cat(pi), x_m | z_m = k ~ N(c_k, Gamma_k), w_ft ~ Cat(lambda_f), y_cft | w_ft = m ~ N(y(x_m), sigma_cf^2).

    Every bin belongs to one of M sources, whose cues are what the map `PPAM` predicts at the source's position, with
    the noise of single frames. Source: A. Deleforge, F. Forbes and R. Horaud, "Variational EM for binaural sound-source
    separation and localization" (2013).

    Bins of a frame may be tied: those of one block share a label (the paper's progressive masking). The label stands at
    the block's place in `labels`, which differs between levels in its values alone, so that one compiled program serves
    all. A tied label counts once, whatever the size of its block, else the mixing weights would decide for it. What
    that adds to the density of the bins untied is in the program, too: the bounds of all levels bound the same
    evidence, and none falls when a block is divided.

    Attributes:
        pieces: the map of the D cues that there are.
        places: where each of them stands among all C F cues, (D,).
        cue_means: what centres the cues, (C, F).
        is_cue: which cues there are, (C, F).
        noise_variance, noise_count: cues seen before, so many and of that variance, (C, 1) and scalar: a prior that
            keeps sigma^2 from vanishing.
        weight_count: bins of each source seen before at every frequency, a prior of lambda.
        outlier_probability: of a class of bins that belong to no source; not used without.
        outlier_precision: 1 / its variance about the mean of all directions, (C, F).
        labels: the place of every frequency's label, (F,); arange(F) is untied, and so is None, which costs less.
        num_sources: M.
        has_outliers: whether there is a class of outliers, the last one.

    The program takes `cues` (C, F, T) and `is_observed`, boolean (F, T): bins that were not are integrated out,
    whatever finite values they hold. Sites: `piece` (z) and `position` (x; M plate), `source` (w; F, T plates), `cues`.
    Points: `log_mixing_weights` (log lambda, (F, M)), `noise_precision` (1 / sigma^2, (C, F)).
    """

    pieces: AffinePieces
    places: Int[Array, " d"]
    cue_means: Float[Array, "c f"]
    is_cue: Bool[Array, "c f"]
    noise_variance: Float[Array, "c 1"]
    noise_count: Float[Array, ""]
    weight_count: Float[Array, ""]
    outlier_probability: Float[Array, ""]
    outlier_precision: Float[Array, "c f"]
    labels: Int[Array, " f"] | None
    num_sources: int = eqx.field(static=True)
    has_outliers: bool = eqx.field(static=True, default=False)

    schedule = ("position", "noise_precision", "log_mixing_weights", "source")

    @classmethod
    def init(
        cls,
        ppam: PPAM,
        is_cue: Bool[Array, "c f"],
        num_sources: int,
        *,
        noise_variance: Float[Array, " c"],
        noise_count: float = 1.0,
        weight_count: float = 0.0,
        outlier_probability: float | None = None,
    ) -> "VESSL":
        """A model of a calibrated head.

        Args:
            ppam: the map, of the cues that there are, in the order of `is_cue` read row by row.
            is_cue: which of C cues there are at each of F frequencies.
            noise_variance: of each kind of cue, about which the prior of sigma^2 is.
            outlier_probability: of bins that belong to no source; None for no such class.

        Raises:
            InputError: if the map has other cues, or a number is out of its range.
        """
        is_cue = jnp.asarray(is_cue)
        num_cues, given = ppam.cue_means.shape[0], int(is_cue.sum())
        if is_cue.ndim != 2 or given != num_cues:
            raise InputError(
                f"is_cue must be (C, F) with the {num_cues} cues of the map, got {is_cue.shape} with {given}"
            )
        if not 1 <= num_sources <= len(ppam.log_weights):
            raise InputError(
                f"num_sources must be between 1 and the map's {len(ppam.log_weights)} pieces, got {num_sources}"
            )
        if outlier_probability is not None and not 0 < outlier_probability < 1:
            raise InputError(f"outlier_probability must be between 0 and 1, got {outlier_probability}")
        dtype = ppam.cue_means.dtype
        places = jnp.flatnonzero(is_cue, size=num_cues)
        num_channels = len(is_cue)
        variance = jnp.asarray(noise_variance, dtype).reshape(num_channels, 1)
        return cls(
            pieces=ppam.pieces,
            places=places,
            cue_means=jnp.zeros(is_cue.size, dtype).at[places].set(ppam.cue_means).reshape(is_cue.shape),
            is_cue=is_cue,
            noise_variance=variance,
            noise_count=jnp.asarray(noise_count, dtype),
            weight_count=jnp.asarray(weight_count, dtype),
            outlier_probability=jnp.asarray(0.5 if outlier_probability is None else outlier_probability, dtype),
            outlier_precision=jnp.broadcast_to(1 / variance, is_cue.shape),
            labels=None,
            num_sources=num_sources,
            has_outliers=outlier_probability is not None,
        )

    def __call__(self, cues: Float[Array, "c f t"], is_observed: Bool[Array, "f t"]) -> None:
        num_channels, num_frequencies, num_frames = cues.shape
        num_sources, num_pieces, dtype = self.num_sources, len(self.pieces.log_weights), self.pieces.maps.dtype
        even = jnp.full((num_frequencies, num_sources), -log(num_sources), dtype)
        log_mixing_weights = point("log_mixing_weights", even, Simplex())
        initial = jnp.broadcast_to(1 / self.noise_variance, self.cue_means.shape)
        noise_precision = point("noise_precision", initial, Precision())
        # What is taken for granted of the points, in the form of observations made before.
        numpyro.factor("mixing_weights_prior", self.weight_count * log_mixing_weights.sum())
        of_noise = jnp.log(noise_precision) - noise_precision * self.noise_variance
        numpyro.factor("noise_prior", self.noise_count / 2 * of_noise.sum())
        numpyro.factor("tying", vessl_closed_forms.tying(self, is_observed))

        with numpyro.plate("sources", num_sources):
            piece = indicator("piece", self.pieces.log_weights)
            base = dist.MultivariateNormal(self.pieces.centers, precision_matrix=self.pieces.precisions)
            position = jnp.asarray(numpyro.sample("position", Given(piece, base)))
        position = jnp.broadcast_to(position, (*position.shape[:-2], num_pieces, position.shape[-1]))
        offset = position - self.pieces.centers
        regressors = jnp.concatenate([offset, jnp.ones_like(offset[..., :1])], -1)
        loc = jnp.einsum("dki,...mki->...mkd", self.pieces.maps, regressors, precision="highest")
        loc = vessl_closed_forms.spread(self, loc)
        precision = jnp.broadcast_to(
            noise_precision, (*noise_precision.shape[:-2], num_sources, num_channels, num_frequencies)
        )
        if self.has_outliers:
            loc = jnp.concatenate([loc, jnp.zeros_like(loc[..., :1, :, :, :])], -4)
            precision = jnp.concatenate(
                [precision, jnp.broadcast_to(self.outlier_precision, precision[..., :1, :, :].shape)], -3
            )
            some = jnp.zeros_like(piece[..., :1, :]).at[..., 0].set(1)
            piece = jnp.concatenate([piece, some], -2)
        is_used = vessl_closed_forms.used(self, is_observed)
        log_probs = vessl_closed_forms.log_class_probs(self, log_mixing_weights)
        # A label of bins that were not observed has no meaning, and no say in the mixing weights.
        log_probs = jnp.where(is_used[..., None], log_probs[..., None, :], -log(self.num_classes))
        with numpyro.plate("labels", num_frequencies, dim=-2), numpyro.plate("frames", num_frames, dim=-1):
            source = indicator("source", log_probs, axis=-2)
        of_bins = source if self.labels is None else jnp.take(source, self.labels, axis=-3)
        is_there = is_observed[None] & self.is_cue[..., None]
        centred = vessl_closed_forms.centred(self, cues, is_observed)
        density = Normal(("mkcf", loc), ("mcf", precision))
        gated = Gated("cft", {"fmt": of_bins, "mk": piece}, density).mask(is_there)
        with (
            numpyro.plate("channels", num_channels, dim=-3),
            numpyro.plate("frequencies", num_frequencies, dim=-2),
            numpyro.plate("frames", num_frames, dim=-1),
        ):
            numpyro.sample("cues", gated, obs=centred)

    @property
    def num_classes(self) -> int:
        """The sources, and the outliers if there are any."""
        return self.num_sources + self.has_outliers

    def start(self, key: Array, cues: Float[Array, "c f t"], is_observed: Bool[Array, "f t"]) -> Mapping[str, Array]:
        """The centres of the pieces that together explain the most bins (`vbss.models.vessl_start.best_centers`)."""
        centers = vessl_start.best_centers(self, cues, is_observed, key=key)[0]
        return self.given_pieces(cues, is_observed, centers)

    def given_pieces(
        self, cues: Float[Array, "c f t"], is_observed: Bool[Array, "f t"], pieces: Int[Array, " m"]
    ) -> dict[str, Array]:
        """A start with the sources at the centres of some pieces (`vbss.models.vessl_start.given_pieces`)."""
        return vessl_start.given_pieces(self, cues, is_observed, pieces)

    def closed_forms(self) -> Mapping[str, Callable]:
        return vessl_closed_forms.CLOSED_FORMS

    def positions(self, posterior: Posterior) -> PiecewisePosterior:
        """q(x, z) of the sources."""
        return vessl_closed_forms.piecewise(posterior)

    def located(
        self,
        posterior: Posterior,
        cues: Float[Array, "c f t"],
        is_observed: Bool[Array, "f t"],
        map_variance: Float[Array, " d"],
    ) -> PiecewisePosterior:
        """The positions of sources of these labels, by a map that is wrong by so much everywhere (mean square error).

        `positions` believes the map: what it is wrong by counts again with every bin. Here a source's own cues are the
        map's and an error, N(0, map_variance), which is integrated out. With 0 this is `positions` after its update.
        """
        return vessl_closed_forms.located(self, posterior, (cues, is_observed), map_variance)

    def released(self, posterior: Posterior, labels: Int[Array, " f"], is_observed: Bool[Array, "f t"]) -> Posterior:
        """The posterior of a model whose labels were these, of fewer: every label is divided as this model's are."""
        return vessl_closed_forms.released(self, posterior, labels, is_observed)

    def masks(self, posterior: Posterior, cues: Float[Array, "c f t"]) -> Float[Array, "f t m"]:
        """The probability that a bin is a source's, of all bins, observed or not; outliers are shared out."""
        return vessl_closed_forms.masks(self, posterior, cues)

    def validate(self, cues: Array, is_observed: Array) -> None:
        shape = self.is_cue.shape
        if cues.ndim != 3 or cues.shape[:2] != shape or not jnp.issubdtype(cues.dtype, jnp.floating):
            raise InputError(
                f"cues must be real of shape ({shape[0]}, {shape[1]}, frames), got {cues.dtype} of shape {cues.shape}"
            )
        if is_observed.dtype != bool or is_observed.shape != cues.shape[1:]:
            got = f"{is_observed.dtype} of shape {is_observed.shape}"
            raise InputError(f"is_observed must be boolean of shape {cues.shape[1:]}, got {got}")
        if not bool(is_observed.any()):
            raise InputError("is_observed must be true somewhere: nothing was observed")

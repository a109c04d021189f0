"""The local Gaussian model with low-rank spectra: sources of full-rank spatial covariance that add up in every bin."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
from jaxtyping import Array, Bool, Complex, Float

from vbss.additive import Additive
from vbss.densities import ComplexNormal
from vbss.errors import InputError, whole_number
from vbss.gated import Gated
from vbss.hermitian import inverse_and_log_determinant, pack_outer, packed_identity, unpack
from vbss.models import local_gaussian_nmf_closed_forms, local_gaussian_nmf_start
from vbss.models.bins import check_mixture, heard
from vbss.models.by_frequency import mapped
from vbss.models.local_gaussian_nmf_closed_forms import rows, weighed
from vbss.models.local_gaussian_nmf_layout import loaded, variances
from vbss.posteriors import Posterior
from vbss.program import Model, point


class LocalGaussianNMF(Model):
    """x_fn = sum_k c_fkn with images c_fkn ~ N_C(0, v_fkn R_fk), where v_fkn = sum_b T_fkb V_kbn.

    The images are integrated out: x_fn ~ N_C(0, S_fn), S_fn = sum_k v_fkn R_fk, so that every bin may hold several
    sources, and what is fitted belongs to one recording. Their posterior is normal again; `images` is its mean. Noise
    is one class more, after the sources, with one component and so the same colour all the time.

    Likelihoods have many maxima: start from the masks of a mixture model (`vbss.models.LDACGMM`) by `given_masks`.
    Source: Ozerov and Fevotte, "Multichannel nonnegative matrix factorization in convolutive mixtures for audio source
    separation" (2010); Duong, Vincent and Gribonval, "Under-determined reverberant audio source separation using a
    full-rank spatial covariance model" (2010); Sawada, Kameoka, Araki and Ueda, "Multichannel extensions of
    non-negative matrix factorization with complex-valued data" (2013), for the updates.

    Attributes:
        loading: white noise that every image carries, relative to its power: R stands for R + loading tr(R) / M I. It
            bounds the density, and what float32 must resolve.
        num_sources: sources, without the noise.
        num_components: B, of each source.
        has_noise: whether there is a class of noise.

    The program takes `mixture`, complex (F, N, M), and optionally `is_observed`, boolean (F, N): other bins are
    integrated out, whatever finite values they hold, as are silent ones. Bins keep their levels, which the spectra
    explain, so they must not be normalised; whitened microphones (`vbss.audio.diffuse_whitening`) suit the loading.
    Site: `mixture` (F, N plates). Points, with K classes and C components in all: `spatial_covariance` (R, packed by
    `vbss.hermitian.pack`, (F, K, M*M)), `spectra` (T, (F, C)), `activations` (V, (C, N)).
    """

    loading: Float[Array, ""]
    num_sources: int = eqx.field(static=True)
    num_components: int = eqx.field(static=True)
    has_noise: bool = eqx.field(static=True)

    schedule = ("spectra", "activations", "spatial_covariance")

    @classmethod
    def init(
        cls, num_sources: int, num_components: int = 16, *, has_noise: bool = True, loading: float = 1e-4
    ) -> "LocalGaussianNMF":
        """A model for any array and recording.

        Args:
            num_components: of each source; few cannot hold speech, and more cost little.
            loading: 1e-4 is safe in float32; where it stands beside white noise, less changes little.

        Raises:
            InputError: if a number is not positive.
        """
        num_sources = whole_number("num_sources", num_sources, 1)
        num_components = whole_number("num_components", num_components, 1)
        if not 0 < loading < jnp.inf:
            raise InputError(f"loading must be positive, got {loading!r}")
        return cls(jnp.asarray(loading, float), num_sources, num_components, has_noise)

    @property
    def num_classes(self) -> int:
        """The sources, and the noise if there is any."""
        return self.num_sources + self.has_noise

    def __call__(self, mixture: Complex[Array, "f n m"], is_observed: Bool[Array, "f n"] | None = None) -> None:
        num_frequencies, num_frames, size = mixture.shape
        total_components = self.num_sources * self.num_components + self.has_noise
        dtype = mixture.real.dtype

        identity = packed_identity(size, dtype).reshape(1, 1, -1)
        covariance = jnp.broadcast_to(identity, (num_frequencies, self.num_classes, size**2))
        covariance = point("spatial_covariance", covariance, Additive(event_rank=1))
        spectra = point("spectra", jnp.ones((num_frequencies, total_components), dtype), Additive())
        activations = point("activations", jnp.ones((total_components, num_frames), dtype), Additive())
        variance = variances(self, spectra, activations)
        total = jnp.einsum("fkp,kfn->fnp", loaded(covariance, self.loading), variance, precision="highest")

        precision, log_determinant = inverse_and_log_determinant(total)
        density = ComplexNormal(
            precision=("fnp", precision), log_determinant=("fn", log_determinant), power=("", jnp.ones((), dtype))
        )
        is_heard = heard(mixture, is_observed)
        with numpyro.plate("frequencies", num_frequencies, dim=-2), numpyro.plate("frames", num_frames, dim=-1):
            gated = Gated("fn", {}, density).mask(is_heard)
            numpyro.sample("mixture", gated, obs=jnp.where(is_heard[..., None], mixture, 0))

    def start(
        self, key: Array, mixture: Complex[Array, "f n m"], is_observed: Bool[Array, "f n"] | None = None
    ) -> Mapping[str, Array]:
        """From random masks, which say nothing of the sources: `given_masks` knows better."""
        key_masks, key_start = jax.random.split(key)
        shape = (*mixture.shape[:2], self.num_sources)
        masks = jax.nn.softmax(jax.random.normal(key_masks, shape, mixture.real.dtype), -1)
        return self.given_masks(mixture, masks, is_observed, key=key_start)

    def given_masks(
        self,
        mixture: Complex[Array, "f n m"],
        masks: Float[Array, "f n k"],
        is_observed: Bool[Array, "f n"] | None = None,
        *,
        key: Array,
    ) -> dict[str, Array]:
        """A start from masks, each source's probability (`vbss.models.local_gaussian_nmf_start.given_masks`)."""
        return local_gaussian_nmf_start.given_masks(self, mixture, masks, is_observed, key=key)

    def closed_forms(self) -> Mapping[str, Callable]:
        return local_gaussian_nmf_closed_forms.CLOSED_FORMS

    @eqx.filter_jit
    def images(
        self,
        posterior: Posterior,
        mixture: Complex[Array, "f n m"],
        channel: Complex[Array, "f m"] | None = None,
        is_observed: Bool[Array, "f n"] | None = None,
    ) -> Complex[Array, "k f n"] | Complex[Array, "k f n m"]:
        """The posterior mean of every source's image, without the noise: the multichannel Wiener filter of each bin.

        v R S^-1 x; in bins that were not observed, 0. All classes' images add up to the mixture.

        Args:
            posterior: of `vbss.fit` on this mixture.
            channel: weights of the microphones at each frequency, whose combination is wanted: a row of the identity,
                or of the inverse of a whitening. By default all microphones.
        """
        rows, of = self._rows(posterior, (mixture, is_observed)), partial(self._means, posterior.points["activations"])
        return jnp.swapaxes(mapped(lambda inputs: of(*inputs), (rows, channel), mixture.shape[1]), 0, 1)

    @eqx.filter_jit
    def image_variances(
        self,
        posterior: Posterior,
        mixture: Complex[Array, "f n m"],
        channel: Complex[Array, "f m"],
        is_observed: Bool[Array, "f n"] | None = None,
    ) -> Float[Array, "k f n"]:
        """The posterior variance of what `images` gives: v r R r^H - v^2 r R S^-1 R r^H, where r is the channel.

        Zero in silent bins, in which all sources are silent; that of the prior in bins that were not observed.

        Args:
            posterior, mixture, channel, is_observed: as for `images`.
        """
        rows, of = self._rows(posterior, (mixture, is_observed)), partial(self._errors, posterior.points["activations"])
        remaining = jnp.swapaxes(mapped(lambda inputs: of(*inputs), (rows, channel), mixture.shape[1]), 0, 1)
        is_silent = ~heard(mixture) if is_observed is None else ~heard(mixture) & is_observed
        return jnp.where(is_silent[None], 0, remaining)

    def _rows(self, posterior: Posterior, data: tuple) -> Any:
        return rows(posterior, data)

    def _means(self, activations: Array, rows: Any, channel: Array | None) -> Array:
        """`images` of a few frequencies, (F, K, N) or (F, K, N, M)."""
        found = weighed(self, rows, activations)
        filtered = jax.lax.complex(*jnp.split(found.filtered, 2, 1))
        covariance = unpack(found.covariance[:, : self.num_sources])
        gain = jnp.swapaxes(found.variance[: self.num_sources] * jnp.sqrt(found.level)[None], 0, 1)
        if channel is None:
            means = jnp.einsum("fkij,fjn->fkni", covariance, filtered, precision="highest")
            return gain[..., None].astype(means.dtype) * means
        weights = jnp.einsum("fi,fkij->fkj", channel, covariance, precision="highest")
        means = jnp.einsum("fkj,fjn->fkn", weights, filtered, precision="highest")
        return gain.astype(means.dtype) * means

    def _errors(self, activations: Array, rows: Any, channel: Array) -> Array:
        """`image_variances` of a few frequencies, (F, K, N), as if no bin were silent."""
        found = weighed(self, rows, activations)
        covariance = unpack(found.covariance[:, : self.num_sources])
        weights = jnp.einsum("fi,fkij->fkj", channel, covariance, precision="highest")
        prior = jnp.einsum("fkj,fj->fk", weights, channel.conj(), precision="highest").real[..., None]
        explained = jnp.einsum("fkp,fpn->fkn", pack_outer(weights.conj()), found.inverse, precision="highest")
        variance = jnp.swapaxes(found.variance[: self.num_sources], 0, 1)
        return found.level[:, None] * variance * jnp.maximum(prior - variance * explained, 0)

    def validate(self, mixture: Array, is_observed: Array | None = None) -> None:
        check_mixture(mixture, is_observed)

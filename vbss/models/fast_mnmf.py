"""The local Gaussian model with jointly diagonal spatial covariances: fast multichannel NMF."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpyro
from jaxtyping import Array, Bool, Complex, Float

from vbss.additive import Additive
from vbss.demixing import Demixing, complex_rows, inverse, log_squared_determinants
from vbss.densities import ComplexNormal
from vbss.gated import Gated
from vbss.hermitian import pack_outer
from vbss.models import fast_mnmf_closed_forms, fast_mnmf_start
from vbss.models.bins import heard
from vbss.models.fast_mnmf_closed_forms import Rows, rows, weighed
from vbss.models.local_gaussian_nmf import LocalGaussianNMF
from vbss.models.local_gaussian_nmf_layout import variances
from vbss.posteriors import Posterior
from vbss.program import point


class FastMNMF(LocalGaussianNMF):
    """x_fn = sum_k c_fkn with images c_fkn ~ N_C(0, v_fkn R_fk), where R_fk = Q_f^-1 diag(g_fk) Q_f^-H.

    What `LocalGaussianNMF` says, but for covariances that one matrix Q_f makes diagonal for all classes of a frequency:
    the filtered channels q_fm x are independent, and no bin needs an inverse. Any two positive definite matrices have
    such a Q, so that two sources without noise lose nothing; more classes share what they cannot have each by itself.
    Gains that are zero stay zero, so that a start with gains g_fkm for a single channel m makes a source of rank one.

    Source: Ito and Nakatani, "FastMNMF: joint diagonalization based accelerated algorithms for multichannel nonnegative
    matrix factorization" (2019); Sekiguchi, Bando, Nugraha, Yoshii and Kawahara, "Fast multichannel nonnegative matrix
    factorization with directivity-aware jointly-diagonalizable spatial covariance matrices for blind source
    separation" (2020), whose first model (FastMNMF1) this is.

    Attributes:
        loading: relative white noise that every bin is taken to carry (`vbss.ComplexNormal`), as filters could null
            bins without any.
        num_sources, num_components, has_noise: as of `LocalGaussianNMF`.

    The program takes what `LocalGaussianNMF` takes. Site: `mixture`. Points: `demixing` (Q, as `vbss.Demixing` has it,
    (F, M, 2 M)), `gains` (g, (F, K, M)), `spectra` (T, (F, C)), `activations` (V, (C, N)).
    """

    schedule = ("spectra", "activations", "gains", "demixing")

    def __call__(self, mixture: Complex[Array, "f n m"], is_observed: Bool[Array, "f n"] | None = None) -> None:
        num_frequencies, num_frames, size = mixture.shape
        total_components = self.num_sources * self.num_components + self.has_noise
        dtype = mixture.real.dtype

        identity = jnp.broadcast_to(jnp.eye(size, 2 * size, dtype=dtype), (num_frequencies, size, 2 * size))
        demixing = point("demixing", identity, Demixing())
        gains = point("gains", jnp.ones((num_frequencies, self.num_classes, size), dtype), Additive())
        spectra = point("spectra", jnp.ones((num_frequencies, total_components), dtype), Additive())
        activations = point("activations", jnp.ones((total_components, num_frames), dtype), Additive())
        variance = variances(self, spectra, activations)
        powers = jnp.einsum("fkm,kfn->fmn", gains, variance, precision="highest")

        # S^-1 = Q^H diag(1 / powers) Q.
        filters = pack_outer(complex_rows(demixing).conj())
        precision = jnp.einsum("fmp,fmn->fnp", filters, 1 / powers, precision="highest")
        log_determinant = jnp.log(powers).sum(1) - log_squared_determinants(demixing)[:, None]
        density = ComplexNormal(
            precision=("fnp", precision),
            log_determinant=("fn", log_determinant),
            power=("", jnp.ones((), dtype)),
            loading=("", self.loading.astype(dtype)),
        )
        is_heard = heard(mixture, is_observed)
        with numpyro.plate("frequencies", num_frequencies, dim=-2), numpyro.plate("frames", num_frames, dim=-1):
            gated = Gated("fn", {}, density).mask(is_heard)
            numpyro.sample("mixture", gated, obs=jnp.where(is_heard[..., None], mixture, 0))

    def given_masks(
        self,
        mixture: Complex[Array, "f n m"],
        masks: Float[Array, "f n k"],
        is_observed: Bool[Array, "f n"] | None = None,
        *,
        key: Array,
    ) -> dict[str, Array]:
        """A start from masks, each source's probability (`vbss.models.fast_mnmf_start.given_masks`)."""
        return fast_mnmf_start.given_masks(self, mixture, masks, is_observed, key=key)

    def closed_forms(self) -> Mapping[str, Callable]:
        return fast_mnmf_closed_forms.CLOSED_FORMS

    def _rows(self, posterior: Posterior, data: tuple) -> Rows:
        return rows(posterior, data)

    def _means(self, activations: Array, rows: Rows, channel: Array | None) -> Array:
        """Q^-1 diag(v g / d) y."""
        found, mixing = weighed(self, rows, activations), inverse(complex_rows(rows.demixing))
        explained = jnp.stack(
            [
                jax.lax.complex(a / power / found.level, b / power / found.level)
                for a, b, power in zip(found.filtered_real, found.filtered_imaginary, found.powers, strict=True)
            ],
            1,
        )
        gains = rows.gains[:, : self.num_sources].astype(explained.dtype)
        variance = jnp.swapaxes(found.variance[: self.num_sources], 0, 1) * found.level[:, None]
        if channel is None:
            means = jnp.einsum("fim,fkm,fmn->fkni", mixing, gains, explained, precision="highest")
            return variance[..., None].astype(means.dtype) * means
        weights = jnp.einsum("fi,fim,fkm->fkm", channel, mixing, gains, precision="highest")
        means = jnp.einsum("fkm,fmn->fkn", weights, explained, precision="highest")
        return variance.astype(means.dtype) * means

    def _errors(self, activations: Array, rows: Rows, channel: Array) -> Array:
        """sum_m |r a_m|^2 v g_m (1 - v g_m / d_m), with a_m the columns of Q^-1."""
        found = weighed(self, rows, activations)
        heard_of = jnp.einsum("fi,fim->fm", channel, inverse(complex_rows(rows.demixing)), precision="highest")
        variance = jnp.swapaxes(found.variance[: self.num_sources], 0, 1)
        total = jnp.zeros_like(variance)
        for m, power in enumerate(found.powers):
            own = variance * rows.gains[:, : self.num_sources, m, None]
            weight = (heard_of[:, m].real ** 2 + heard_of[:, m].imag ** 2)[:, None, None]
            explained = jnp.where(rows.is_heard[:, None], own / power[:, None], 0)
            total = total + weight * own * jnp.maximum(1 - explained, 0)
        return found.level[:, None] * total

"""Probabilistic piecewise affine mapping: from the position of a sound to its cues, and back; exact EM."""

from collections.abc import Callable, Mapping
from typing import Annotated

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float
from scipy.cluster.vq import kmeans2

from vbss.context import relaxed_promotion
from vbss.densities import LinearNormal, MultivariateNormal
from vbss.errors import InputError
from vbss.gated import Gated
from vbss.kinds import Linear, Precision, Simplex
from vbss.models import ppam_closed_forms
from vbss.models.affine_pieces import (
    AffinePieces,
    PiecewisePosterior,
    inverse,
    position_log_densities,
    position_posterior,
)
from vbss.program import Model, indicator

_CERTAINTY = 0.98  # of the clusters that EM starts from


class PPAM(Model):
    """z_n ~ Cat(pi), x_n | z_n = k ~ N(c_k, Gamma_k), y_nd | x_n, z_n = k ~ N(a_kd' x_n + b_kd, sigma_d^2).

    Positions x and cues y are observed, only the pieces z are not: EM is exact. Source: A. Deleforge and R. Horaud,
    "2D sound-source localization on the binaural manifold" (2012); A. Deleforge, F. Forbes and R. Horaud, "Variational
    EM for binaural sound-source separation and localization" (2013), section 2.

    Attributes:
        log_weights: log pi, (K,).
        centers: c, (K, L).
        position_precision: Gamma^-1, (K, L, L).
        coefficients: [A b], the slopes and the value at position 0, (K, D, L + 1); of centred cues.
        noise_precision: 1 / sigma^2, (D,).
        cue_means: what centres the cues, (D,).
        ridge: kappa: the prior of the coefficients is N(0, sigma_d^2 / kappa), 0 for none.
        spread: of a position that each piece is taken to have seen beside its own, of the positions' unit: it keeps
            pieces of few positions from shrinking to nothing; 0 for none.

    The program takes `positions` (N, L), `cues` (N, D) and optionally `is_observed`, boolean (N, D): cues that were not
    are integrated out, whatever finite values they hold. Sites: `piece` (z; N plates), `positions`, `cues`.

    Positions should be of order one: radians are. The cues' noise is that of calibration, where cues are means over
    time.
    """

    log_weights: Annotated[Float[Array, " k"], Simplex()]
    centers: Annotated[Float[Array, "k l"], Linear(event_rank=1)]
    position_precision: Annotated[Float[Array, "k l l"], Precision(event_rank=2)]
    coefficients: Annotated[Float[Array, "k d l_and_1"], Linear(event_rank=1)]
    noise_precision: Annotated[Float[Array, " d"], Precision()]
    cue_means: Float[Array, " d"]
    ridge: Float[Array, ""]
    spread: Float[Array, ""]

    schedule = ("log_weights", "centers", "position_precision", "coefficients", "noise_precision", "piece")

    @classmethod
    def init(
        cls,
        positions: ArrayLike,
        cues: ArrayLike,
        num_pieces: int,
        *,
        is_observed: ArrayLike | None = None,
        ridge: float = 1e-4,
        spread: float = 0.05,
    ) -> "PPAM":
        """A map of the data's mean and variance, to be fitted from the clusters of `start`.

        Raises:
            InputError: unless positions and cues are finite, (N, L) and (N, D), and num_pieces of the positions differ.
        """
        positions, cues, mask = _checked(positions, cues, is_observed)
        size, different = positions.shape[1], len(np.unique(np.asarray(positions), axis=0))
        if not 1 <= num_pieces <= different:
            raise InputError(f"num_pieces must be between 1 and the {different} different positions, got {num_pieces}")
        if not (0 <= ridge < np.inf and 0 <= spread < np.inf):
            raise InputError(f"ridge and spread must not be negative, got {ridge} and {spread}")
        dtype = cues.dtype
        weight = jnp.ones_like(cues) if mask is None else mask.astype(dtype)
        count = jnp.maximum(weight.sum(0), 1)
        means = (weight * cues).sum(0) / count
        variance = (weight * (cues - means[None]) ** 2).sum(0) / count
        covariance = jnp.atleast_2d(jnp.cov(positions.T, bias=True)) + (spread**2 + 1e-12) * jnp.eye(size, dtype=dtype)
        precision = inverse(covariance)
        return cls(
            log_weights=jnp.full(num_pieces, -np.log(num_pieces), dtype),
            centers=jnp.broadcast_to(positions.mean(0), (num_pieces, size)),
            position_precision=jnp.broadcast_to(precision, (num_pieces, size, size)),
            coefficients=jnp.zeros((num_pieces, cues.shape[1], size + 1), dtype),
            noise_precision=1 / jnp.where(variance > 0, variance, 1),
            cue_means=means,
            ridge=jnp.asarray(ridge, dtype),
            spread=jnp.asarray(spread, dtype),
        )

    def __call__(
        self,
        positions: Float[Array, "n l"],
        cues: Float[Array, "n d"],
        is_observed: Bool[Array, "n d"] | None = None,
    ) -> None:
        num, size = positions.shape
        # What is taken for granted of the parameters, in the form of observations made before.
        coefficient_precision = self.ridge * jnp.broadcast_to(
            self.noise_precision[None, :, None], self.coefficients.shape
        )
        prior = (
            jnp.log(jnp.where(self.ridge > 0, coefficient_precision, 1)) - coefficient_precision * self.coefficients**2
        ) / 2
        numpyro.factor("ridge", prior.sum())
        factor = jnp.linalg.cholesky(self.position_precision)
        half_log_determinant = jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)).sum(-1)
        trace = jnp.trace(self.position_precision, axis1=-2, axis2=-1)
        numpyro.factor("spread", jnp.where(self.spread > 0, half_log_determinant - self.spread**2 * trace / 2, 0).sum())

        with numpyro.plate("n", num):
            piece = indicator("piece", self.log_weights)
            of_position = MultivariateNormal(("kl", self.centers), ("klm", self.position_precision))
            numpyro.sample("positions", Gated("n", {"nk": piece}, of_position), obs=positions)
        regressors = jnp.concatenate([positions, jnp.ones_like(positions[:, :1])], -1)
        with numpyro.plate("positions_plate", num, dim=-2), numpyro.plate("cues_plate", cues.shape[1], dim=-1):
            of_cues = LinearNormal(
                coefficients=("kdi", self.coefficients),
                regressors=("ni", regressors),
                precision=("d", self.noise_precision),
            )
            gated, centred = Gated("nd", {"nk": piece}, of_cues), cues - self.cue_means[None]
            if is_observed is not None:  # what they hold must not reach a product, not even one with zero
                gated, centred = gated.mask(is_observed), jnp.where(is_observed, centred, 0)
            numpyro.sample("cues", gated, obs=centred)

    def start(
        self,
        key: Array,
        positions: Float[Array, "n l"],
        cues: Float[Array, "n d"],
        is_observed: Bool[Array, "n d"] | None = None,
    ) -> Mapping[str, Array]:
        """Clusters of the positions (k-means), nearly certain."""
        num_pieces = self.log_weights.shape[0]
        seed = int(jax.random.randint(key, (), 0, 2**31 - 1))
        points = np.asarray(positions, float)
        _, labels = kmeans2(points, num_pieces, minit="++", rng=np.random.default_rng(seed), missing="warn", iter=30)
        onehot = jax.nn.one_hot(labels, num_pieces, dtype=positions.dtype)
        return {"piece": _CERTAINTY * onehot + (1 - _CERTAINTY) / num_pieces}

    def closed_forms(self) -> Mapping[str, Callable]:
        return ppam_closed_forms.CLOSED_FORMS

    def validate(self, positions: Array, cues: Array, is_observed: Array | None = None) -> None:
        _checked(positions, cues, is_observed)
        if positions.shape[1] != self.centers.shape[1] or cues.shape[1] != self.cue_means.shape[0]:
            raise InputError(
                f"positions and cues must have {self.centers.shape[1]} and {self.cue_means.shape[0]} columns, got "
                f"shapes {positions.shape} and {cues.shape}"
            )

    @property
    def pieces(self) -> AffinePieces:
        """The map about its pieces' centres; the cues are centred."""
        maps = jnp.swapaxes(ppam_closed_forms.about(self, self.centers), 0, 1)
        return AffinePieces.of_maps(self.log_weights, self.centers, self.position_precision, maps)

    def forward(self, positions: Float[Array, "n l"]) -> dist.MixtureSameFamily:
        """p(y | x), the density of the cues of each position: batch (N,), event (D,)."""
        log_probs = position_log_densities(self.pieces, positions)
        regressors = jnp.concatenate([positions, jnp.ones_like(positions[:, :1])], -1)
        loc = jnp.einsum("kdi,ni->nkd", self.coefficients, regressors, precision="highest") + self.cue_means[None, None]
        with relaxed_promotion():
            normals = dist.Normal(loc, self.noise_precision**-0.5).to_event(1)
            return dist.MixtureSameFamily(dist.Categorical(logits=log_probs), normals)

    def inverse(self, cues: Float[Array, "n d"], is_observed: Bool[Array, "n d"] | None = None) -> PiecewisePosterior:
        """p(x, z | y), of the position behind each row of cues; its `mixture` is p(x | y)."""
        centred = cues - self.cue_means[None]
        counts = jnp.ones_like(centred) if is_observed is None else is_observed.astype(centred.dtype)
        sums = centred if is_observed is None else jnp.where(is_observed, centred, 0)
        return position_posterior(self.pieces, counts, sums, self.noise_precision)

    def log_likelihood(
        self, positions: Float[Array, "n l"], cues: Float[Array, "n d"], is_observed: Bool[Array, "n d"] | None = None
    ) -> Float[Array, " n"]:
        """log p(x, y) of each pair, nats: on pairs that were held out, what the number of pieces is chosen by."""
        data = (positions, cues) if is_observed is None else (positions, cues, is_observed)
        return jax.nn.logsumexp(ppam_closed_forms.log_joint(self, data), -1)

    def left_out_variance(self, positions: Float[Array, "n l"], cues: Float[Array, "n d"]) -> Float[Array, " d"]:
        """How wrong the map is between the positions it was fitted to: the mean square error of every cue.

        1 / `noise_precision` is how wrong it is at those positions, which is less. Every position is predicted by its
        pieces' regressions without it (leave-one-out by the leverages, R. D. Cook, 1977). Of few positions for each
        piece it is the variance of the cues.
        """
        self.validate(positions, cues)
        return _left_out_variance(self, (positions, cues))


@eqx.filter_jit
def _left_out_variance(model: PPAM, data: tuple) -> Float[Array, " d"]:
    return ppam_closed_forms.left_out_variance(model, data)


def _checked(positions: ArrayLike, cues: ArrayLike, is_observed: ArrayLike | None) -> tuple[Array, Array, Array | None]:
    positions, cues = jnp.asarray(positions), jnp.asarray(cues)
    for name, values in (("positions", positions), ("cues", cues)):
        if values.ndim != 2 or values.size == 0 or not jnp.issubdtype(values.dtype, jnp.floating):
            raise InputError(f"{name} must be real of shape (N, columns), got {values.dtype} of shape {values.shape}")
        if not bool(jnp.isfinite(values).all()):
            raise InputError(f"{name} must be finite, also where is_observed leaves them out")
    if len(positions) != len(cues):
        raise InputError(f"positions and cues must have as many rows, got {len(positions)} and {len(cues)}")
    if is_observed is None:
        return positions, cues, None
    is_observed = jnp.asarray(is_observed)
    if is_observed.dtype != bool or is_observed.shape != cues.shape:
        raise InputError(
            f"is_observed must be boolean of shape {cues.shape}, got {is_observed.dtype} of shape {is_observed.shape}"
        )
    return positions, cues, is_observed

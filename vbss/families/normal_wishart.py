"""The normal-Wishart family: a mean and a precision matrix, jointly."""

from math import log, pi, sqrt
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Float

from vbss.context import relaxed_promotion
from vbss.families.base import Natural, PointFamily
from vbss.families.wishart import Wishart


class NormalWishart(PointFamily):
    """A tuple (x, P): P ~ Wishart, P of shape (*batch, D, D), and x | P ~ N(m, (kappa P)^-1), x of shape (*batch, D).

    log q = <h, P x> - kappa x'P x / 2 - tr(R P) / 2 + (nu - D) / 2 log|P| - A with h = kappa m and R = S + kappa m m',
    where S is the rate of the Wishart part and nu its degrees of freedom. Natural parameters are `linear` h (*batch,
    D), `quadratic` -kappa/2 (*batch), `precision` -R/2 (*batch, D, D), symmetric, and `log` (nu - D) / 2 (*batch);
    statistics are P x, x'P x, P and log|P|. In a program the two sites are `dist.Wishart(nu, rate_matrix=S)` and
    `dist.MultivariateNormal(m, precision_matrix=kappa * P)`.

    S is found from R by subtraction: in float32 the data should be centred. Source: Bishop, "Pattern Recognition and
    Machine Learning", section 10.2.
    """

    claim: ClassVar[str] = "linear in the products P x, x'P x, P and log|P| of"

    def log_partition(self, natural):
        _, kappa, wishart = _parts(natural)
        size = natural["linear"].shape[-1]
        return Wishart().log_partition(wishart) + size / 2 * (log(2 * pi) - jnp.log(kappa))

    def means(self, natural):
        loc, kappa, wishart = _parts(natural)
        means = Wishart().means(wishart)
        linear = _product(means["linear"], loc)
        quadratic = loc.shape[-1] / kappa + (loc * linear).sum(-1)
        return {"linear": linear, "quadratic": quadratic, "precision": means["linear"], "log": means["log"]}

    def natural(self, means):
        precision, linear = means["precision"], means["linear"]
        loc = _solve(jnp.linalg.cholesky(precision), linear)
        kappa = loc.shape[-1] / (means["quadratic"] - (loc * linear).sum(-1))
        return _joined(loc, kappa, Wishart().natural({"linear": precision, "log": means["log"]}))

    def entropy(self, natural):
        loc, kappa, wishart = _parts(natural)
        size = loc.shape[-1]
        conditional = size / 2 * (1 + log(2 * pi) - jnp.log(kappa)) - Wishart().means(wishart)["log"] / 2
        return Wishart().entropy(wishart) + conditional

    def kl(self, natural, other):
        # From the parts: what the distance of the means from zero adds to the natural parameters cancels.
        (loc, kappa, wishart), (other_loc, other_kappa, other_wishart) = _parts(natural), _parts(other)
        ratio, gap = other_kappa / kappa, loc - other_loc
        spread = loc.shape[-1] / 2 * (ratio - 1 - jnp.log(ratio))
        shift = other_kappa / 2 * (gap * _product(Wishart().center(wishart), gap)).sum(-1)
        return Wishart().kl(wishart, other_wishart) + spread + shift

    def sample(self, natural, key):
        key_loc, key_precision = jax.random.split(key)
        loc, kappa, wishart = _parts(natural)
        factor = jnp.linalg.cholesky(-wishart["linear"])
        white = Wishart().white_sample(wishart, key_precision)
        # P = W W' with W = C^-T B, and so W^-T = C B^-T is a root of its inverse.
        root = solve_triangular(factor, white, trans=1, lower=True)
        noise = jax.random.normal(key_loc, loc.shape, loc.dtype) / jnp.sqrt(kappa)[..., None]
        deviation = _product(factor, solve_triangular(white, noise[..., None], trans=1, lower=True)[..., 0])
        return loc + deviation, root @ jnp.swapaxes(root, -1, -2)

    def mode(self, natural):
        # The joint one: |P| has the power (nu - D) / 2, and P alone would have (nu - D - 1) / 2.
        loc, _, wishart = _parts(natural)
        return loc, Wishart().mode({"linear": wishart["linear"], "log": natural["log"]})

    def perturbed(self, natural, key):
        # The mean moves about as far as one observation lies from it.
        key_wishart, key_loc, key_kappa = jax.random.split(key, 3)
        loc, kappa, wishart = _parts(natural)
        moved = loc + _product(_spread(wishart), jax.random.normal(key_loc, loc.shape, loc.dtype))
        noise = jnp.exp(jax.random.normal(key_kappa, kappa.shape, kappa.dtype) / 2)
        return _joined(moved, kappa * noise, Wishart().perturbed(wishart, key_wishart))

    def distribution(self, natural):  # type: ignore[override]
        """The marginals of the two: (dist.MultivariateStudentT, dist.Wishart)."""
        loc, kappa, wishart = _parts(natural)
        degrees_of_freedom = 2 * (wishart["log"] + 1)  # nu - D + 1
        factor = jnp.linalg.cholesky(-2 * wishart["linear"])
        scale = factor / jnp.sqrt(kappa * degrees_of_freedom)[..., None, None]
        with relaxed_promotion():
            return dist.MultivariateStudentT(degrees_of_freedom, loc, scale), Wishart().distribution(wishart)

    def natural_of(self, fn: Any):
        """The natural parameters that have these two marginals, (dist.MultivariateStudentT, dist.Wishart)."""
        student, precision = fn
        wishart = Wishart().natural_of(precision)
        factor = jnp.linalg.cholesky(-2 * wishart["linear"])
        degrees_of_freedom = 2 * (wishart["log"] + 1)
        kappa = (factor[..., 0, 0] / student.scale_tril[..., 0, 0]) ** 2 / degrees_of_freedom
        return _joined(jnp.broadcast_to(student.loc, student.shape()), kappa, wishart)

    def statistics(self, value):
        loc, precision = value
        linear = _product(precision, loc)
        log_determinant = Wishart().statistics(precision)["log"]
        return {"linear": linear, "quadratic": (loc * linear).sum(-1), "precision": precision, "log": log_determinant}

    def symmetric(self, value):
        loc, precision = value
        return loc, Wishart().symmetric(precision)

    def initial(self, value):
        loc, precision = value
        return _joined(loc, jnp.ones_like(loc[..., 0]), Wishart().initial(precision))

    def points(self, natural):
        # For each of the two points c E[P] of P, those of x given it: m +- sqrt(D) times the columns of a root of
        # (kappa c E[P])^-1.
        loc, kappa, wishart = _parts(natural)
        size = loc.shape[-1]
        mean, scales = Wishart().center(wishart), Wishart().scales(wishart)
        columns = jnp.moveaxis(_spread(wishart), -1, 0) * sqrt(size)
        offsets = jnp.concatenate([columns, -columns])[None] / jnp.sqrt(kappa[None] * scales)[:, None, ..., None]
        precisions = (scales[..., None, None] * mean[None])[:, None]
        precisions = jnp.broadcast_to(precisions, (*offsets.shape, size))
        return (loc[None, None] + offsets).reshape(-1, *loc.shape), precisions.reshape(-1, *mean.shape)

    def coefficients(self, objective: Any, value):
        # f = <h, P x> + c x'P x + <N, P> + c2 log|P|. In x the gradient is P (h + 2 c x) and the Hessian 2 c P; in P
        # the matrix coefficient is N + (h x' + x h') / 2 + c x x'.
        loc, precision = value

        def of_loc(loc: Array) -> Array:
            return objective((loc, precision))

        gradient, curvature = jax.jvp(jax.grad(of_loc), (loc,), (jnp.ones_like(loc),))
        factor = jnp.linalg.cholesky(precision)
        quadratic = curvature.sum(-1) / (2 * precision.sum((-2, -1)))
        linear = _solve(factor, gradient) - 2 * quadratic[..., None] * loc
        matrix = Wishart().coefficients(lambda precision: objective((loc, precision)), precision)
        cross = _outer(linear + quadratic[..., None] * loc, loc)
        return {
            "linear": linear,
            "quadratic": quadratic,
            "precision": matrix["linear"] - (cross + jnp.swapaxes(cross, -1, -2)) / 2,
            "log": matrix["log"],
        }

    def center(self, natural):
        loc, _, wishart = _parts(natural)
        return loc, Wishart().center(wishart)


def _parts(natural: Natural) -> tuple[Float[Array, "*batch d"], Float[Array, "*batch"], Natural]:
    """m, kappa, and the natural parameters of the marginal Wishart."""
    kappa = -2 * natural["quadratic"]
    loc = natural["linear"] / kappa[..., None]
    linear = natural["precision"] + _outer(natural["linear"], loc) / 2
    return loc, kappa, {"linear": (linear + jnp.swapaxes(linear, -1, -2)) / 2, "log": natural["log"] - 0.5}


def _joined(loc: Float[Array, "*batch d"], kappa: Float[Array, "*batch"], wishart: Natural) -> Natural:
    """The inverse of `_parts`."""
    linear = kappa[..., None] * loc
    precision = wishart["linear"] - _outer(linear, loc) / 2
    return {"linear": linear, "quadratic": -kappa / 2, "precision": precision, "log": wishart["log"] + 0.5}


def _spread(wishart: Natural) -> Float[Array, "*batch d d"]:
    """A root of E[P]^-1, the scaled Cholesky factor of S."""
    half_degrees_of_freedom = wishart["log"] + (wishart["linear"].shape[-1] + 1) / 2
    return jnp.linalg.cholesky(-wishart["linear"]) / jnp.sqrt(half_degrees_of_freedom)[..., None, None]


def _solve(factor: Float[Array, "*batch d d"], vector: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
    """(C C')^-1 x."""
    return cho_solve((factor, True), vector[..., None])[..., 0]


def _product(matrix: Float[Array, "*batch d d"], vector: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
    return jnp.einsum("...ij,...j->...i", matrix, vector)


def _outer(left: Float[Array, "*batch d"], right: Float[Array, "*batch d"]) -> Float[Array, "*batch d d"]:
    return left[..., :, None] * right[..., None, :]

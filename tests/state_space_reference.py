"""Linear Gaussian chains and what is observed of them as one dense normal distribution, in NumPy."""

import numpy as np


def joint_normal(initial_loc, initial_precision, transition, precision, length, offset=None, gate=None):
    """Mean (T, L) and covariance (T, L, T, L) of a path, step by step from the definition of the chain."""
    size = len(initial_loc)
    offset = np.zeros(size) if offset is None else offset
    states = [None] * (length - 1) if gate is None else list(np.argmax(gate, -1))
    mean = [np.asarray(initial_loc)]
    # A path is its mean and a sum of innovations carried forwards: a block of columns for each innovation.
    roots = np.zeros((length, size, length, size))
    roots[0, :, 0] = np.linalg.cholesky(np.linalg.inv(initial_precision))
    for t, state in enumerate(states):
        own = (transition, offset, precision) if state is None else (transition[state], offset[state], precision[state])
        f, b, p = (np.asarray(array) for array in own)
        mean.append(f @ mean[-1] + b)
        roots[t + 1] = np.einsum("ij,jsk->isk", f, roots[t])
        roots[t + 1, :, t + 1] = np.linalg.cholesky(np.linalg.inv(p))
    flat = roots.reshape(length * size, -1)
    return np.stack(mean), (flat @ flat.T).reshape(length, size, length, size)


def smoothed(chain, loading, offset, observation_precision, observations, is_observed=None):
    """Log likelihood, and mean (T, L) and covariance (T, L, T, L) of the path given the observations.

    Args:
        chain: arguments of `joint_normal`.
    """
    observations, loading = np.asarray(observations), np.asarray(loading)
    length, size = observations.shape[0], loading.shape[1]
    mean, covariance = joint_normal(**chain, length=length)
    flat, mean = covariance.reshape(length * size, -1), mean.ravel()
    is_observed = np.ones_like(observations, bool) if is_observed is None else np.asarray(is_observed)
    chosen = np.broadcast_to(is_observed.reshape(length, -1), observations.shape).ravel()
    emission = np.kron(np.eye(length), loading)[chosen]
    noise = np.tile(1 / np.asarray(observation_precision), length)[chosen]
    gap = (observations - np.asarray(offset)).ravel()[chosen] - emission @ mean
    marginal = emission @ flat @ emission.T + np.diag(noise)
    gain = np.linalg.solve(marginal, emission @ flat).T
    log_determinant = np.linalg.slogdet(2 * np.pi * marginal)[1]
    log_likelihood = -(gap @ np.linalg.solve(marginal, gap) + log_determinant) / 2
    posterior = (flat - gain @ emission @ flat).reshape(covariance.shape)
    return log_likelihood, (mean + gain @ gap).reshape(length, size), posterior

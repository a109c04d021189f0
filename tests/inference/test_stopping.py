import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from vbss.inference import Monotone, Plateau, Status


def _statuses(rule, bounds, size=1):
    bounds = jnp.asarray(bounds)

    def step(memory, bound):
        status, memory = rule.judge(bound, memory, size)
        return memory, status

    return np.asarray(jax.lax.scan(step, rule.begin(bounds.dtype), bounds)[1])


def test_monotone():
    statuses = _statuses(Monotone(1e-3), [-10.0, -5.0, -4.999, -6.0, jnp.nan])
    names = [Status(int(status)).name for status in statuses]
    assert names == ["running", "running", "converged", "bound_decreased", "nonfinite"]


def test_a_climb_out_of_the_noise_goes_on_and_a_plateau_ends():
    climb = jnp.linspace(-2000, -1000, 100)
    bounds = jnp.concatenate([climb, jnp.full(1500, -1000.0)]) + jr.normal(jr.key(0), (1600,))
    statuses = _statuses(Plateau(1e-3, window=20), bounds)
    first = int(np.argmax(statuses == Status.converged.value))
    # Segments end after 20, 40, 80, 160, ... steps; the first two that lie on the plateau are those to 320 and to 640.
    assert first == 639
    assert (statuses[:first] == Status.running.value).all()


def test_what_noise_hides_is_not_called_an_end():
    noisy = 30 * jr.normal(jr.key(1), (640,)) - 1000
    assert (_statuses(Plateau(1e-3, window=20), noisy) == Status.running.value).all()
    assert (_statuses(Plateau(1e-2, window=20), noisy) == Status.converged.value).any()


def test_a_plateau_never_ends_at_tolerance_zero_and_never_before_two_windows():
    bounds = jnp.zeros(100)
    assert (_statuses(Plateau(0.0, window=10), bounds) == Status.running.value).all()
    assert int(np.argmax(_statuses(Plateau(1e-4, window=10), bounds) == Status.converged.value)) == 19
    assert _statuses(Plateau(1e-4, window=10), jnp.array([0.0, jnp.inf]))[-1] == Status.nonfinite.value


def test_settings_are_checked():
    with pytest.raises(ValueError, match="window"):
        Plateau(window=1)
    with pytest.raises(ValueError, match="tolerance"):
        Plateau(tolerance=-1.0)

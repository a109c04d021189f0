"""A strict session: double precision, no silent promotion, two devices, the same examples every time.

Tracing and compilation, not arithmetic, are what the tests spend their time on. So they compile without the expensive
optimisations, and Python seldom looks for cyclic garbage among the many objects of a traced program.
"""

import gc
import os

import hypothesis
import jax
import pytest
from xdist.scheduler import WorkStealingScheduling

# Read when JAX is used for the first time, also in subprocesses. XLA ends a process over a flag that it does not know.
if jax.__version_info__[:2] == (0, 10):
    cheap = "--xla_cpu_opt_preset=CPU_OPT_PRESET_FAST_COMPILE --xla_cpu_use_fusion_emitters=false"
    os.environ["XLA_FLAGS"] = f"{cheap} {os.environ.get('XLA_FLAGS', '')}"
gc.set_threshold(100_000, 50, 100)

jax.config.update("jax_num_cpu_devices", 2)  # before JAX is used for the first time
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_disable_most_optimizations", True)

hypothesis.settings.register_profile("deterministic", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("deterministic")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Neighbouring tests share what they compile, so every worker takes long stretches of them."""
    return WorkStealingScheduling(config, log)


@pytest.fixture(scope="module", autouse=True)
def few_compiled_programs():
    """Compiled programs are dropped after each module: a process may map only so many pieces of memory."""
    yield
    jax.clear_caches()

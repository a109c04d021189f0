"""A strict session: double precision, no silent promotion, two devices, the same examples every time.

Compilation, not arithmetic, is what the tests spend their time on, so they compile without the expensive optimisations.
"""

import hypothesis
import jax
import pytest

jax.config.update("jax_num_cpu_devices", 2)  # before JAX is used for the first time
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_disable_most_optimizations", True)

hypothesis.settings.register_profile("deterministic", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("deterministic")


@pytest.fixture(scope="module", autouse=True)
def few_compiled_programs():
    """Compiled programs are dropped after each module: a process may map only so many pieces of memory."""
    yield
    jax.clear_caches()

import numpy as np
import pytest
from observation import Estimate, Observation
from systems import SYSTEMS, System
from worker import forget_peak_memory, measure, peak_memory

from vbss.scenes import Scene, demo_scene


@pytest.fixture(scope="module")
def scene():
    return demo_scene(0, 8000, 1.0)


@pytest.mark.parametrize("knows_truth", [False, True])
@pytest.mark.parametrize("compiles", [False, True])
def test_only_oracles_are_given_the_truth_and_what_compiles_runs_twice(scene, knows_truth, compiles):
    given = []

    def separate(known, *, gain):
        given.append(known)
        return Estimate(gain * known.mixture[:2])

    system = System("test", separate, {"gain": 2.0}, knows_truth=knows_truth, compiles=compiles)
    estimate, measurement = measure(system, scene, baseline=0)
    np.testing.assert_array_equal(estimate.sources, 2.0 * scene.mixture[:2])
    assert [type(known) for known in given] == [Scene if knows_truth else Observation] * (2 if compiles else 1)
    assert measurement.cpu_seconds >= 0
    assert not measurement.failed


def test_peak_memory_remembers_what_was_given_back():
    forget_peak_memory()
    before = peak_memory()
    block = np.ones(8_000_000)
    del block
    assert 60e6 < peak_memory() - before < 120e6


def test_every_system_has_an_identity_of_its_own():
    identities = [(str(system.separate), str(system.identity())) for system in SYSTEMS.values()]
    assert len(set(identities)) == len(SYSTEMS)

import numpy as np
from observation import Estimate
from quality import quality

from vbss.scenes import demo_scene


def test_quality_is_of_the_best_permutation():
    scene = demo_scene(0, 8000, 1.0)
    sources, directions = scene.images[::-1, 0], scene.azimuths[::-1] + np.radians([2.0, -1.0])
    found = quality(scene, Estimate(sources, directions))
    assert min(found["sdr"]) > 60
    np.testing.assert_allclose(sorted(found["direction_errors"]), [1.0, 2.0], atol=1e-9)
    assert "sdr" not in quality(scene, Estimate(directions=directions))
    assert "direction_errors" not in quality(scene, Estimate(sources))

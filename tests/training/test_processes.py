"""Training by several processes: what one process with as many devices gets, written once."""

import json
import socket
import subprocess
import sys

import numpy as np
import pytest

_PROGRAM = """
import json, sys
import jax
process, port, folder, told = sys.argv[1:]
if process == "alone":
    jax.config.update("jax_num_cpu_devices", 2)
else:
    jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=int(process))
import equinox as eqx
import jax.numpy as jnp
import numpy as np
import vbss
from vbss.models import GaussianMixture

class Linear(eqx.Module):
    weight: jax.Array

    def __call__(self, observations):
        return {"component": jax.nn.softmax(observations @ self.weight, -1)}

rng = np.random.default_rng(0)
corpus = [rng.normal(size=(30, 2)).astype(np.float32) for _ in range(10)]
model = GaussianMixture.init(jnp.asarray(corpus[0]), 3, key=jax.random.key(2))
network = Linear(0.1 * jax.random.normal(jax.random.key(3), (2, 3)))
settings = vbss.TrainingSettings(batch_size=4, max_epochs=2)
parts = model, vbss.Amortised(network), corpus[:8], corpus[8:], settings
assert len(jax.devices()) == 2
vbss.train(*parts, folder=folder, devices=jax.devices())
more = vbss.TrainingSettings(batch_size=4, max_epochs=3)
training = vbss.train(*parts[:4], more, folder=folder, devices=jax.devices())  # goes on
weight = np.asarray(training.latest.amortised.network.weight).tolist()
open(told, "w").write(json.dumps([[entry["validation_bound"] for entry in training.history], weight]))
"""


@pytest.mark.slow
def test_two_processes_get_what_two_devices_get(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]

    def started(process, folder):
        told = tmp_path / f"told_{process}.json"
        command = [sys.executable, "-c", _PROGRAM, process, str(port), str(tmp_path / folder), str(told)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True), told

    found = []
    for group, folder in ((["alone"], "one"), (["0", "1"], "two")):
        for process, told in [started(process, folder) for process in group]:
            output, _ = process.communicate(timeout=240)
            assert process.returncode == 0, output
            found.append(json.loads(told.read_text()))
    (bounds, weights), *others = found
    for other_bounds, other_weights in others:
        np.testing.assert_allclose(other_bounds, bounds, rtol=1e-5)
        np.testing.assert_allclose(other_weights, weights, atol=1e-5)
    assert found[1] == found[2]
    histories = [(tmp_path / folder / "metrics.jsonl").read_text().splitlines() for folder in ("one", "two")]
    assert len(histories[0]) == len(histories[1]) == 3

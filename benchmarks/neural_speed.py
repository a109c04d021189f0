"""Training throughput of separators: the default, larger ones, and the paper's, by hand and as autodiff has it.

    python benchmarks/neural_speed.py [--frames 128] [--batch-size 8] [--rounds 5]

One core, float32. A step is the gradient of `vbss.training.SpatialBound` (directions, masks and all) for a batch of
spectrograms of four microphones and 257 frequencies; networks take turns, round by round. `plain` is the paper's
recurrence differentiated as it stands, with the gradient of its weights summed in the loop. A network of the same size
in PyTorch (without the bound) stands beside them if torch is installed. Memory is what XLA allots beside arguments.
"""

import argparse
import os
import time
from collections.abc import Callable

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from vbss.audio import STFT, read_microphone_positions
from vbss.models import LDACGMM
from vbss.networks import ArrayNetwork, Separator
from vbss.networks.long_short_term import LongShortTerm, _recur
from vbss.training import SpatialBound, spatial_model

FREQUENCIES, SOURCES = 257, 2
NETWORKS = {
    "minimal 3 x 192 (default)": {"hidden_size": 192},
    "minimal 3 x 256": {"hidden_size": 256},
    "minimal 3 x 600": {"hidden_size": 600},
    "BiLSTM 3 x 600 (paper)": {"hidden_size": 600, "cell": "lstm"},
}


class PlainLongShortTerm(LongShortTerm):
    """As autodiff has it."""

    def __call__(self, values):
        return _recur(values @ self.weight + self.bias[None], self.recurrent_weight, self.is_backward)[0]


def plain(separator: Separator) -> Separator:
    """The same network with plain recurrences."""

    def replaced(layer: LongShortTerm) -> LongShortTerm:
        twin = object.__new__(PlainLongShortTerm)
        for name in LongShortTerm.__dataclass_fields__:
            object.__setattr__(twin, name, getattr(layer, name))
        return twin

    layers = tuple(tuple(map(replaced, pair)) for pair in separator.recurrent.layers)
    return eqx.tree_at(lambda made: made.recurrent.layers, separator, layers)


def compiled_step(model: LDACGMM, separator: Separator, batch: jax.Array) -> tuple[Callable, float, float]:
    """A function that takes a step, the seconds of its compilation, and the megabytes that it needs."""
    moving, fixed = eqx.partition(separator, eqx.is_inexact_array)

    def loss(moving: Separator, batch: jax.Array) -> jax.Array:
        bound = SpatialBound(ArrayNetwork(eqx.combine(moving, fixed)))
        return -jax.vmap(lambda item: bound.bound(model, item))(batch).mean()

    begin = time.perf_counter()
    step = jax.jit(jax.grad(loss)).lower(moving, batch).compile()
    seconds = time.perf_counter() - begin
    return (
        lambda: jax.block_until_ready(step(moving, batch)),
        seconds,
        step.memory_analysis().temp_size_in_bytes / 2**20,
    )


def torch_step(frames: int, batch_size: int) -> Callable | None:
    """A step of a BiLSTM 3 x 600 in PyTorch, if it is installed."""
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(1)
    network = torch.nn.LSTM(FREQUENCIES, 600, 3, bidirectional=True, batch_first=True)
    output = torch.nn.Linear(1200, FREQUENCIES * SOURCES)
    data = torch.randn(batch_size, frames, FREQUENCIES)

    def step() -> None:
        network.zero_grad(), output.zero_grad()
        output(network(data)[0]).square().mean().backward()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    rng = np.random.default_rng(0)
    parts = rng.standard_normal((2, arguments.batch_size, FREQUENCIES, arguments.frames, 4))
    batch = jnp.asarray(parts[0] + 1j * parts[1], jnp.complex64)
    model = spatial_model(read_microphone_positions("circular:4:0.08"), STFT.init(8000), SOURCES)
    steps, told = {}, {}
    for name, options in NETWORKS.items():
        separator = Separator(FREQUENCIES, SOURCES, key=jax.random.key(0), **options)
        steps[name], *told[name] = compiled_step(model, separator, batch)
        if "BiLSTM" in name:
            steps["plain"], *told["plain"] = compiled_step(model, plain(separator), batch)
    of_torch = torch_step(arguments.frames, arguments.batch_size)
    if of_torch is not None:
        steps["PyTorch"], told["PyTorch"] = of_torch, [0.0, float("nan")]
    seconds = {name: [] for name in steps}
    for number in range(1 + arguments.rounds):
        for name, step in steps.items():
            begin = time.perf_counter()
            step()
            if number > 0:
                seconds[name].append(time.perf_counter() - begin)
    frames = arguments.frames * arguments.batch_size
    paper = np.array(seconds["BiLSTM 3 x 600 (paper)"])
    print("| network | frames/s | times the paper's | compiled in, s | memory, MB |\n|---|---|---|---|---|")
    for name in steps:
        rate, ratio = frames / np.median(seconds[name]), np.median(paper / np.array(seconds[name]))
        print(f"| {name} | {rate:.0f} | {ratio:.2f} | {told[name][0]:.1f} | {told[name][1]:.0f} |")


if __name__ == "__main__":
    main()

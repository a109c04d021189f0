"""Training: the bound rises on unseen items, a stopped run goes on bit for bit, broken items are left out aloud."""

import json
import logging
import warnings
from typing import Annotated

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jaxtyping import Array

import vbss
from vbss import Amortised, Status, TrainingSettings, train
from vbss.errors import InputError
from vbss.models import GaussianMixture
from vbss.training import Corpus, TrainingDataWarning
from vbss.training.batches import batches

CENTERS = np.array([[-3.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
SETTINGS = TrainingSettings(batch_size=4, max_epochs=3, learning_rate=0.05)


class Linear(eqx.Module):
    weight: Array
    bias: Array

    def __call__(self, observations):
        return {"component": jax.nn.softmax(observations @ self.weight + self.bias[None], -1)}


@pytest.fixture(scope="module")
def corpus():
    rng = np.random.default_rng(0)
    return [(CENTERS[rng.integers(3, size=30)] + rng.normal(size=(30, 2))).astype(np.float32) for _ in range(18)]


@pytest.fixture(scope="module")
def parts(corpus):
    model = GaussianMixture.init(jnp.asarray(corpus[0]), 3, key=jr.key(2))
    return model, Amortised(Linear(0.1 * jr.normal(jr.key(3), (2, 3), jnp.float32), jnp.zeros(3, jnp.float32)))


def mean_bound(model, amortised, items):
    bound = eqx.filter_jit(lambda item: amortised.bound(model, item))
    return np.mean([bound(jnp.asarray(item)) for item in items])


def arrays_of(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_array))]


def test_the_bound_of_unseen_items_rises(parts, corpus):
    before = mean_bound(*parts, corpus[14:])
    settings = TrainingSettings(batch_size=4, max_epochs=40, learning_rate=0.05)
    told = []
    training = train(*parts, corpus[:14], corpus[14:], settings, progress=lambda *a: told.append(a))
    after = mean_bound(training.model, training.amortised, corpus[14:])
    np.testing.assert_allclose(after, max(entry["validation_bound"] for entry in training.history), rtol=1e-6)
    assert after > before + 20
    # The parameters of the model are learnt with the network: its components are where the items' are.
    nearest = np.linalg.norm(np.asarray(training.model.loc)[:, None] - CENTERS[None], axis=-1).min(0)
    assert nearest.max() < 0.5
    assert told[0][:2] == (1, 4) and told[3][0] == 4
    # Exact inference in the model that was learnt is not much better than the network, of data that it never saw.
    exact = [vbss.fit(training.model, jnp.asarray(x), vbss.EM(frozen=["loc", "precision", "log_weights"]), max_steps=2)
             for x in corpus[14:]]  # fmt: skip
    assert after > np.mean([solution.elbo[-1] for solution in exact]) - 5


def test_a_stopped_training_goes_on_bit_for_bit(parts, corpus, tmp_path):
    whole = train(*parts, corpus[:14], corpus[14:], SETTINGS, folder=tmp_path / "whole")

    def stop(step, steps, bound):
        if step == 2 and not stopped:
            stopped.append(step)
            raise KeyboardInterrupt

    stopped: list[int] = []
    first = train(*parts, corpus[:14], corpus[14:], SETTINGS, folder=tmp_path / "parts", progress=stop)
    assert first.status is Status.interrupted and (first.epoch, first.batch) == (0, 2)
    second = train(*parts, corpus[:14], corpus[14:], SETTINGS, folder=tmp_path / "parts")
    assert second.status is whole.status is Status.max_steps
    for a, b in zip(arrays_of(whole), arrays_of(second), strict=True):
        np.testing.assert_array_equal(a, b)
    lines = [json.loads(line) for line in (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    assert [line["validation_bound"] for line in lines] == [entry["validation_bound"] for entry in whole.history]
    # More epochs go on from there.
    more = TrainingSettings(batch_size=4, max_epochs=4, learning_rate=0.05)
    assert len(train(*parts, corpus[:14], corpus[14:], more, folder=tmp_path / "parts").history) == 4


def test_the_learning_rate_falls_and_training_ends(parts, corpus):
    settings = TrainingSettings(batch_size=4, learning_rate=1e-9, patience=1, stop_after=3, max_epochs=20)
    stuck = [np.full((30, 2), 1e-3, np.float32) * np.arange(30, dtype=np.float32)[:, None]] * 4
    training = train(*parts, stuck, corpus[14:], settings)
    assert training.status is Status.converged
    rates = np.array([entry["learning_rate"] for entry in training.history])
    np.testing.assert_allclose(rates[-1] / rates[-2], 0.7)


def test_broken_items_are_left_out_aloud(parts, corpus):
    broken = [*corpus[:6], np.full((30, 2), np.nan, np.float32)]
    with pytest.warns(TrainingDataWarning, match="item 6 holds infinite or nan"):
        training = train(*parts, broken, corpus[14:], SETTINGS)
    assert [entry["skipped"] for entry in training.history] == [1, 1, 1]
    assert all(np.isfinite(leaf).all() for leaf in arrays_of(training.latest))


def test_two_devices_have_the_same_loss(parts, corpus):
    one, two = (train(*parts, corpus[:8], corpus[8:12], SETTINGS, devices=jax.devices()[:n]) for n in (1, 2))
    for a, b in zip(one.history, two.history, strict=True):
        np.testing.assert_allclose(a["training_bound"], b["training_bound"], rtol=1e-5)
        np.testing.assert_allclose(a["validation_bound"], b["validation_bound"], rtol=1e-5)
    with pytest.raises(InputError, match="batch_size"):
        train(*parts, corpus, corpus, TrainingSettings(batch_size=3), devices=jax.devices()[:2])


def test_batches_are_the_same_whoever_reads_them():
    corpus = [np.full(2, i, np.float32) for i in range(10)]
    assert isinstance(corpus, Corpus)

    def read(**options):
        found = list(batches(corpus, 4, seed=1, **options))
        return np.stack([b.data[0][:, 0] for b in found]), np.stack([b.weights for b in found])

    one, weights = read(epoch=0)
    np.testing.assert_array_equal(one, read(epoch=0, num_workers=4)[0])
    np.testing.assert_array_equal(weights, [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0, 0]])
    assert sorted(one[weights == 1]) == list(range(10))
    assert (one != read(epoch=1)[0]).any()
    np.testing.assert_array_equal(one[2:], read(epoch=0, first=2)[0])
    np.testing.assert_array_equal(read(epoch=None)[0].ravel()[:10], np.arange(10))


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ([], "corpus must have items"),
        ([np.ones((30, 2), np.float32), np.ones((31, 2), np.float32)], "items must have the same shapes"),
        ([np.full((30, 2), np.inf, np.float32)], "must be finite|hold infinite"),
        ([np.ones((30, 3), np.float32)], "columns"),
    ],
)
def test_odd_corpora_are_refused(parts, odd, message):
    with warnings.catch_warnings(), pytest.raises(InputError, match=message):
        warnings.simplefilter("ignore", TrainingDataWarning)
        train(*parts, odd, [np.ones((30, 2), np.float32)], SETTINGS)


def test_a_checkpoint_of_another_network_is_refused(parts, corpus, tmp_path):
    train(*parts, corpus[:4], corpus[4:8], SETTINGS, folder=tmp_path)
    other = Amortised(Linear(jnp.zeros((2, 4), jnp.float32), jnp.zeros(4, jnp.float32)))
    with pytest.raises(InputError, match="no training of this model and network"):
        train(parts[0], other, corpus[:4], corpus[4:8], SETTINGS, folder=tmp_path)


@pytest.mark.parametrize(
    "field", [{"batch_size": 0}, {"learning_rate": 0.0}, {"decay": 1.5}, {"decay": 0.0}, {"patience": 0}, {"seed": -1}]
)
def test_impossible_settings_are_refused(field):
    with pytest.raises(InputError, match=next(iter(field))):
        TrainingSettings(**field)


class Exploding(Linear):
    """Its gradient is not a number where an item's first value is above a threshold, though its bound is."""

    def __call__(self, observations):
        said = super().__call__(observations)["component"]
        under_root = jnp.where(observations[0, 0] > 90, 0 * self.weight.sum(), 1)
        return {"component": said + 0 * jnp.sqrt(under_root)}


def test_steps_that_are_no_numbers_are_left_out_aloud(parts, corpus):
    model, amortised = parts
    network = Exploding(amortised.network.weight, amortised.network.bias)
    odd = [*corpus[:7], np.full((30, 2), 99, np.float32)]
    with pytest.warns(TrainingDataWarning, match="infinite or nan bound or gradient"):
        training = train(model, Amortised(network), odd, corpus[14:], SETTINGS)
    assert [entry["skipped"] for entry in training.history] == [4, 4, 4]
    assert all(np.isfinite(leaf).all() for leaf in arrays_of(training.latest))
    with pytest.warns(TrainingDataWarning):
        training = train(model, Amortised(network), odd[7:], corpus[14:], SETTINGS)
    assert training.status is Status.nonfinite and len(training.history) == 1


def test_a_batch_of_broken_items_alone_is_passed_over(parts, corpus):
    broken = [np.full((30, 2), np.nan, np.float32), *corpus[:3]]
    settings = TrainingSettings(batch_size=1, max_epochs=1)
    with pytest.warns(TrainingDataWarning, match="item 0"):
        training = train(*parts, broken, broken, settings)
    assert training.history[0]["skipped"] == training.history[0]["validation_skipped"] == 1
    assert np.isfinite(training.history[0]["validation_bound"])


class Named(list):
    fingerprint = "what it is"


def test_a_checkpoint_knows_what_must_not_change(parts, corpus, tmp_path):
    train(*parts, corpus[:4], corpus[4:8], SETTINGS, folder=tmp_path)
    for change in ({"batch_size": 2}, {"seed": 1}):
        with pytest.raises(InputError, match="batch_size, seed and number of items"):
            train(*parts, corpus[:4], corpus[4:8], TrainingSettings(**{"batch_size": 4} | change), folder=tmp_path)
    with pytest.raises(InputError, match="batch_size, seed and number of items"):
        train(*parts, corpus[:5], corpus[5:8], SETTINGS, folder=tmp_path)
    other = eqx.tree_at(lambda model: model.anchor, parts[0], parts[0].anchor + 1)
    with pytest.raises(InputError, match="no training of this model"):
        train(parts[0], Amortised(parts[1].network, num_sweeps=2), corpus[:4], corpus[4:8], SETTINGS, folder=tmp_path)
    with pytest.raises(InputError, match="no training of this model"):
        train(other, parts[1], corpus[:4], corpus[4:8], SETTINGS, folder=tmp_path)
    with pytest.raises(InputError, match="other data"):
        train(*parts, Named(corpus[:4]), corpus[4:8], SETTINGS, folder=tmp_path)
    slower = TrainingSettings(batch_size=4, max_epochs=4, learning_rate=0.001)
    assert train(*parts, corpus[:4], corpus[4:8], slower, folder=tmp_path).history[-1]["learning_rate"] <= 0.001


def test_two_trainings_do_not_share_a_folder(parts, corpus, tmp_path):
    def other(*told):
        with pytest.raises(InputError, match="in use by another training"):
            train(*parts, corpus[:4], corpus[4:8], SETTINGS, folder=tmp_path)

    train(
        *parts, corpus[:4], corpus[4:8], TrainingSettings(batch_size=4, max_epochs=1), folder=tmp_path, progress=other
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.vbss", "metrics.jsonl"]


def test_a_network_that_no_file_holds_is_refused_before_training(parts, corpus, tmp_path):
    class Unnamed(Linear):
        activation: object = eqx.field(default=jax.nn.relu)

    network = Unnamed(parts[1].network.weight, parts[1].network.bias)
    told = []
    with pytest.raises(InputError, match="cannot be saved"):
        train(parts[0], Amortised(network), corpus[:4], corpus[4:8], SETTINGS, folder=tmp_path, progress=told.append)
    assert not told


def test_an_item_that_cannot_be_read_is_named_and_nothing_lost(parts, corpus, tmp_path):
    class Missing(list):
        def __getitem__(self, index):
            raise OSError("no such file")

    class Broken(list):
        def __getitem__(self, index):
            if index == 3 and len(seen) > 4:
                raise OSError("no such file")
            seen.append(index)
            return super().__getitem__(index)

    with pytest.raises(InputError, match="item 0 cannot be read: no such file"):
        train(*parts, Missing(corpus[:4]), corpus[4:8], SETTINGS)
    seen: list[int] = []
    settings = TrainingSettings(batch_size=1, max_epochs=3, num_workers=1)
    with pytest.raises(InputError, match="item 3 cannot be read: no such file"):
        train(*parts, Broken(corpus[:4]), corpus[4:8], settings, folder=tmp_path)
    assert train(*parts, corpus[:4], corpus[4:8], settings, folder=tmp_path).status is Status.max_steps


def test_a_second_training_compiles_nothing(parts, corpus):
    def compiled() -> list[str]:
        told.clear()
        with jax.log_compiles():
            train(*parts, corpus[:8], corpus[8:12], SETTINGS, devices=jax.devices()[:2])
        return sorted(
            name for name in ("_step", "_evaluated") for message in told if f"Compiling jit({name})" in message
        )

    told: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("jax").addHandler(handler)
    try:
        jax.clear_caches()
        assert compiled() == ["_evaluated", "_step"]
        assert compiled() == []
    finally:
        logging.getLogger("jax").removeHandler(handler)


def test_what_inference_refuses_is_not_trained(corpus):
    class Warped(vbss.Model):
        log_weights: Annotated[Array, vbss.Simplex()]

        def __call__(self, observations):
            with numpyro.plate("n", observations.shape[0]):
                z = vbss.indicator("component", self.log_weights)
                loc = jnp.exp(z @ jnp.array([0.0, 1.0, 2.0], z.dtype))  # not linear in z
                numpyro.sample("observations", dist.Normal(loc[:, None], 1.0).to_event(1), obs=observations)

    model = Warped(jnp.log(jnp.full(3, 1 / 3, jnp.float32)))
    amortised = Amortised(Linear(jnp.zeros((2, 3), jnp.float32), jnp.zeros(3, jnp.float32)))
    with pytest.raises(vbss.ProgramError, match="component"):
        train(model, amortised, corpus[:4], corpus[4:8], SETTINGS)

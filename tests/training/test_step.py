"""The train step of a toy network, compiled once per dtype."""

from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mscaflax.config import load_config
from mscaflax.nets.encoders import TapStatistics
from mscaflax.nets.vgg import STAGES, vgg16_taps
from mscaflax.training.experiment import build_experiment
from mscaflax.training.sharding import batch_sharding, make_mesh, replicated
from mscaflax.training.state import init_state, measure_statistics, stream_key
from mscaflax.training.step import example_keys, gradients, make_train_step, synthesize, visible_exemplars

CLASSES = 3


def toy_batch():
    """Two layouts in two styles, each with the other layout in its own style as exemplar: what to overfit.

    Examples 0 and 1 are a pair of the first style, 2 and 3 of the second; 0 and 2 have one layout.
    """
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:32, :32]
    layouts = [np.where(x > 15, 1, 0) + (y > 20), np.where((x - 16) ** 2 + (y - 16) ** 2 < 90, 2, y // 16)]
    styles = np.array([[(0.8, 0.6, -0.5), (-0.2, 0.4, -0.7), (0.5, -0.6, 0.1)],
                       [(-0.7, -0.4, 0.7), (0.6, -0.8, 0.5), (-0.6, 0.7, 0.2)]])  # fmt: skip
    label = np.stack([layouts[0], layouts[1], layouts[0], layouts[1]]).astype(np.int32)
    image = np.stack([styles[i // 2][label[i]] for i in range(4)]) + rng.normal(0, 0.05, (4, 32, 32, 3))
    image = image.astype(np.float32)
    partner = [1, 0, 3, 2]
    return {"image": image, "label": label, "exemplar": image[partner], "exemplar_label": label[partner]}


@pytest.fixture(scope="module")
def vgg():
    """VGG-16 with random weights, thin between its taps: the true one takes seconds per step."""
    rng = np.random.default_rng(1)
    params, before = [], 3
    for stage in STAGES:
        for after in (*(8 for _ in stage[1:]), stage[-1]):
            kernel = rng.normal(0, (2 / (9 * before)) ** 0.5, (3, 3, before, after))
            params.append({"kernel": kernel.astype(np.float32), "bias": np.zeros(after, np.float32)})
            before = after
    return jax.device_put(params)


@pytest.fixture(scope="module")
def batch():
    return jax.device_put(toy_batch())


@pytest.fixture(scope="module")
def statistics(vgg, batch):
    return measure_statistics(vgg, [batch["image"], batch["exemplar"][::2].repeat(2, 0)])


def build(dtype="float32"):
    """The Experiment of config `tiny`, with the three finest scales only: they compile in half the time."""
    config = load_config(
        ["--config=tiny", f"--config.model.dtype={dtype}", "--config.optimizer.generator_rate=2e-3",
         "--config.loss.l1=20.0", "--config.loss.adversarial=0.1"]
    )  # fmt: skip
    experiment = build_experiment(config, CLASSES)
    fields = ("image_channels", "label_channels", "generator_channels", "hidden_channels")
    fields += ("attention_scales", "synthesis_noise")
    three = {name: getattr(experiment.network, name)[:3] for name in fields}
    return replace(experiment, network=replace(experiment.network, **three))


class Toy:
    """An experiment, an initial state and the compiled step on one device."""

    def __init__(self, experiment, initial, vgg, batch):
        mesh = make_mesh(jax.devices()[:1])
        whole = replicated(mesh)
        self.experiment = experiment
        self.initial, self.vgg = jax.device_put((initial, vgg), whole)
        self.batch = jax.device_put(batch, batch_sharding(mesh))
        self.compiled = make_train_step(experiment, mesh)

    def step(self, state):
        """One step; the state given is kept, a copy of it is donated."""
        return self.compiled(jax.tree.map(jnp.copy, state), self.vgg, self.batch)


@pytest.fixture(scope="module")
def initial(statistics):
    return jax.jit(lambda statistics: init_state(build(), statistics))(statistics)


@pytest.fixture(scope="module")
def toy(initial, vgg, batch):
    return Toy(build(), initial, vgg, batch)


@pytest.fixture(scope="module")
def half(initial, vgg, batch):
    return Toy(build("bfloat16"), initial, vgg, batch)


@pytest.fixture(scope="module")
def overfitted(toy):
    """The state and the metrics of every step of a run on the four pairs."""
    state, metrics = toy.initial, []
    for _ in range(STEPS):
        state, row = toy.step(state)
        metrics.append(jax.device_get(row))
    return state, metrics


STEPS = 60


def unchanged(before, after):
    """The leaves that are equal in two trees."""
    leaves = zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True)
    return [jax.tree_util.keystr(path) for (path, a), b in leaves if np.array_equal(a, b)]


def types(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


@pytest.mark.parametrize("name", ["toy", pytest.param("half", marks=pytest.mark.slow)])
def test_one_step_changes_both_networks_and_no_type(name, request):
    toy = request.getfixturevalue(name)
    before = toy.initial
    after, metrics = toy.step(before)
    assert types(after) == types(before) and int(after.step) == 1
    assert unchanged(before.generator, after.generator) == []
    assert unchanged(before.ema, after.ema) == []
    assert len(unchanged(before.statistics, after.statistics)) == 10
    # While every margin is missed, real and fake pull the bias of a logit equally.
    still = [path for path in unchanged(before.discriminator, after.discriminator) if "logits" not in path]
    assert still == []
    # Of the spectral norms' vectors only that of a single channel, ±1, has nowhere to go.
    still = [path for path in unchanged(before.spectral, after.spectral) if path.endswith("u']")]
    assert [path for path in still if "logits" not in path] == []
    floats = {x.dtype for x in jax.tree.leaves(after) if jnp.issubdtype(x.dtype, jnp.floating)}
    assert floats == {jnp.dtype(jnp.float32)}
    assert all(np.isfinite(x) and x.dtype == jnp.float32 for x in metrics.values())


@pytest.mark.slow
def test_half_precision_agrees_with_full(toy, half):
    (_, metrics), (_, full) = half.step(half.initial), toy.step(toy.initial)
    for name in ("l1", "perceptual", "feature_matching"):
        # bfloat16 has three digits.
        assert metrics[f"loss/{name}"] == pytest.approx(float(full[f"loss/{name}"]), rel=0.05), name


@pytest.mark.parametrize("name", ["toy", pytest.param("half", marks=pytest.mark.slow)])
def test_the_same_step_twice_is_the_same_to_the_bit(name, request):
    toy = request.getfixturevalue(name)
    first, second = toy.step(toy.initial), toy.step(toy.initial)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def without_gradient(optimizer):
    """Parameters whose gradient was zero: with β1 = 0 Adam's first moment is that of the full loss."""
    leaves = [(jax.tree_util.keystr(path), x) for path, x in jax.tree_util.tree_leaves_with_path(optimizer)]
    gradients = {path: x for path, x in leaves if "mu" in path}
    assert gradients
    return [path for path, gradient in gradients.items() if not np.abs(gradient).max() > 1e-8]


@pytest.fixture
def double(monkeypatch):
    """Computes in float64, which the networks take for float32: here rounding hides no mistake."""
    with jax.enable_x64():
        monkeypatch.setattr(jnp, "float32", jnp.float64)
        yield lambda tree: jax.tree.map(
            lambda x: jnp.asarray(x, jnp.float64 if jnp.issubdtype(x.dtype, jnp.floating) else x.dtype), tree
        )


@pytest.mark.slow
def test_parts_of_the_batch_remat_and_folded_columns_give_the_same(double, statistics, vgg):
    of_whole = build()
    of_whole = replace(
        of_whole,
        dtype=jnp.float64,
        hidden_share=0.5,
        network=replace(of_whole.network, dtype=jnp.float64),
        discriminator=replace(of_whole.discriminator, dtype=jnp.float64),
    )
    in_parts = replace(
        of_whole,
        accumulate=2,
        tpu_options=(("xla_no_such", "1"),),  # not for this device
        network=replace(of_whole.network, remat=True, fold_columns=True, convolutions=True),
        discriminator=replace(of_whole.discriminator, fold_columns=True),
    )
    vgg, statistics, batch = map(double, (vgg, statistics, toy_batch()))
    initial = double(jax.jit(lambda statistics: init_state(of_whole, statistics))(statistics))
    toys = (Toy(experiment, initial, vgg, batch) for experiment in (in_parts, of_whole))
    (other, parts), (after, whole) = (toy.step(toy.initial) for toy in toys)
    for name, value in whole.items():
        assert value.dtype == jnp.float64
        assert parts[name] == pytest.approx(float(value), rel=1e-12, abs=1e-14), name
    jax.tree.map(np.testing.assert_array_equal, other.spectral, after.spectral)
    # With β1 = 0 Adam's first moment is the gradient.
    for optimizer in ("generator_optimizer", "discriminator_optimizer"):
        found, expected = (getattr(state, optimizer)[0].mu for state in (other, after))
        for (path, a), b in zip(jax.tree.leaves_with_path(found), jax.tree.leaves(expected), strict=True):
            assert a.dtype == jnp.float64 and np.abs(b).max() > 0
            assert np.abs(a - b).max() <= 1e-11 * np.abs(b).max(), path


def test_every_parameter_has_a_gradient(toy):
    after, _ = toy.step(toy.initial)
    assert without_gradient(after.generator_optimizer) == []


def test_every_parameter_has_a_gradient_at_all_scales(tiny_run, read_checkpoint):
    state = read_checkpoint(tiny_run, 4)["training"]
    assert "scale4" in state["generator"]["aligner"]
    assert without_gradient(state["generator_optimizer"]) == []
    # While every margin is missed, real and fake pull the bias of a logit equally.
    still = [path for path in without_gradient(state["discriminator_optimizer"]) if "logits" not in path]
    assert still == []


def test_average_follows_its_formula(toy):
    for t, decay in ((0, 0.1), (9, 10 / 19), (10**6, 0.999)):
        step = jax.device_put(jnp.asarray(t, jnp.int32), toy.initial.step.sharding)
        before = toy.initial.replace(step=step)
        after, _ = toy.step(before)
        for old, new, found in zip(
            *map(jax.tree.leaves, (before.ema, after.generator, after.ema)), strict=True
        ):
            expected = np.float64(old) * decay + np.float64(new) * (1 - decay)
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_total_is_the_weighted_sum(toy):
    _, metrics = toy.step(toy.initial)
    weights = toy.experiment.loss
    names = ("adversarial", "feature_matching", "perceptual", "l1")
    total = sum(getattr(weights, name) * metrics[f"loss/{name}"] for name in names)
    assert metrics["loss/generator"] == pytest.approx(float(total), rel=1e-5)
    assert metrics["norm/generator_gradients"] > 0 and metrics["norm/discriminator_updates"] > 0


def test_four_pairs_are_overfitted(overfitted):
    state, metrics = overfitted
    assert int(state.step) == STEPS
    first, last = metrics[0]["loss/l1"], np.mean([row["loss/l1"] for row in metrics[-5:]])
    assert last < first / 2, (first, last)


def test_the_answer_follows_the_exemplar(toy, overfitted, batch):
    state, _ = overfitted
    run = jax.jit(
        lambda params, statistics, vgg, batch, keys: (
            synthesize(toy.experiment.network, params, statistics, vgg, batch, keys).image
        ),
    )
    keys = example_keys(jax.random.key(0), 4)
    swapped = batch | {key: jnp.roll(batch[key], 2, axis=0) for key in ("exemplar", "exemplar_label")}
    target, other_style = batch["image"], jnp.roll(batch["image"], 2, axis=0)
    for inputs, wanted, unwanted in ((batch, target, other_style), (swapped, other_style, target)):
        output = run(state.generator, state.statistics, toy.vgg, inputs, keys)
        near, far = (np.abs(output - x).mean(axis=(1, 2, 3)) for x in (wanted, unwanted))
        assert (near < 0.6 * far).all(), (near, far)


@pytest.mark.slow
def test_photos_seen_once_teach_what_pairs_teach(toy, vgg, batch):
    """Both directions of pairs side by side: the gradients of a batch whose exemplars are taken apart."""
    # Example 1 has itself as exemplar, the others their partners.
    own = {"exemplar": batch["image"][1], "exemplar_label": batch["label"][1]}
    mixed = batch | {name: jnp.asarray(batch[name]).at[1].set(value) for name, value in own.items()}
    keys = example_keys(jax.random.key(0), 4)
    run = jax.jit(gradients, static_argnums=0)
    found, expected = (
        run(replace(toy.experiment, both_directions=both), toy.initial, vgg, mixed, keys)
        for both in (True, False)
    )
    for name, value in expected[3].items():
        assert float(found[3][name]) == pytest.approx(float(value), rel=1e-4, abs=1e-5), name
    for a, b in zip(found[:2], expected[:2], strict=True):
        difference = optax.tree.norm(jax.tree.map(jnp.subtract, a, b))
        assert float(optax.tree.norm(b)) > 0 and float(difference) < 1e-3 * float(optax.tree.norm(b))


def test_statistics_are_per_channel_moments(vgg, batch, statistics):
    assert isinstance(statistics, TapStatistics)
    images = jnp.concatenate([batch["image"], batch["exemplar"][::2].repeat(2, 0)])
    taps = jax.jit(vgg16_taps)(vgg, images)
    for tap, mean, deviation in zip(taps, statistics.mean, statistics.deviation, strict=True):
        flat = np.asarray(tap, np.float64).reshape(-1, tap.shape[-1])
        np.testing.assert_allclose(mean, flat.mean(axis=0), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(deviation, np.maximum(flat.std(axis=0), 1e-2), rtol=2e-2, atol=1e-3)
        assert np.min(deviation) > 0.0099


def test_keys_are_functions_of_seed_stream_and_step():
    def data(*args):
        return tuple(jax.random.key_data(stream_key(*args)).tolist())

    base = data(0, "noise", 5)
    assert data(0, "noise", 5) == base
    assert len({base, data(1, "noise", 5), data(0, "init", 5), data(0, "noise", 6)}) == 4
    keys = jax.random.key_data(example_keys(stream_key(0, "noise", 5), 8))
    assert len({tuple(key.tolist()) for key in keys}) == 8
    np.testing.assert_array_equal(jax.random.key_data(example_keys(stream_key(0, "noise", 5), 4)), keys[:4])


def test_hidden_classes_are_whole_and_as_many_as_asked():
    """Half of the classes of half of the exemplars; never nearly all of an exemplar."""
    labels = np.random.default_rng(0).integers(0, 5, (400, 8, 8)).astype(np.int32)
    labels[:100] = 2  # hiding its one class would leave nothing
    network = SimpleNamespace(num_classes=4)
    experiment = SimpleNamespace(hidden_share=0.5, network=network)
    keys = example_keys(jax.random.key(0), len(labels))
    visible = np.asarray(visible_exemplars(experiment, labels, keys))
    assert visible[:100].all() and (visible.mean(axis=(1, 2)) >= 1 / 16).all()
    hidden = np.zeros((300, 5), bool)
    for row, label, seen in zip(hidden, labels[100:], visible[100:], strict=True):
        for k in range(5):
            values = seen[label == k]
            assert values.all() or not values.any(), "a class is hidden as a whole"
            row[k] = not values.all()
    share = hidden.any(axis=1).mean()
    assert 0.4 < share < 0.6
    assert 0.4 < hidden[hidden.any(axis=1)].mean() < 0.6
    none = SimpleNamespace(hidden_share=0.0, network=network)
    assert visible_exemplars(none, labels, keys) is None

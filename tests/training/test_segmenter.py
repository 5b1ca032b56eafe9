import json
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mscaflax.config import load_config, shipped_configs
from mscaflax.data.images import read_photo
from mscaflax.errors import UserError
from mscaflax.nets.vgg import load_vgg16
from mscaflax.training import segmenter as module
from mscaflax.training.description import load_description
from mscaflax.training.loop import train
from mscaflax.training.segmenter import SegmenterTask, load_segmenter, restore_segmenter, segmenter_folder
from mscaflax.training.segmenter_step import (
    both_patches,
    build_segmenter,
    init_segmenter_state,
    jitter_colours,
    label_loss,
    segmenter_step,
)
from mscaflax.training.state import neutral_statistics


@pytest.fixture(scope="module")
def segmenter(segmenter_run):
    return restore_segmenter(segmenter_folder(segmenter_run, 0))


@pytest.fixture
def begun(segmenter_run, tmp_path):
    """A workdir with a description and no segmenter."""
    for name in ("config.json", "classes.json", "dataset.json"):
        shutil.copy(segmenter_run / name, tmp_path)
    return tmp_path


# The loss


def test_the_loss_is_the_mean_over_labelled_pixels():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(2, 3, 4, 5)).astype(np.float32), rng.integers(0, 6, (2, 3, 4))
    logarithms = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    places = [place for place in np.ndindex(labels.shape) if labels[place] < 5]
    assert 0 < len(places) < labels.size
    loss, accuracy = label_loss(jnp.asarray(logits), jnp.asarray(labels))
    assert loss == pytest.approx(-np.mean([logarithms[place][labels[place]] for place in places]), rel=1e-5)
    right = [logits[place].argmax() == labels[place] for place in places]
    assert accuracy == pytest.approx(np.mean(right))


def test_unlabelled_pixels_have_no_gradient():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(1, 2, 2, 3)), jnp.float32)
    labels = jnp.array([[[0, 3], [3, 2]]])
    gradient = jax.grad(lambda x: label_loss(x, labels)[0])(logits)
    heard = np.abs(gradient).max(axis=-1) > 0
    np.testing.assert_array_equal(heard, [[[True, False], [False, True]]])
    nothing = jnp.full((1, 2, 2), 3)
    (loss, accuracy), gradient = jax.value_and_grad(label_loss, has_aux=True)(logits, nothing)
    assert (loss, accuracy) == (0, 0) and not np.any(gradient)


# The patches


def test_the_patches_of_a_pair_stand_side_by_side():
    rng = np.random.default_rng(0)
    shapes = {
        "image": (2, 4, 4, 3),
        "exemplar": (2, 4, 4, 3),
        "label": (2, 4, 4),
        "exemplar_label": (2, 4, 4),
    }
    batch = {key: rng.normal(size=shape).astype(np.float32) for key, shape in shapes.items()}
    images, labels = both_patches(batch)
    for i in range(2):
        for j, (image, label) in enumerate((("image", "label"), ("exemplar", "exemplar_label"))):
            np.testing.assert_array_equal(images[2 * i + j], batch[image][i])
            np.testing.assert_array_equal(labels[2 * i + j], batch[label][i])


def test_jitter_varies_each_image_alone_and_stays_in_range():
    images = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (3, 8, 8, 3)), jnp.float32)
    keys = jax.random.split(jax.random.key(1), 3)
    changed = jitter_colours(images, keys, 0.3)
    assert np.abs(changed).max() <= 1 and jitter_colours(images, keys, 0.0) is images
    moved = np.abs(changed - images).mean(axis=(1, 2, 3))
    assert (moved > 0.01).all() and (moved < 0.3).all() and len(set(moved.tolist())) == 3
    np.testing.assert_allclose(jitter_colours(images[1:2], keys[1:2], 0.3), changed[1:2], atol=1e-6)
    # An affine map of the colours, the same for all pixels: away from the borders nothing else happens.
    small = 0.3 * images[:1]
    design = np.concatenate([small.reshape(-1, 3), np.ones((64, 1), np.float32)], axis=1)
    target = jitter_colours(small, keys[:1], 0.3).reshape(-1, 3)
    solution = np.linalg.lstsq(design, target, rcond=None)[0]
    np.testing.assert_allclose(design @ solution, target, atol=1e-5)


# The step


@pytest.mark.parametrize("name", sorted(shipped_configs()))
def test_every_shipped_config_has_a_step_that_keeps_the_types(name):
    config = load_config([f"--config={name}"])
    experiment = build_segmenter(config, 12)
    state = jax.eval_shape(lambda: init_segmenter_state(experiment, neutral_statistics()))
    image = jax.ShapeDtypeStruct((2, config.data.size, config.data.size, 3), jnp.float32)
    label = jax.ShapeDtypeStruct(image.shape[:3], jnp.int32)
    batch = {"image": image, "exemplar": image, "label": label, "exemplar_label": label}
    after, metrics = jax.eval_shape(
        lambda state, vgg, batch: segmenter_step(experiment, state, vgg, batch), state, load_vgg16(), batch
    )
    types = [jax.tree.map(lambda x: (x.shape, x.dtype), tree) for tree in (state, after)]
    assert types[0] == types[1]
    assert {(value.shape, value.dtype) for value in metrics.values()} == {((), jnp.dtype(jnp.float32))}


def test_the_rate_falls_to_zero():
    config = load_config(["--config=tiny", "--config.segmenter.weight_decay=0.0"])
    optimizer = build_segmenter(config, 3).optimizer
    params = {"w": jnp.ones(3)}
    state, sizes = optimizer.init(params), []
    for _ in range(config.segmenter.steps + 1):
        updates, state = optimizer.update(params, state, params)
        sizes.append(float(optax.tree.norm(updates)))
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > 1e-4 and sizes[-1] < 1e-9


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("segmenter.channels=(8,8)", "config.segmenter.channels is .8, 8.; give 5 positive numbers"),
        ("segmenter.channels=(8,8,8,8,0)", "give 5 positive numbers"),
        ("segmenter.jitter=1.5", "config.segmenter.jitter is 1.5; it must lie in 0..1"),
        (
            "segmenter.batch_size=3",
            r"batch_size \(--batch_size\) is 3; give a positive multiple of 2",
        ),
        ("segmenter.steps=0", "config.segmenter.steps is 0; it must be at least 1"),
        ("segmenter.val_pairs=0", "config.segmenter.val_pairs is 0; it must be at least 1"),
        ("segmenter.side_range=(0.9,0.1)", "side_range"),
        ("model.dtype=float8", "config.model.dtype is 'float8'; choose one of float32, bfloat16"),
        ("data.val_split=none", "no split 'none'"),
    ],
)
def test_bad_settings_are_one_line(changed, message, coloured_photos):
    arguments = ["--config.data.name=coloured", f"--config.data.data_dir={coloured_photos}"]
    config = load_config(["--config=tiny", *arguments, f"--config.{changed}"])
    with pytest.raises(UserError, match=message):
        SegmenterTask(config).batches(0)


# A trained one


def test_it_learns_what_the_colours_say(segmenter, segmenter_run, read_events):
    events = read_events(segmenter_folder(segmenter_run, 0))
    assert list(events["loss/cross_entropy"]) == list(range(1, 41))
    assert events["val/pixel_accuracy"][40] > 0.9 > events["train/pixel_accuracy"][1]
    assert list(events["train/patches_per_second"])[0] == 2
    # Another size, and blocks smaller than nearly all that it saw: far above chance, which is a third.
    rng = np.random.default_rng(7)
    label = np.kron(rng.integers(0, 3, (3, 4)), np.ones((16, 16), int))[None]
    image = np.eye(3, dtype=np.float32)[label] * 1.57 - 0.69 + rng.normal(0, 0.1, (*label.shape, 3))
    predicted = segmenter.predict(np.clip(image, -1, 1))
    assert predicted.dtype == np.int32 and predicted.shape == label.shape
    assert (predicted == label).mean() > 0.55


def test_a_sample_grid_shows_photo_truth_and_prediction(segmenter_run):
    folder = segmenter_folder(segmenter_run, 0) / "samples"
    assert [path.name for path in folder.iterdir()] == ["00000040.png"]
    grid = read_photo(folder / "00000040.png")
    assert grid.shape[0] > 6 * 128 and 3 * 128 < grid.shape[1] < 4 * 128


def test_stop_and_resume_equal_the_unbroken_run_bit_for_bit(segmenter_run, tmp_path, read_checkpoint):
    config, _ = load_description(segmenter_run)
    task = SegmenterTask(config)

    def terminate(step, metrics):
        if step == 24:
            signal.raise_signal(signal.SIGTERM)

    assert train(task, tmp_path / "run", terminate) == (25, signal.SIGTERM)
    steps = []
    assert train(SegmenterTask(config), tmp_path / "run", lambda step, _: steps.append(step)) == (40, None)
    assert steps == list(range(26, 41))
    broken = read_checkpoint(tmp_path / "run", 40)
    unbroken = read_checkpoint(segmenter_folder(segmenter_run, 0), 40)
    assert jax.tree.structure(broken) == jax.tree.structure(unbroken)
    assert set(unbroken["model"]) == {"params", "statistics"}
    assert set(unbroken["training"]) == {"step", "optimizer"}
    for a, b in zip(jax.tree.leaves(broken), jax.tree.leaves(unbroken), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_other_settings_are_refused_in_the_same_folder(segmenter_run, tmp_path):
    folder = tmp_path / "seed0"
    shutil.copytree(segmenter_folder(segmenter_run, 0), folder)
    config, _ = load_description(segmenter_run)
    config.segmenter.jitter = 0.1
    with pytest.raises(UserError, match="segmenter.jitter: 0.2 != 0.1.: choose another --seed"):
        train(SegmenterTask(config), folder)
    config.segmenter.jitter, config.segmenter.log_every, config.loss.l1 = 0.2, 7, 77.0
    assert train(SegmenterTask(config), folder) == (40, None)


def test_a_loss_that_is_not_finite_ends_the_run(segmenter_run, tmp_path, monkeypatch):
    config, _ = load_description(segmenter_run)
    make_step = module.make_segmenter_step

    def exploding(*arguments):
        step = make_step(*arguments)

        def run(state, vgg, batch):
            state, metrics = step(state, vgg, batch)
            return state, metrics | {"loss/cross_entropy": metrics["loss/cross_entropy"] * nan}

        nan = jax.device_put(jnp.float32(np.nan), arguments[1])
        return run

    monkeypatch.setattr(module, "make_segmenter_step", exploding)
    with pytest.raises(
        UserError, match="step 1: loss/cross_entropy = nan; nothing was saved yet: begin again"
    ):
        train(SegmenterTask(config), tmp_path / "run")


# Prediction


def test_a_prediction_does_not_depend_on_the_batch(segmenter):
    images = np.random.default_rng(0).uniform(-1, 1, (18, 16, 16, 3)).astype(np.float32)
    together = segmenter.predict(images)
    assert together.min() >= 0 and together.max() <= 3
    # Another batch size is another program: a tie may fall the other way.
    assert (segmenter.predict(images[17:]) == together[17:]).mean() > 0.99
    assert (segmenter.predict(images[:2]) == together[:2]).mean() > 0.99
    assert segmenter.predict(images[:0]).shape == (0, 16, 16)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((1, 32, 32, 3), np.uint8), "floats in"),
        (np.zeros((32, 32, 3), np.float32), r"\[b, h, w, 3\]"),
        (np.zeros((1, 32, 32, 4), np.float32), r"\[b, h, w, 3\]"),
        (np.zeros((1, 15, 32, 3), np.float32), "at least 16"),
    ],
)
def test_images_that_do_not_fit_are_refused(images, message, segmenter):
    with pytest.raises(ValueError, match=message):
        segmenter.predict(images)


# Loading


def test_a_scored_segmenter_is_loaded_with_its_scores(segmenter_run, segmenter, tmp_path):
    shutil.copytree(segmenter_run, tmp_path / "run")
    scores = {"pixel_accuracy": 0.5}
    (segmenter_folder(tmp_path / "run", 0) / "scores.json").write_text(json.dumps(scores))
    for seed in (None, 0):
        loaded = load_segmenter(tmp_path / "run", seed, vgg=segmenter.vgg)
        assert (loaded.scores, loaded.seed, loaded.step, loaded.size) == (scores, 0, 40, 32)
        assert loaded.classes == segmenter.classes
    for a, b in zip(jax.tree.leaves(loaded.params), jax.tree.leaves(segmenter.params), strict=True):
        np.testing.assert_array_equal(a, b)


def test_no_segmenter_names_the_command(begun, segmenter_run, tmp_path):
    with pytest.raises(UserError, match=f"no segmenter of seed 0.*`mscaflax segmenter --workdir={begun}`"):
        load_segmenter(begun)
    with pytest.raises(UserError, match=f"`mscaflax segmenter --workdir={begun} --seed=3`"):
        load_segmenter(begun, 3)
    # Trained and not scored: the same command ends what is missing.
    with pytest.raises(UserError, match=f"`mscaflax segmenter --workdir={segmenter_run}`"):
        load_segmenter(segmenter_run)
    with pytest.raises(UserError, match="holds no trained model: make one with `mscaflax train`"):
        load_segmenter(tmp_path / "missing")


def test_damaged_scores_are_named(begun):
    folder = segmenter_folder(begun, 0)
    folder.mkdir(parents=True)
    (folder / "scores.json").write_text("{")
    with pytest.raises(UserError, match="scores.json is damaged: write it again with `mscaflax segmenter"):
        load_segmenter(begun)

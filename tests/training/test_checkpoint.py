"""Checkpoints of a toy state: nothing here compiles a network."""

import errno
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from mscaflax.config import config_to_json, load_config
from mscaflax.data.classes import ClassTable
from mscaflax.errors import UserError
from mscaflax.nets.encoders import TapStatistics
from mscaflax.training.checkpoint import Checkpoints, exclusive, restore_model
from mscaflax.training.description import FREE_SETTINGS, load_description, store_description
from mscaflax.training.sharding import make_mesh, replicated
from mscaflax.training.state import TrainState

CLASSES = ClassTable(("sky", "road"), ((100, 160, 220), (90, 90, 90)))


def make_state(step):
    """A TrainState with a leaf of each kind that a real one has, other numbers at every step."""
    rng = np.random.default_rng(step)

    def weights():
        return {"conv": {"kernel": jnp.asarray(rng.normal(size=(3, 3, 2, 4)), jnp.float32)}}

    return jax.device_put(
        TrainState(
            step=jnp.asarray(step, jnp.int32),
            generator=weights(),
            ema=weights(),
            generator_optimizer=({"count": jnp.asarray(step, jnp.int32), "nu": weights()}, ()),
            discriminator=weights(),
            spectral={"u": jnp.asarray(rng.normal(size=(1, 4)), jnp.float32)},
            discriminator_optimizer=({"tiny": jnp.float32(1e-42), "half": jnp.ones((2,), jnp.bfloat16) / 3},),
            statistics=TapStatistics(mean=(jnp.zeros((2,)),), deviation=(jnp.full((2,), 0.1),)),
        ),
        replicated(make_mesh()),
    )


def abstract(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def assert_same_bits(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for (path, a), b in zip(jax.tree.leaves_with_path(actual), jax.tree.leaves(expected), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), path
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), path


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A workdir with checkpoints 2 and 3 of three saved ones. Read only: copy it to change it."""
    folder = tmp_path_factory.mktemp("checkpoints") / "run"
    with Checkpoints(folder, keep=2) as checkpoints:
        assert checkpoints.latest() is None
        for step in (1, 2, 3):
            checkpoints.save(step, make_state(step))
    return folder


def test_what_is_saved_comes_back_bit_for_bit(workdir):
    with Checkpoints(workdir) as checkpoints:
        assert checkpoints.latest() == 3
        for step in (2, 3):
            state = make_state(step)
            assert_same_bits(checkpoints.restore(step, abstract(state)), state)


def test_the_model_is_restored_alone(workdir, tmp_path):
    shutil.copytree(workdir, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "3" / "training")
    state = make_state(3)
    model = {"ema": state.ema, "statistics": state.statistics}
    step, restored = restore_model(tmp_path / "run", None, abstract(model))
    assert step == 3
    assert_same_bits(restored, model)


def test_only_the_last_ones_are_kept(workdir):
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["2", "3"]
    with pytest.raises(UserError, match="no checkpoint of step 1: it holds steps 2, 3"):
        restore_model(workdir, 1, {})


def test_a_step_that_is_there_is_left_as_it_is(workdir):
    with Checkpoints(workdir) as checkpoints:
        checkpoints.save(3, make_state(7))
        checkpoints.wait()
        assert_same_bits(checkpoints.restore(3, abstract(make_state(3))), make_state(3))


def test_a_half_written_checkpoint_is_ignored(workdir, tmp_path):
    shutil.copytree(workdir, tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints"
    shutil.copytree(folder / "3", folder / "9.orbax-checkpoint-tmp")
    (folder / "9.orbax-checkpoint-tmp" / "commit_success.txt").unlink(missing_ok=True)
    shutil.rmtree(folder / "9.orbax-checkpoint-tmp" / "training")
    state = make_state(3)
    step, _ = restore_model(
        tmp_path / "run", None, abstract({"ema": state.ema, "statistics": state.statistics})
    )
    assert step == 3
    with Checkpoints(tmp_path / "run") as checkpoints:
        assert checkpoints.latest() == 3
        assert_same_bits(checkpoints.restore(3, abstract(state)), state)
        checkpoints.save(9, make_state(9))
        checkpoints.wait()
        assert checkpoints.latest() == 9


@pytest.fixture
def failing_manager(monkeypatch):
    """`failing_manager(folder, error, at_once)`: orbax begins a save there; it fails then, or later."""

    def install(partial, error, at_once):
        def save(*unused, **also_unused):
            partial.mkdir()
            (partial / "half").touch()
            if at_once:
                raise error

        def wait_until_finished(*unused):
            if partial.exists():
                raise error

        monkeypatch.setattr(ocp.CheckpointManager, "save", save)
        monkeypatch.setattr(ocp.CheckpointManager, "wait_until_finished", wait_until_finished)

    return install


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), ValueError("writing d/1: No space left on device")],
    ids=lambda error: type(error).__name__,
)
def test_a_full_disk_is_told_and_nothing_half_written_stays(
    error, at_once, workdir, failing_manager, tmp_path, monkeypatch
):
    run = shutil.copytree(workdir, tmp_path / "run")
    with Checkpoints(run) as checkpoints:
        failing_manager(checkpoints.folder / "4.orbax-checkpoint-tmp-7", error, at_once)
        with pytest.raises(UserError) as told:
            checkpoints.save(4, make_state(4))
            checkpoints.wait()
        said = str(told.value)
        assert said.startswith(f"the checkpoint of step 4 could not be saved: the disk of {run} is full (")
        assert said.endswith("make room, then start again: the same command goes on from step 3")
        assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["2", "3"]
        monkeypatch.undo()  # there is room again
        checkpoints.save(4, make_state(4))
        checkpoints.wait()
        assert_same_bits(checkpoints.restore(4, abstract(make_state(4))), make_state(4))


def test_another_error_of_a_save_is_not_taken_for_a_full_disk(
    workdir, failing_manager, tmp_path, monkeypatch
):
    with Checkpoints(shutil.copytree(workdir, tmp_path / "run")) as checkpoints:
        error = OSError(errno.EIO, os.strerror(errno.EIO))
        failing_manager(checkpoints.folder / "4.orbax-checkpoint-tmp-7", error, at_once=True)
        with pytest.raises(OSError, match="Input/output error"):
            checkpoints.save(4, make_state(4))
        monkeypatch.undo()


def test_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match="no checkpoint: train first"):
        restore_model(tmp_path, None, {})
    with pytest.raises(UserError, match="no checkpoint of step 4: train first"):
        restore_model(tmp_path, 4, {})


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": 3', "\xff"])
@pytest.mark.parametrize("file", ["config.json", "classes.json"])
def test_damaged_descriptions_are_named(file, content, tmp_path):
    store_description(tmp_path, load_config(["--config=tiny"]), CLASSES, "f")
    (tmp_path / file).write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=str(tmp_path / file)):
        load_description(tmp_path)


@pytest.mark.parametrize("place", ["", "missing", "file", "file/below"])
def test_no_model(place, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="holds no trained model: make one with `mscaflax train`"):
        load_description(tmp_path / place)


def test_a_workdir_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    for place in ("file", "file/below"):
        with pytest.raises(UserError, match=f"--workdir={tmp_path / place}"):
            store_description(tmp_path / place, load_config(["--config=tiny"]), CLASSES, "f")


def test_the_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    store_description("~/run", load_config(["--config=tiny"]), CLASSES, "f")
    assert load_description(tmp_path / "run") == load_description("~/run")


@pytest.fixture
def begun(workdir, tmp_path):
    """A workdir with checkpoints and the config `tiny`."""
    store_description(tmp_path / "run", load_config(["--config=tiny"]), CLASSES, "f")
    shutil.copytree(workdir, tmp_path / "run", dirs_exist_ok=True)
    return tmp_path / "run"


def test_the_description_comes_back(begun):
    config, classes = load_description(begun)
    assert config == load_config(["--config=tiny"]) and classes == CLASSES
    assert isinstance(config.model.generator_channels, tuple)


def test_another_config_is_refused_with_the_difference(begun):
    other = load_config(["--config=tiny", "--config.model.num_regions=7", "--config.loss.l1=2"])
    before = (begun / "config.json").read_bytes()
    difference = r"another config .*loss\.l1: 5\.0 != 2\.0; model\.num_regions: 4 != 7"
    with pytest.raises(UserError, match=difference):
        store_description(begun, other, CLASSES, "f")
    assert (begun / "config.json").read_bytes() == before


def test_free_settings_may_change(begun):
    values = {"data.data_dir": "elsewhere", "data.val_split": "test", "model.remat": "true"}
    values["model.synthesis_noise"] = "(0.0, 1.0, 1.0, 1.0, 2.0)"
    values |= {
        "model.convolutions": "true",
        "model.fold_columns": "true",
        "train.tpu_options": "('xla_one=1',)",
    }
    config = load_config(
        ["--config=tiny", *(f"--config.{key}={values.get(key, 77)}" for key in FREE_SETTINGS)]
    )
    store_description(begun, config, CLASSES, "f")
    assert load_description(begun)[0].train.steps == 77
    assert load_description(begun)[0].data.data_dir == "elsewhere"


def test_checkpoints_without_a_config_are_left_alone(begun):
    (begun / "config.json").unlink()
    with pytest.raises(UserError, match="holds checkpoints but no config.json"):
        store_description(begun, load_config(["--config=tiny"]), CLASSES, "f")


def test_other_classes_are_refused(begun):
    other = ClassTable(("sky", "street"), CLASSES.palette)
    with pytest.raises(UserError, match="holds a run with other classes"):
        store_description(begun, load_config(["--config=tiny"]), other, "f")
    assert load_description(begun)[1] == CLASSES


def test_another_version_of_the_dataset_is_refused(begun):
    config = load_config(["--config=tiny"])
    with pytest.raises(UserError, match="prepared anew since .*choose another --workdir"):
        store_description(begun, config, CLASSES, "other photos")
    (begun / "dataset.json").write_text("[")
    with pytest.raises(UserError, match="dataset.json is damaged"):
        store_description(begun, config, CLASSES, "f")
    (begun / "dataset.json").unlink()
    store_description(begun, config, CLASSES, "f")


def test_steps_may_change_unless_the_rates_fall_towards_them(begun):
    config = load_config(["--config=tiny", "--config.optimizer.decay_from=0.5"])
    (begun / "config.json").write_text(config_to_json(config))
    store_description(begun, config, CLASSES, "f")
    longer = load_config(["--config=tiny", "--config.optimizer.decay_from=0.5", "--config.train.steps=99"])
    with pytest.raises(UserError, match="train.steps: 8 != 99"):
        store_description(begun, longer, CLASSES, "f")


def test_before_the_first_checkpoint_the_config_may_change(tmp_path):
    store_description(tmp_path, load_config(["--config=tiny"]), CLASSES, "f")
    store_description(tmp_path, load_config(["--config=tiny", "--config.seed=5"]), CLASSES, "f")
    assert load_description(tmp_path)[0].seed == 5


def test_a_workdir_has_one_training_at_a_time(tmp_path):
    with (
        exclusive(tmp_path / "run"),
        pytest.raises(UserError, match=r"another process is training in .*run.*delete .*run/\.lock"),
    ):
        exclusive(tmp_path / "run").__enter__()
    with exclusive(tmp_path / "run"):
        pass


def test_settings_of_the_segmenter_do_not_make_another_run(begun):
    config = load_config(["--config=tiny", "--config.segmenter.steps=99"])
    store_description(begun, config, CLASSES, "f")
    assert load_description(begun)[0].segmenter.steps == 99


def test_what_is_free_and_what_to_do_can_be_told(begun):
    config = load_config(["--config=tiny", "--config.loss.l1=2", "--config.seed=3"])
    with pytest.raises(UserError, match=r"another config \(seed: 0 != 3\): try another --seed, or"):
        store_description(begun, config, CLASSES, "f", free=["loss"], remedy="try another --seed")
    store_description(begun, config, CLASSES, "f", free=["loss", "seed"], remedy="try another --seed")

"""Checkpoints whose files changed on disk are noticed, named and passed over."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from mscaflax.errors import UserError
from mscaflax.training import checkpoint
from mscaflax.training.checkpoint import Checkpoints, restore_model
from mscaflax.training.manifest import NAME, damage, write_manifest


@struct.dataclass
class State:
    step: jax.Array
    weights: dict
    MODEL_FIELDS = ("weights",)


def make_state(step):
    values = np.random.default_rng(step).normal(size=(64, 64))
    return State(step=jnp.int32(step), weights={"kernel": jnp.asarray(values, jnp.float32)})


def abstract(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def flip(path):
    """Turns one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A workdir with checkpoints 1 to 3. Read only: copy it to change it."""
    folder = tmp_path_factory.mktemp("manifest") / "run"
    with Checkpoints(folder, keep=3) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, make_state(step))
    return folder


@pytest.fixture
def workdir(original, tmp_path):
    return shutil.copytree(original, tmp_path / "run")


def files(folder):
    """The files that hold something, but for the two that Orbax writes last, with times and a note."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size]
    return [path for path in found if path.name not in ("_CHECKPOINT_METADATA", "commit_success.txt")]


def test_every_file_is_guarded(original, tmp_path):
    names = [
        path.relative_to(original / "checkpoints" / "3") for path in files(original / "checkpoints" / "3")
    ]
    assert len(names) > 6
    for i, name in enumerate(names):
        folder = shutil.copytree(original / "checkpoints" / "3", tmp_path / f"flipped{i}")
        assert damage(folder) is None
        flip(folder / name)
        if name.name == NAME:
            assert damage(folder) is not None
            continue
        assert damage(folder) == f"{name.as_posix()} was changed"
        (folder / name).unlink()
        assert damage(folder) == f"{name.as_posix()} is missing"


def test_the_list_is_committed_with_the_files(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        checkpoint, "write_manifest", lambda folder: seen.append(folder.name) or write_manifest(folder)
    )
    with Checkpoints(tmp_path / "run") as checkpoints:
        checkpoints.save(1, make_state(1))
    assert len(seen) == 1 and seen[0].startswith("1.orbax-checkpoint-tmp")
    assert (tmp_path / "run" / "checkpoints" / "1" / NAME).is_file()


def test_a_run_goes_on_from_the_last_sound_checkpoint(workdir):
    flip(max(files(workdir / "checkpoints" / "3"), key=lambda path: path.stat().st_size))
    with Checkpoints(workdir, keep=3) as checkpoints:
        assert checkpoints.latest_sound() == checkpoints.latest() == 2
        state = checkpoints.restore(2, abstract(make_state(2)))
        np.testing.assert_array_equal(state.weights["kernel"], make_state(2).weights["kernel"])
        checkpoints.save(3, make_state(3))
    assert damage(workdir / "checkpoints" / "3") is None
    assert "was changed" in damage(workdir / "damaged" / "3")
    with Checkpoints(workdir, keep=3) as checkpoints:
        assert checkpoints.latest_sound() == 3


def test_all_damaged(workdir):
    for step in (1, 2, 3):
        (workdir / "checkpoints" / str(step) / NAME).write_text("{")
    with (
        Checkpoints(workdir) as checkpoints,
        pytest.raises(UserError, match=r"every checkpoint .*step 3: sha256.json is damaged"),
    ):
        checkpoints.latest_sound()
    assert len(list((workdir / "checkpoints").iterdir())) >= 3, "nothing is thrown away"


def test_inference_refuses_damaged_weights_and_names_another_step(workdir):
    model = {"weights": abstract(make_state(3).weights)}
    flip(max(files(workdir / "checkpoints" / "3" / "model"), key=lambda path: path.stat().st_size))
    flip(max(files(workdir / "checkpoints" / "2" / "training"), key=lambda path: path.stat().st_size))
    with pytest.raises(UserError, match=r"step 3 .* is damaged \(model/.* was changed\): take --step=2"):
        restore_model(workdir, None, model)
    step, restored = restore_model(workdir, 2, model)
    np.testing.assert_array_equal(restored["weights"]["kernel"], make_state(2).weights["kernel"])


def test_a_checkpoint_without_a_list_is_passed_over(workdir):
    (workdir / "checkpoints" / "3" / NAME).unlink()
    with pytest.raises(UserError, match=r"step 3 .*sha256.json is missing.*take --step=2"):
        restore_model(workdir, None, {"weights": abstract(make_state(3).weights)})
    with Checkpoints(workdir) as checkpoints:
        assert checkpoints.latest_sound() == 2
    assert (workdir / "damaged" / "3" / "model").is_dir()


def test_a_checkpoint_is_set_aside_by_name(workdir):
    with Checkpoints(workdir, keep=3) as checkpoints:
        checkpoints.save(4, make_state(4))
        assert checkpoints.set_aside([4]) == 3 == checkpoints.latest()
    assert damage(workdir / "damaged" / "4") is None, "it was whole when it was moved"

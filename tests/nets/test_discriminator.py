"""The discriminator: shapes, spectral norm, features that do not fade."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mscaflax.nets.discriminator import MultiScaleDiscriminator

CLASSES = 5


@pytest.fixture(scope="module")
def discriminator():
    return MultiScaleDiscriminator(num_classes=CLASSES, channels=(6, 8), label_channels=3)


def random_variables(discriminator, image, label):
    """Variables of about the initial sizes, but with biases away from zero."""
    rng = np.random.default_rng(1)

    def draw(x):
        deviation = np.prod(x.shape[:-1]) ** -0.5 if len(x.shape) > 1 else 0.5
        return rng.normal(0, deviation, x.shape).astype(x.dtype)

    return jax.tree.map(draw, jax.eval_shape(discriminator.init, jax.random.key(0), image, label))


@pytest.mark.parametrize("h, w", [(32, 48), (64, 16), (22, 34)])
def test_discriminator_shapes(discriminator, h, w):
    image, label = jnp.zeros((2, h, w, 3)), jnp.zeros((2, h, w), jnp.int32)
    outputs, variables = jax.eval_shape(discriminator.init_with_output, jax.random.key(0), image, label)
    assert len(outputs) == 2
    for scale, (logits, features) in enumerate(outputs):
        sizes = [(-(-(h >> scale) // 2**i), -(-(w >> scale) // 2**i)) for i in (1, 2)]
        assert [f.shape for f in features] == [(2, *sizes[0], 6), (2, *sizes[1], 8)]
        assert logits.shape == (2, *sizes[1], 1) and logits.dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


def test_discriminator_is_spectrally_normalized(discriminator):
    rng = np.random.default_rng(0)
    image = rng.uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
    label = rng.integers(0, CLASSES + 1, (2, 32, 32))
    variables = random_variables(discriminator, image, label)

    @jax.jit
    def update(variables):
        outputs, updated = discriminator.apply(variables, image, label, True, mutable=["batch_stats"])
        return outputs, {**variables, **updated}

    first, variables = update(variables)
    for _ in range(100):
        outputs, variables = update(variables)
    for scale in ("scale0", "scale1"):
        sigmas = jax.tree_util.tree_leaves_with_path(variables["batch_stats"][scale])
        sigmas = {str(path): float(x) for path, x in sigmas if "sigma" in str(path)}
        kernels = {name: layer["kernel"] for name, layer in variables["params"][scale].items()}
        assert len(sigmas) == len(kernels) == 3
        largest = [np.linalg.norm(np.reshape(k, (-1, k.shape[-1])), 2) for k in kernels.values()]
        np.testing.assert_allclose(sorted(sigmas.values()), sorted(largest), rtol=2e-2)
    # And the logits do not grow with the weights.
    tripled = {
        **variables, "params": {
            scale: {name: {**layer, "kernel": 3 * layer["kernel"]} for name, layer in layers.items()}
            if scale != "embed" else layers
            for scale, layers in variables["params"].items()
        },
    }  # fmt: skip
    again, _ = update(tripled)
    for (a, _), (b, _) in zip(again, outputs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    assert np.abs(first[0][0] - outputs[0][0]).max() > 0


def test_discriminator_features_do_not_fade(discriminator):
    rng = np.random.default_rng(0)
    image = rng.uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
    label = rng.integers(0, CLASSES + 1, (2, 32, 32))
    for _, features in discriminator.apply(random_variables(discriminator, image, label), image, label):
        # Of x of mean 0 and deviation 1, leaky_relu(x, 0.2) has a mean square of about 0.52.
        np.testing.assert_allclose((features[1] ** 2).mean(axis=(1, 2)), 0.52, atol=0.25)


def test_discriminator_looks_at_image_and_label(discriminator):
    image, label = np.zeros((1, 32, 32, 3), np.float32), np.zeros((1, 32, 32), np.int32)
    variables = random_variables(discriminator, image, label)
    run = jax.jit(discriminator.apply)
    base = run(variables, image, label)
    for other in (run(variables, image + 0.5, label), run(variables, image, label + CLASSES)):
        assert all(np.abs(a - b).max() > 1e-3 for (a, _), (b, _) in zip(other, base, strict=True))

import numpy as np
import pytest

from mscaflax.evaluation.style import StyleReference, semantic_consistency, styles
from mscaflax.nets.vgg import load_vgg16, vgg16_activations, vgg16_taps

CLASSES = 3


@pytest.fixture(scope="module")
def vgg():
    return load_vgg16()


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    smooth = rng.normal(0, 60, (6, 8, 8, 3)).repeat(4, 1).repeat(4, 2) + rng.normal(128, 20, (6, 32, 32, 3))
    return np.clip(smooth, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def labels():
    labels = np.random.default_rng(1).integers(0, CLASSES + 1, (6, 4, 4)).repeat(8, 1).repeat(8, 2)
    labels[5] = CLASSES
    return labels


def test_styles_are_moments_of_relu1_2(vgg, images):
    found = styles(vgg, images)
    x = np.asarray(vgg16_taps(vgg, images / 127.5 - 1)[0], np.float64)
    np.testing.assert_allclose(found[:, :64], x.mean((1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[:, 64:], x.std((1, 2)), rtol=1e-3, atol=1e-4)


def test_relevance_is_centred():
    rng = np.random.default_rng(0)
    # Far from the origin, where every cosine is 1.
    reference = 100 + rng.normal(size=(500, 8)) * np.arange(1, 9)
    style = StyleReference.of(reference)
    a = reference[:50]
    np.testing.assert_allclose(style.relevance(a, a), 1)
    np.testing.assert_allclose(style.relevance(a, 2 * style.mean - a), -1)
    assert abs(style.relevance(reference[:250], reference[250:]).mean()) < 0.1
    np.testing.assert_array_equal(style.relevance(style.mean[None], a[:1]), 0)
    with pytest.raises(ValueError, match="at least two"):
        StyleReference.of(reference[:1])


def test_semantic_consistency_against_loops(vgg, images, labels):
    outputs = images[::-1]
    found = semantic_consistency(vgg, outputs, images, labels, CLASSES)
    names = ("relu3_2", "relu4_2", "relu5_2")
    ours, real = (vgg16_activations(vgg, x / 127.5 - 1, names) for x in (outputs, images))
    for i in range(5):
        score = 0
        for name in names:
            a, b = (np.asarray(x[name][i], np.float64) for x in (ours, real))
            f = 32 // a.shape[0]
            total = 0
            for c in range(CLASSES):
                mask = labels[i] == c
                share = mask.reshape(a.shape[0], f, a.shape[1], f).mean((1, 3))[..., None]
                if mask.any():
                    u, v = ((share * x).sum((0, 1)) / share.sum() for x in (a, b))
                    total += mask.sum() * (u @ v) / np.linalg.norm(u) / np.linalg.norm(v)
            score += total / (labels[i] < CLASSES).sum() / 3
        assert found[i] == pytest.approx(score, abs=1e-4)
    assert np.isnan(found[5])
    np.testing.assert_allclose(semantic_consistency(vgg, images, images, labels, CLASSES)[:5], 1, atol=1e-6)


def test_unknown_activations(vgg):
    with pytest.raises(ValueError, match="no relu3_4"):
        vgg16_activations(vgg, np.zeros((1, 16, 16, 3), np.float32), ("relu3_4",))

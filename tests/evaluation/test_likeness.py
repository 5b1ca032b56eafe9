"""Style relevance of all kinds of exemplar against numpy in float64."""

import numpy as np
import pytest

from mscaflax.evaluation.batches import Batches
from mscaflax.evaluation.likeness import style_relevances
from mscaflax.nets.vgg import load_vgg16, vgg16_taps


def test_style_relevance_in_float64():
    vgg, rng, n = load_vgg16(), np.random.default_rng(0), 4
    # Photos of different tone and texture: deviations differ by channel.
    tone = rng.uniform(40, 215, (2 * n, 1, 1, 3))
    texture = rng.normal(size=(2 * n, 32, 32, 3)) * rng.uniform(1, 40, (2 * n, 1, 1, 1))
    patches = np.clip(tone + texture, 0, 255).astype(np.uint8)
    exemplars = {"cross": n + np.arange(n), "self": np.arange(n), "random": np.array([7, 4, 5, 6])}
    outputs = {kind: rng.permutation(patches)[:n] for kind in exemplars}
    done = []
    found = style_relevances(vgg, patches, outputs, exemplars, batches=Batches(3), advance=done.append)
    assert sum(done) == 2 * n + 3 * n

    def styles(images):
        x = np.asarray(vgg16_taps(vgg, (images / 127.5 - 1).astype(np.float32))[0], np.float64)
        return np.concatenate([x.mean((1, 2)), x.std((1, 2))], axis=1)

    real = styles(patches)
    mean = real.sum(0) / len(real)
    deviation = np.sqrt(((real - mean) ** 2).sum(0) / len(real))

    def cosine(a, b):
        a, b = (a - mean) / deviation, (b - mean) / deviation
        return (a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1))

    expected = {kind: cosine(styles(outputs[kind]), real[exemplars[kind]]) for kind in exemplars}
    expected["real"] = cosine(real[:n], real[n:])
    assert found.keys() == expected.keys()
    for kind, values in expected.items():
        np.testing.assert_allclose(found[kind], values, atol=1e-3, err_msg=kind)
    # Neither kinds nor channels without weights could be confused within the tolerance.
    assert np.abs(expected["random"] - expected["cross"]).min() > 0.01
    plain = [real[:n] - mean, real[n:] - mean]
    unscaled = (plain[0] * plain[1]).sum(1) / np.prod([np.linalg.norm(x, axis=1) for x in plain], axis=0)
    assert np.abs(unscaled - expected["real"]).max() > 0.01
    with pytest.raises(KeyError):
        style_relevances(vgg, patches, {"swapped": outputs["cross"]}, exemplars, batches=Batches(3))

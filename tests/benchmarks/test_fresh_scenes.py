"""Scenes that nothing was chosen by: which they are, and the tables over them."""

from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict

from mscaflax.data import scenes
from mscaflax.evaluation import truth


@pytest.fixture(scope="module")
def script(benchmark_script):
    return benchmark_script("fresh_scenes")


@pytest.fixture(scope="module")
def drawn(script):
    return script.draw_pairs(6, ConfigDict({"size": 32, "side_range": (0.5, 1.0)}))


def test_pairs_are_of_fresh_scenes(script, drawn):
    pairs, chosen = drawn
    assert len(pairs.names) == 6 and all(name.startswith("fresh_") for name in pairs.names)
    assert len(chosen["random"]) == 6 and sum(map(len, chosen.values())) > 6
    for rows in chosen.values():
        assert all(pairs.names[target] != pairs.names[style] for target, style in rows)


def test_models_are_compared_with_the_first(script, drawn):
    pairs, chosen = drawn
    wide = np.random.default_rng(0).normal(size=6)
    found = {
        name: {"random": {"psnr": 20 + wide + shift, "lpips_alex": wide - shift}}
        for name, shift in (("a", 0.0), ("b", 0.5))
    }
    means, differences = script.rows_of(found, pairs, {"random": chosen["random"]})
    assert [row[:3] for row in means] == [["a", "random", "6"], ["b", "random", "6"]]
    assert means[0][3].startswith(f"{20 + wide.mean():.2f} (")
    assert differences == [
        ["b - a", "random", "6", "+0.50 (+0.50 to +0.50) *", "-0.5000 (-0.5000 to -0.5000) *"]
    ]


class Echo:
    """A model that answers with its exemplar."""

    classes = SimpleNamespace(num_classes=12)

    def over(self, mesh):
        return self

    def generate(self, label, exemplar, exemplar_label, seed=0):
        return exemplar


def test_outputs_are_measured_against_the_true_pictures(script, drawn):
    pairs, chosen = drawn
    some = {"random": chosen["random"][:3]}
    found = script.measure(Echo(), pairs, some)["random"]
    for place, (target, style) in enumerate(some["random"]):
        true = truth.draw_truth(pairs, [target], [style], scenes.SIZE)[0].astype(float)
        error = ((true - pairs.patches[len(pairs.names) + style]) ** 2).mean()
        assert found["psnr"][place] == pytest.approx(10 * np.log10(255**2 / error))
    assert found["lpips_alex"].shape == (3,) and found["lpips_alex"].min() > 0

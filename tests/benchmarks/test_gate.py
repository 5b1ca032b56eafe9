import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gate.py"
_spec = importlib.util.spec_from_file_location("gate", SCRIPT)
gate = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(gate)


def test_area_under_curve_against_every_pair_of_values():
    rng = np.random.default_rng(0)
    higher, lower = rng.integers(2, 9, 30) / 8, rng.integers(0, 7, 40) / 8  # with ties
    pairs = higher[:, None] - lower
    assert gate.area_under_curve(higher, lower) == pytest.approx(((pairs > 0) + (pairs == 0) / 2).mean())
    assert gate.area_under_curve(lower + 9, higher) == 1.0


def test_relative_gradients_by_scale_and_part(monkeypatch):
    """Of an error that is known: 3 times γ's norm² here, the projections' norm² there."""
    names = ("region_embedding", "gate_hidden", "gate_out", "image_projection", "label_projection")
    rng = np.random.default_rng(0)
    params = {"aligner": {f"scale{s}": {n: {"w": rng.normal(size=3)} for n in names} for s in (0, 2)}}

    def answer(network, params, statistics, vgg, batch, keys):
        own = params["aligner"]
        gate = sum((own["scale0"][name]["w"] ** 2).sum() for name in names[:3])
        projections = sum((own["scale2"][name]["w"] ** 2).sum() for name in names[3:])
        return SimpleNamespace(image=(3 * gate + projections).reshape(1, 1, 1, 1))

    monkeypatch.setattr(gate, "synthesize", answer)
    found = gate.relative_gradients(None, params, None, None, {"image": np.zeros((1, 1, 1, 1), np.float32)})
    # The gradient of a norm² is twice the vector.
    assert found == {
        0: {"γ": pytest.approx(6), "projections": 0},
        2: {"γ": 0, "projections": pytest.approx(2)},
    }

import importlib.util
from pathlib import Path

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

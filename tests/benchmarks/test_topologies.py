"""What the table of topologies is held against, on a run whose devices are here."""

import importlib
import shutil
import sys
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")
sys.path.insert(0, BENCHMARKS)
try:
    topologies = importlib.import_module("topologies")
finally:
    sys.path.remove(BENCHMARKS)


def test_parameters_of_a_run_on_devices_that_are_not_here(tiny_run, tmp_path):
    workdir = shutil.copytree(tiny_run, tmp_path / "run")
    place = workdir / "checkpoints/4/training/_sharding"
    expected = topologies.parameters(tiny_run, 4)
    text = place.read_text()
    device = '\\"id\\": {}}}'
    assert device.format(0) in text
    place.write_text(text.replace(device.format(0), device.format(7)))
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer, pytest.raises(ValueError):
        checkpointer.restore(workdir / "checkpoints/4/training")
    found = topologies.parameters(workdir, 4)
    assert set(found) == {"generator", "discriminator"}
    for network, arrays in found.items():
        assert arrays and set(arrays) == set(expected[network])
        for path, array in arrays.items():
            np.testing.assert_array_equal(array, expected[network][path])


def test_numbers_beyond_their_limits_are_named():
    row = {"setting": "sgd", "losses": 1e-4, "parameters": 1e-6, "worst array": 1e-4}
    assert topologies.beyond(row) == {}
    assert topologies.beyond(row | {"losses": 2e-3}) == {"losses": 1e-3}
    assert topologies.beyond(row | {"parameters": 1e-5}) == {"parameters": topologies.ROUNDING}
    assert topologies.beyond(row | {"losses": float("nan")}) == {"losses": 1e-3}
    # Adam amplifies rounding: its parameters are told, and not held.
    assert topologies.beyond(row | {"setting": "adam", "parameters": 1.0}) == {}


def test_a_run_compared_with_itself_does_not_differ(tiny_run, monkeypatch):
    monkeypatch.setattr(topologies.parameters, "__defaults__", (4,))
    found = topologies.compare(tiny_run, tiny_run)
    assert [found[column] for column in topologies.COLUMNS] == [0, 0, 0]


def test_an_array_that_differs_is_named(tiny_run, monkeypatch):
    read = topologies.parameters
    other = read(tiny_run, 4)
    path = next(path for path, x in other["discriminator"].items() if x.any())
    other["discriminator"][path] = other["discriminator"][path] * 1.25
    monkeypatch.setattr(topologies, "parameters", lambda workdir: next(answers))
    answers = iter([other, read(tiny_run, 4)])
    found = topologies.compare(tiny_run, tiny_run)
    assert found["its name"] == f"discriminator{path}" and found["worst array"] == pytest.approx(0.25)
    assert 0 < found["parameters"] < 0.25 and found["losses"] == 0


def test_sgd_resumes_in_every_topology_from_every_other():
    pairs = topologies.resumptions("sgd")
    assert len(set(pairs)) == 12 and all(one != other for one, other in pairs)


@pytest.mark.parametrize("moved", [1e-6, 1e-4])
def test_a_run_that_does_not_move_proves_nothing(moved, tiny_run, monkeypatch):
    found = {topologies.HALF: np.ones(3), topologies.STEPS: np.full(3, 1 + moved)}
    monkeypatch.setattr(
        topologies, "parameters", lambda workdir, step=topologies.STEPS: {"generator": {"x": found[step]}}
    )
    if moved > 1e-5:
        topologies.check_that_it_trains(tiny_run)
        return
    with pytest.raises(SystemExit, match="moved by 1.0e-06 alone"):
        topologies.check_that_it_trains(tiny_run)

"""The benchmark of the alignments' cost, at sizes that take no time."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "alignment_cost.py"
_spec = importlib.util.spec_from_file_location("alignment_cost", SCRIPT)
cost = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cost)


def tables(text):
    """The Markdown tables of a text, as lists of rows of cells."""
    blocks = [block.splitlines() for block in text.strip().split("\n\n")]
    return [
        [[cell.strip() for cell in line.strip("|").split("|")] for line in block]
        for block in blocks
        if block[0].startswith("|")
    ]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The results in the file, and the tables that were printed."""
    path = tmp_path_factory.mktemp("cost") / "cost.json"
    options = ["--sizes", "2", "4", "--compile_only", "32", "128", "--seconds", "0"]
    printed = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(SCRIPT), f"--json={path}", *options])
        patch.setattr(cost, "measure_resident", lambda sizes: None)
        patch.setattr("builtins.print", lambda text: printed.append(text))
        cost.main()
    return json.loads(path.read_text()), tables("\n\n".join(printed))


def test_tables(report):
    results, (times, memory) = report
    assert [row["size"] for row in results["sizes"]] == [2, 4, 32, 128]
    assert [row[0] for row in times] == ["feature map", "---", "2×2", "4×4", "growth"]
    compiled = [f"{size}×{size}, compiled, not run" for size in (32, 128)]
    assert [row[0] for row in memory[2:]] == ["2×2", "4×4", *compiled, "growth"]
    for table, columns in ((times, 7), (memory, 5)):
        assert {len(row) for row in table} == {columns}
    seconds = results["sizes"][1]["seconds"]
    for kind, column in (("msca", 4), ("dense", 5)):
        assert times[0][column] == f"backward: {kind}" and len(seconds[kind]["backward"]) == 3
        shortest, median = min(seconds[kind]["backward"]), np.median(seconds[kind]["backward"])
        assert times[3][column] == f"{1e3 * shortest:.2f} ({1e3 * median:.2f})" and shortest > 0
    largest = results["sizes"][-1]["compiled_bytes"]["dense"]["backward"]
    assert memory[0][4] == "compiled, backward: dense" and memory[5][4] == f"{largest / 1e6:.1f}"


def test_memory_of_msca_is_linear_and_of_dense_quadratic(report):
    results, _ = report
    large = {"sizes": results["sizes"][2:]}
    for direction in cost.PASSES:
        slopes = [
            cost.growth(*cost.series(large, "compiled_bytes", kind, direction)) for kind in ("msca", "dense")
        ]
        assert 0.5 < slopes[0] < 1.2 and 1.8 < slopes[1] < 2.1, (direction, slopes)
    # Of the 16,384² numbers of one softmax matrix, at least one is kept.
    assert large["sizes"][-1]["compiled_bytes"]["dense"]["forward"] > 4 * 128**4


def test_growth_is_the_exponent_of_the_number_of_positions():
    sizes = np.array([3, 8, 20])
    assert cost.growth(sizes, 5 * sizes**4) == pytest.approx(2)
    assert cost.growth(sizes, 0.1 * sizes**2) == pytest.approx(1)


def test_both_kinds_see_the_same_maps_and_have_as_many_parameters():
    (params, *msca), (dense_params, *dense) = (cost.arguments_of(kind, 4) for kind in cost.KINDS)
    leaves = [cost.jax.tree.leaves(x) for x in (msca, dense)]
    assert len(leaves[0]) == 4
    for a, b in zip(*leaves, strict=True):
        np.testing.assert_array_equal(a, b)
    counts = [sum(x.size for x in cost.jax.tree.leaves(p)) for p in (params, dense_params)]
    assert counts[0] == pytest.approx(counts[1], rel=0.05)


@pytest.mark.slow
def test_resident_memory_and_the_picture(tmp_path):
    pytest.importorskip("matplotlib", reason="the picture needs '.[docs]'")
    command = [sys.executable, SCRIPT, f"--json={tmp_path / 'cost.json'}", f"--plot={tmp_path / 'cost.png'}"]
    command += ["--sizes", "16", "64", "--compile_only", "--seconds", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "cost.png").read_bytes().startswith(b"\x89PNG")
    if not Path("/proc/self/clear_refs").exists():
        return
    rises = json.loads((tmp_path / "cost.json").read_text())["sizes"][1]["resident_bytes"]
    # At least the softmax matrix and its gradient, beside which all else is small.
    assert rises["dense"]["backward"] > 2 * 4 * 64**4 > 4 * rises["msca"]["backward"] > 0
    assert tables(done.stdout)[1][0][-1] == "resident, backward: dense"

"""The study's plan fits the configs, and its tables show what the evaluations found."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from mscaflax.config import load_config
from mscaflax.training.experiment import build_experiment

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")


def module(name):
    """A script of the folder benchmarks, whose files import each other."""
    sys.path.insert(0, BENCHMARKS)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(BENCHMARKS)


plan, tables, study = (module(name) for name in ("study_plan", "study_tables", "study"))
RUNS = plan.runs()


def test_names_are_unique_and_files():
    names = [run.name for run in RUNS]
    assert len(set(names)) == len(names) and all("/" not in name and " " not in name for name in names)
    shown = {plan.ablation_run(group, value) for group, values in plan.ABLATIONS.items() for value in values}
    assert shown == {run.name for run in RUNS if run.table == "ablations"}


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_every_run_is_a_config(run):
    config = load_config(
        [f"--config={run.config}", *(f"--config.{key}={value}" for key, value in run.overrides.items())]
    )
    for key, value in run.overrides.items():
        found = config
        for part in key.split("."):
            found = found[part]
        assert found == value, key
    build_experiment(config, 12)


def test_runs_of_a_table_share_steps_data_and_batches():
    for table in {run.table for run in RUNS}:
        same = {
            tuple(run.overrides[key] for key in ("data.name", "data.size", "train.steps", "train.batch_size"))
            for run in RUNS
            if run.table == table
        }
        assert len(same) == 1, table


def numbers(lpips):
    """What an evaluation and its training leave, as far as the tables show it."""
    mean = {"mean": lpips, "low": lpips - 0.01, "high": lpips + 0.01}
    return {
        "truth": {"random": {name: mean for name in ("lpips_alex", "lpips_vgg", "psnr", "ssim")}},
        "swap": {"outputs": {"all": {"mean": 0.75, "low": None, "high": None}}},
        "metrics": {"random": {"style_relevance": mean}},
        "overlap": {"under a third": {"lpips_alex": mean, "psnr": mean, "missing_psnr": None}},
        "training": {"parameters": {"all": 1234567, "aligner": 89}, "pairs_per_second": 5.25},
    }


def rows(text):
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if "|" in line
    ]


def test_tables_hold_the_numbers(tmp_path):
    folder = tmp_path / "study"
    folder.mkdir()
    for name, lpips in {"scenes-msca-seed0": 0.2, "scenes-msca-seed1": 0.4, "scenes-gap-seed0": 0.5}.items():
        (folder / f"{name}.json").write_text(json.dumps(numbers(lpips)))
    tables.write(folder)
    text = (tmp_path / "study.md").read_text()
    assert f"3 of {len(RUNS)} runs are finished" in text and "## camvid" not in text
    found = rows(text)
    means = next(row for row in found if row[:2] == ["msca", "2"])
    assert means[2] == "0.3000 ± 0.1414" and means[-1] == "75.0% ± 0.0%"
    assert next(row for row in found if row[:2] == ["gap", "1"])[2] == "0.5000"
    each = next(row for row in found if row[0] == "gap-seed0")
    assert each[1] == "0.5000 (0.4900–0.5100)"
    assert any(row[:3] == ["msca-seed0", "1,234,567", "89"] for row in found)


def pair_values(shift, pairs="a"):
    """Values of 40 pairs that vary far more than what the runs differ by."""
    wide = np.random.default_rng(0).normal(size=40)
    row = {"lpips_alex": (wide + shift).tolist(), "psnr": (10 * wide - shift).tolist()}
    return {
        "pairs_sha256": pairs, "photos": list(range(40)), "bins": {"few": [[i, 0] for i in range(40)]},
        "truth": {"random": row}, "metrics": {"cross": row}, "overlap": {"few": row},
    }  # fmt: skip


def test_differences_of_pairs_are_narrower_than_of_means():
    runs = [pair_values(0.0), pair_values(0.02)]
    found = tables.paired(runs, [pair_values(0.11)], "truth", "random", "lpips_alex")
    assert found["mean"] == pytest.approx(0.10) and found["low"] == pytest.approx(found["high"], abs=1e-6)
    assert tables.paired(runs, [pair_values(0.11)], "overlap", "few", "psnr")["mean"] == pytest.approx(-0.10)
    text = tables.differences({"msca": runs, "gap": [pair_values(0.11)]}, ["msca", "gap", "vae"])
    assert next(row for row in rows("\n".join(text)) if row[0] == "gap against msca")[1] == "2, 1"
    assert "vae" not in "".join(text)
    with pytest.raises(ValueError, match="different pairs"):
        tables.paired(runs, [pair_values(0.0, "b")], "truth", "random", "psnr")


def test_kept_values_are_those_that_are_compared():
    values = pair_values(0.0)
    values["truth"]["retrieved"] = values["truth"]["random"]
    values["truth"]["random"] = values["truth"]["random"] | {"ssim": [1.0]}
    kept = study.compared_values(values)
    assert kept == pair_values(0.0)


def test_a_run_of_another_plan_is_not_done(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "RESULTS", tmp_path)
    run = RUNS[0]
    config = {"data": {}, "model": {}, "optimizer": {}, "train": {}, "loss": {}}
    for key, value in run.overrides.items():
        group, _, name = key.rpartition(".")
        (config[group] if group else config)[name] = value
    file = tmp_path / f"{run.name}.json"
    assert not study.is_done(run)
    file.write_text(json.dumps({"config": config}))
    assert study.is_done(run)
    config["train"]["steps"] += 1
    file.write_text(json.dumps({"config": config}))
    assert not study.is_done(run)


def test_a_half_copied_folder_does_not_pass_for_a_whole_one(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    (source / "file").write_text("whole")
    target.mkdir()
    (target / "old").touch()
    study._copy_folder(source, target)
    assert [file.name for file in target.iterdir()] == ["file"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["source", "target"]

"""The study's plan fits the configs, and its tables show what the evaluations found."""

import importlib
import json
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mscaflax.config import load_config
from mscaflax.errors import UserError
from mscaflax.training.experiment import build_experiment

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")


def module(name):
    """A script of the folder benchmarks, whose files import each other."""
    sys.path.insert(0, BENCHMARKS)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(BENCHMARKS)


plan, tables, pairs, study = (module(name) for name in ("study_plan", "study_tables", "study_pairs", "study"))
RUNS = plan.runs()


def test_names_are_unique_and_files():
    names = [run.name for run in RUNS]
    assert len(set(names)) == len(names) and all("/" not in name and " " not in name for name in names)
    shown = {
        plan.ablation_run(group, value, seed)
        for group, values in plan.ABLATIONS.items()
        for value in values
        for seed in range(plan.ABLATION_SEEDS.get(group, 1))
    }
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


RUN = {run.name: run for run in RUNS}


def numbers(run, lpips):
    """What an evaluation and its training leave, as far as the tables show it."""
    mean = {"mean": lpips, "low": lpips - 0.01, "high": lpips + 0.01}
    config = {"data": {}, "model": {}, "optimizer": {}, "train": {}, "loss": {}}
    for key, value in run.overrides.items():
        group, _, name = key.rpartition(".")
        (config[group] if group else config)[name] = value
    return {
        "config": config,
        "dataset": {"split": "test"},
        "pairs": {"n": plan.SCENES_PAIRS},
        "truth": {"random": {name: mean for name in ("lpips_alex", "lpips_vgg", "psnr", "ssim")}},
        "swap": {"outputs": {"all": {"mean": 0.75, "low": None, "high": None}}},
        "metrics": {"random": {"style_relevance": mean}},
        "overlap": {
            "under a third": {"n": plan.SCENES_PAIRS, "lpips_alex": mean, "psnr": mean, "missing_psnr": None}
        },
        "seconds": 60.0,
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
        (folder / f"{name}.json").write_text(json.dumps(numbers(RUN[name], lpips)))
    old = numbers(RUN["scenes-vae-seed0"], 0.1)
    old["config"]["train"]["steps"] += 1
    (folder / "scenes-vae-seed0.json").write_text(json.dumps(old))
    tables.write(folder)
    text = (tmp_path / "study.md").read_text()
    assert f"3 of {len(RUNS)} runs are finished" in text and "## camvid" not in text
    assert "vae" not in text, "it was run by another plan"
    run = RUN["scenes-msca-seed0"].overrides
    seconds = run["train.steps"] * run["train.batch_size"] / 5.25 + 60
    assert f"took {3 * seconds / 3600:.1f} hours in all, the longest run {seconds / 60:.0f} minutes" in text
    found = rows(text)
    means = next(row for row in found if row[:2] == ["msca", "2"])
    assert means[2] == "0.3000 ± 0.1414" and means[-1] == "75.0% ± 0.0%"
    assert next(row for row in found if row[:2] == ["gap", "1"])[2] == "0.5000"
    each = next(row for row in found if row[0] == "gap-seed0")
    assert each[1] == "0.5000 (0.4900–0.5100)"
    assert any(row[:3] == ["msca-seed0", "1,234,567", "89"] for row in found)


def test_the_committed_tables_are_those_of_the_committed_numbers(tmp_path):
    docs = Path(BENCHMARKS).parent / "docs"
    shutil.copytree(docs / "study", tmp_path / "study")
    tables.write(tmp_path / "study")
    assert (tmp_path / "study.md").read_text() == (docs / "study.md").read_text()
    # And the main table of the results, which is copied by hand, beside them.
    means = {row[0]: row for row in rows((tmp_path / "study.md").read_text()) if len(row) == 8}
    copied = (docs / "results.md").read_text().split("## The alignments, in short")[1].split("\n## ")[0]
    shown = {row[0].split("`")[1]: row[1:] for row in rows(copied) if "`" in row[0] and len(row) == 5}
    assert set(plan.ALIGNMENTS) <= set(shown)
    for name in plan.ALIGNMENTS:
        _, _, alex, _, psnr, _, swap, mean_iou = means[name]
        assert shown[name] == [alex, psnr, swap.split(" ±")[0], mean_iou], name


def pair_values(shift, pairs="a"):
    """Values of 40 pairs that vary far more than what the runs differ by."""
    wide = np.random.default_rng(0).normal(size=40)
    row = {"lpips_alex": (wide + shift).tolist(), "psnr": (10 * wide - shift).tolist()}
    return {
        "pairs_sha256": pairs, "photos": list(range(40)),
        "exemplars": {"random": [*range(20, 40), *range(20)]},
        "bins": {"few": [[i, (i + 1) % 40] for i in range(40)]},
        "truth": {"random": row}, "metrics": {"cross": row}, "overlap": {"few": row},
    }  # fmt: skip


def test_differences_of_pairs_are_narrower_than_of_means():
    runs = [pair_values(0.0), pair_values(0.02)]
    found = pairs.paired(runs, [pair_values(0.11)], "truth", "random", "lpips_alex")
    assert found["mean"] == pytest.approx(0.10) and found["low"] == pytest.approx(found["high"], abs=1e-6)
    assert pairs.paired(runs, [pair_values(0.11)], "overlap", "few", "psnr")["mean"] == pytest.approx(-0.10)
    # Of a photo's own patches alone exemplars are not other photos.
    assert pairs.photos_of(runs[0], "metrics", "cross")[1] is None
    targets, exemplars = pairs.photos_of(runs[0], "overlap", "few")
    assert targets.tolist() == list(range(40)) and exemplars.tolist() == [*range(1, 40), 0]
    with pytest.raises(UserError, match="different pairs"):
        pairs.paired(runs, [pair_values(0.0, "b")], "truth", "random", "psnr")


def test_a_star_needs_all_seeds_of_one_sign():
    values = {
        "msca": dict(enumerate([pair_values(0.0), pair_values(0.0)])),
        "gap": dict(enumerate([pair_values(0.09), pair_values(0.01)])),
        "vae": dict(enumerate([pair_values(0.09), pair_values(-0.01)])),
    }
    found = {row[0]: row[2] for row in rows("\n".join(pairs.differences(values, ["gap", "vae"])))}
    assert found["gap against msca"] == "+0.0500 (+0.0500 to +0.0500) * [+0.0900, +0.0100]"
    assert found["vae against msca"] == "+0.0400 (+0.0400 to +0.0400) [+0.0900, -0.0100]"


def test_only_seeds_that_both_have_are_compared():
    values = {"msca": dict(enumerate([pair_values(0.0), pair_values(0.02)])), "gap": {1: pair_values(0.11)}}
    found = {row[0]: row[1:] for row in rows("\n".join(pairs.differences(values, ["msca", "gap", "vae"])))}
    assert found["gap against msca"][0] == "1" and found["gap against msca"][1].startswith("+0.0900 (")
    assert found["msca, seed 1 against seed 0"][1].startswith("+0.0200 (")
    assert not any("vae" in name for name in found)


def test_ablations_are_compared_with_the_unchanged_network(monkeypatch):
    monkeypatch.setattr(tables, "BINS", ("few",))
    values = {"ablation-msca": pair_values(0.0), "ablation-regions-4": pair_values(0.25)}
    found = rows("\n".join(tables.ablation_differences(values)))
    shown = [row for row in found if row[0] == "regions 4 against unchanged"]
    # Random exemplars, then the one bin.
    assert len(shown) == 2 and all(row[2].startswith("+0.2500 (") for row in shown)
    assert not tables.ablation_differences({"ablation-regions-4": pair_values(0.25)})
    values |= {"ablation-msca-seed1": pair_values(0.02), "ablation-mask_fill-zero": pair_values(0.01)}
    values |= {"ablation-mask_fill-zero-seed1": pair_values(0.05)}
    found = {row[0]: row[1:] for row in rows("\n".join(tables.ablation_differences(values))) if len(row) == 4}
    assert found["mask_fill zero against unchanged"][0] == "2"
    assert found["mask_fill zero against unchanged"][1].endswith("[+0.0100, +0.0300]")
    assert found["unchanged, seed 1 against seed 0"][1].startswith("+0.0200 (")


def test_kept_values_are_those_that_are_compared():
    values = pair_values(0.0)
    values["truth"]["retrieved"] = values["truth"]["random"]
    values["truth"]["random"] = values["truth"]["random"] | {"ssim": [1.0]}
    kept = study.compared_values(values)
    assert kept == pair_values(0.0)


@pytest.mark.parametrize(
    ("group", "key", "value"), [("config", "seed", 7), ("dataset", "split", "val"), ("pairs", "n", 3)]
)
def test_a_run_of_another_plan_is_not_done(group, key, value, tmp_path):
    run = RUNS[0]
    file = tmp_path / f"{run.name}.json"
    assert not plan.is_done(run, tmp_path)
    found = numbers(run, 0.2)
    file.write_text(json.dumps(found))
    assert plan.is_done(run, tmp_path)
    found[group][key] = value
    file.write_text(json.dumps(found))
    assert not plan.is_done(run, tmp_path)


def test_a_half_copied_folder_does_not_pass_for_a_whole_one(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    (source / "file").write_text("whole")
    target.mkdir()
    (target / "old").touch()
    study._copy_folder(source, target)
    assert [file.name for file in target.iterdir()] == ["file"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["source", "target"]


class Programs:
    """Stands in for the programs that a run starts; each leaves what the real one leaves, or fails once."""

    def __init__(self):
        self.done, self.failing = [], None

    def __call__(self, *arguments):
        command = "record" if "record" in arguments else arguments[2]
        if command == self.failing:
            self.failing = None
            raise study.Stopped("exit status 1")
        self.done.append(command)
        flags = dict(str(a).split("=", 1) for a in arguments if "=" in str(a))
        if command == "segmenter":
            folder = Path(flags["--workdir"]) / "segmenter" / "seed0"
            folder.mkdir(parents=True)
            (folder / "scores.json").write_text("{}")


@pytest.mark.parametrize("failing", ["train", "segmenter", "evaluate", "record"])
def test_a_run_goes_on_where_it_stopped(failing, monkeypatch, tmp_path):
    programs = Programs()
    monkeypatch.setattr(study, "program", programs)
    options = SimpleNamespace(workdirs=tmp_path, data_dir="data")
    first, second = RUN["scenes-msca-seed0"], RUN["scenes-gap-seed0"]
    programs.failing = failing
    with pytest.raises(study.Stopped):
        study.execute(first, options)
    study.execute(first, options)
    # Training again is cheap, it ends where it ended; a segmenter is trained once for all runs of its data.
    assert programs.done.count("segmenter") == 1 and programs.done[-2:] == ["evaluate", "record"]
    study.execute(second, options)
    assert programs.done[-3:] == ["train", "evaluate", "record"]
    assert (tmp_path / second.name / "segmenter" / "seed0" / "scores.json").exists()
    study.execute(RUN["facade-msca"], options)
    assert programs.done.count("segmenter") == 2


def test_what_a_training_says_of_itself(tiny_run):
    found = study.training_numbers(tiny_run)
    assert found["parameters"]["all"] > found["parameters"]["aligner"] > 0
    assert found["pairs_per_second"] > 0 and 0.1 < found["peak_memory_gb"] < 100
    assert found["losses"]["loss/generator"] > 0 and all(name.startswith("loss/") for name in found["losses"])
    assert found["health"] and all(name.startswith("attention") for name in found["health"])


def test_the_commit_that_a_run_begins_with(monkeypatch, tmp_path):
    described = study.commit()
    assert described is None or re.fullmatch(r"[0-9a-f]{7,40}(-dirty)?", described)
    for begun in ("abc1234", "another"):
        monkeypatch.setattr(study, "commit", lambda begun=begun: begun)
        study.begin(tmp_path / "run")
    assert json.loads((tmp_path / "run" / study.COMMIT).read_text()) == "abc1234"


def test_without_git_no_commit_is_known(monkeypatch, tmp_path):
    monkeypatch.setattr(study, "ROOT", tmp_path)
    assert study.commit() is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert study.commit() is None

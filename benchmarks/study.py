"""The comparison of alignments and the ablations; the same command again goes on where it stopped.

mscaflax prepare --name=scenes --data_dir=runs/data     # and photos, as the datasets facade and camvid
python benchmarks/study.py list
python benchmarks/study.py run [--only=TEXT] [--data_dir=runs/data]     # numbers go into docs/study
python benchmarks/study.py tables                                       # docs/study.md, of finished runs
"""

import argparse
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import study_pairs
import study_plan
import study_tables
from run_scalars import read_scalars

from mscaflax.errors import UserError
from mscaflax.files import write_atomically

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "study"
COMMIT = "study_commit.json"  # in a workdir
STRIP = 8  # outputs kept of each run on scenes, as a picture


class Stopped(Exception):
    """A command ended without its result: it was interrupted, or failed and has said why."""


def program(*arguments):
    """Runs a Python program of this repository; its output passes through."""
    print("$ python", *arguments, flush=True)
    done = subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT)
    if done.returncode:
        raise Stopped(f"exit status {done.returncode}")


def place_segmenter(run, workdir, root):
    """Puts the segmenter of the run's dataset into its workdir, trained if no earlier run has done it."""
    kept, own = root / f"segmenter-{run.dataset}-{run.size}", workdir / "segmenter"
    scores = Path("seed0") / "scores.json"
    if not (kept / scores).exists():
        program("-m", "mscaflax", "segmenter", f"--workdir={workdir}")
        if not (own / scores).exists():
            raise Stopped("the segmenter is not finished")
        _copy_folder(own, kept)
    elif not (own / scores).exists():
        _copy_folder(kept, own)


def _copy_folder(source, target):
    """All or nothing: a half copy would pass for a whole one."""
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, partial)
    os.replace(partial, target)


def execute(run, options):
    """Trains, or goes on training, and evaluates; the numbers go into docs/study."""
    workdir = options.workdirs / run.name
    overrides = {"data.data_dir": options.data_dir} | run.overrides
    config = [f"--config.{key}={value}" for key, value in overrides.items()]
    begin(workdir)
    program("-m", "mscaflax", "train", f"--config={run.config}", f"--workdir={workdir}", *config)
    place_segmenter(run, workdir, options.workdirs)
    results = workdir / "evaluation"
    program("-m", "mscaflax", "evaluate", f"--workdir={workdir}", f"--output={results}", *run.evaluate)
    # In a process of its own, so that none of its memory is held while the next run trains.
    places = [f"--data_dir={options.data_dir}", f"--workdirs={options.workdirs}"]
    program(__file__, "record", f"--only={run.name}", *places)


def record(run, options):
    """Keeps the numbers of an evaluated run and, on scenes, its first outputs."""
    workdir = options.workdirs / run.name
    found = json.loads((workdir / "evaluation" / "metrics.json").read_text())
    if found["step"] != run.overrides["train.steps"] or not found["segmenter"]:
        raise Stopped(f"{run.name} stands at step {found['step']}, or was evaluated without a segmenter")
    found["training"] = training_numbers(workdir)
    found["commit"] = json.loads((workdir / COMMIT).read_text())
    # A folder of this machine, which no reader has.
    del found["config"]["data"]["data_dir"]
    if run.dataset == "scenes":
        save_strip(run, workdir, options.data_dir)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "values").mkdir(exist_ok=True)
    values = json.loads((workdir / "evaluation" / "values.json").read_text())
    write_atomically(RESULTS / "values" / f"{run.name}.json", json.dumps(compared_values(values)) + "\n")
    write_atomically(RESULTS / f"{run.name}.json", json.dumps(found, indent=1, sort_keys=True) + "\n")


def commit():
    """Of this checkout, with "-dirty" where its code differs from it; None outside of git, or without git."""

    def git(*arguments):
        return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)

    try:
        found = git("rev-parse", "--short", "HEAD")
        if found.returncode:
            return None
        # Not of the whole: the study itself writes its tables into docs.
        changed = git(
            "diff", "--quiet", "HEAD", "--", "mscaflax", "configs", "benchmarks", "setup.py"
        ).returncode
    except OSError:
        return None
    return found.stdout.strip() + ("-dirty" if changed else "")


def begin(workdir):
    """Keeps the commit that a run begins with, in its workdir."""
    workdir.mkdir(parents=True, exist_ok=True)
    if not (workdir / COMMIT).exists():
        write_atomically(workdir / COMMIT, json.dumps(commit()) + "\n")


def compared_values(values):
    """Of an evaluation's values.json, what runs are compared by pair by pair."""
    kept = {key: values[key] for key in ("pairs_sha256", "photos", "exemplars", "bins")}
    for group, kinds in study_pairs.PAIRED.items():
        kept[group] = {
            kind: {metric: row[metric] for metric in study_pairs.PAIRED_METRICS}
            for kind, row in values.get(group, {}).items()
            if kinds is None or kind in kinds
        }
    return kept


def training_numbers(workdir):
    """What the run's events say of its cost, of its last losses and of its attention."""
    import jax

    from mscaflax.training.model import load_model

    scalars = read_scalars(workdir)
    count = {
        name: sum(leaf.size for leaf in jax.tree.leaves(tree))
        for name, tree in load_model(workdir).params.items()
    }

    def last(start):
        found = sorted(scalars.items())
        return {name: round(float(values[-1]), 4) for name, (_, values, _) in found if name.startswith(start)}

    return {
        "pairs_per_second": round(statistics.median(scalars["train/pairs_per_second"][1]), 2),
        "peak_memory_gb": round(float(max(scalars["train/peak_memory_gb"][1])), 2),
        "parameters": {"all": sum(count.values()), "aligner": count["aligner"]},
        "losses": last("loss/"),
        "health": last("attention"),
    }


def save_strip(run, workdir, data_dir):
    """Keeps the first outputs under random exemplars as one row, for the picture that compares the runs."""
    import numpy as np
    from PIL import Image

    from mscaflax.data.datasets import open_dataset
    from mscaflax.evaluation import truth
    from mscaflax.evaluation.batches import Batches
    from mscaflax.evaluation.generation import exemplars, synthesize
    from mscaflax.evaluation.pairlist import freeze_pairs
    from mscaflax.training.model import load_model

    dataset = open_dataset(run.dataset, data_dir)
    source = dataset.source("test")
    pairs = freeze_pairs(
        source, dataset=dataset.name, split="test", fingerprint=dataset.fingerprint,
        count=study_plan.SCENES_PAIRS, size=run.size, num_classes=dataset.classes.num_classes, seed=0,
    )  # fmt: skip
    random = exemplars(pairs)["random"][:STRIP]
    layouts, styles = np.arange(STRIP), random - len(pairs.names)
    rows = {
        f"label-{run.size}": dataset.classes.colorize(pairs.labels[:STRIP]),
        f"exemplar-{run.size}": pairs.patches[random],
        f"truth-{run.size}": truth.draw_truth(pairs, layouts, styles, truth.scenes_size(dataset, source)),
        run.name: synthesize(load_model(workdir), pairs, random, batches=Batches(STRIP)),
    }
    (RESULTS / "pictures").mkdir(parents=True, exist_ok=True)
    for name, row in rows.items():
        picture = io.BytesIO()
        strip = np.concatenate(list(np.asarray(row, np.uint8)), axis=1)
        Image.fromarray(strip).save(picture, "PNG", optimize=True)
        write_atomically(RESULTS / "pictures" / f"{name}.png", picture.getvalue())


def check_datasets(runs, data_dir):
    """Raises UserError, which names the command, unless all datasets are there: now, not after hours."""
    from mscaflax.data.datasets import open_dataset

    for name in sorted({run.dataset for run in runs}):
        open_dataset(name, data_dir)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("action", choices=("list", "run", "record", "tables"))
    parser.add_argument("--only", default="", help="runs whose name holds this text")
    parser.add_argument("--data_dir", default="runs/data", help="where `mscaflax prepare` put the datasets")
    parser.add_argument("--workdirs", default="runs/study", help="where the runs train")
    options = parser.parse_args()
    options.data_dir = str(Path(options.data_dir).expanduser().absolute())
    options.workdirs = Path(options.workdirs).expanduser().absolute()
    chosen = [run for run in study_plan.runs() if options.only in run.name]
    if not chosen:
        parser.error(f"no run's name holds {options.only!r}: see `python benchmarks/study.py list`")
    try:
        if options.action == "list":
            for run in chosen:
                print("done" if study_plan.is_done(run, RESULTS) else "open", run.name)
        elif options.action == "run":
            waiting = [run for run in chosen if not study_plan.is_done(run, RESULTS)]
            check_datasets(waiting, options.data_dir)
            for run in waiting:
                execute(run, options)
                study_tables.write(RESULTS)
        elif options.action == "record":
            for run in chosen:
                if run.name == options.only:
                    record(run, options)
        else:
            study_tables.write(RESULTS)
    except (Stopped, UserError) as error:
        sys.exit(f"study: {error}. Once that is mended, the same command goes on from there")


if __name__ == "__main__":
    main()

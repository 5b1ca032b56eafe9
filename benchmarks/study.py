"""The comparison of alignments and the ablations of docs/results.md, run by run; call it again to go on.

python benchmarks/study.py list
python benchmarks/study.py run [--only=TEXT] [--data_dir=runs/data]    # finished runs are kept in docs/study
python benchmarks/study.py tables                                      # docs/study.md from what is finished
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import study_plan
import study_tables
from run_scalars import read_scalars

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "study"
STRIP = 8  # outputs kept of each run on scenes, as a picture


def mscaflax(*arguments):
    """Runs a command of the program; its output passes through."""
    command = [sys.executable, "-m", "mscaflax", *map(str, arguments)]
    print("$", "mscaflax", *arguments, flush=True)
    subprocess.run(command, check=True, cwd=ROOT)


def segmenter(run, workdir, root):
    """Puts the segmenter of the run's dataset into its workdir, trained if no earlier run has done it."""
    kept = root / f"segmenter-{run.dataset}-{run.size}"
    if not kept.exists():
        mscaflax("segmenter", f"--workdir={workdir}")
        shutil.copytree(workdir / "segmenter", kept)
    elif not (workdir / "segmenter").exists():
        shutil.copytree(kept, workdir / "segmenter")


def training_numbers(workdir):
    """What the run's events say of its cost."""
    from mscaflax.training.model import load_model

    scalars = read_scalars(workdir)
    parameters = load_model(workdir).params
    count = {name: sum(leaf.size for leaf in _leaves(tree)) for name, tree in parameters.items()}
    return {
        "pairs_per_second": round(statistics.median(scalars["train/pairs_per_second"][1]), 2),
        "peak_memory_gb": round(float(max(scalars["train/peak_memory_gb"][1])), 2),
        "parameters": {"all": sum(count.values()), "aligner": count["aligner"]},
        "health": {
            name: round(float(values[-1]), 4)
            for name, (_, values, _) in sorted(scalars.items())
            if name.startswith("attention")
        },
    }


def _leaves(tree):
    if not isinstance(tree, dict):
        return [tree]
    return [leaf for child in tree.values() for leaf in _leaves(child)]


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
    pairs = freeze_pairs(
        dataset.source("test"), dataset=dataset.name, split="test", fingerprint=dataset.fingerprint,
        count=STRIP, size=run.size, num_classes=dataset.classes.num_classes, seed=0,
    )  # fmt: skip
    wanted = exemplars(pairs)
    size = truth.scenes_size(dataset, dataset.source("test"))
    rows = {
        "label": dataset.classes.colorize(pairs.labels[:STRIP]),
        "exemplar": pairs.patches[wanted["random"]],
        "truth": truth.scene_truth(pairs, {"random": wanted["random"]}, size)["random"],
        run.name: synthesize(load_model(workdir), pairs, wanted["random"], batches=Batches(STRIP)),
    }
    for name, row in rows.items():
        file = RESULTS / "pictures" / f"{name}{'' if name == run.name else f'-{run.size}'}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.concatenate(list(np.asarray(row, np.uint8)), axis=1)).save(file, optimize=True)


def execute(run, root, data_dir):
    """Trains, or goes on training, and evaluates; the numbers go into docs/study."""
    workdir = root / run.name
    started = time.perf_counter()
    overrides = {"data.data_dir": data_dir} | run.overrides
    mscaflax(
        "train",
        f"--config={run.config}",
        f"--workdir={workdir}",
        *(f"--config.{key}={value}" for key, value in overrides.items()),
    )
    trained = time.perf_counter() - started
    segmenter(run, workdir, root)
    mscaflax("evaluate", f"--workdir={workdir}", f"--output={workdir}/evaluation", *run.evaluate)
    found = json.loads((workdir / "evaluation" / "metrics.json").read_text())
    # Of the last start alone, where the run was interrupted.
    found["training"] = {"minutes": round(trained / 60, 1)} | training_numbers(workdir)
    # A folder of this machine, which no reader has.
    del found["config"]["data"]["data_dir"]
    RESULTS.mkdir(parents=True, exist_ok=True)
    if run.dataset == "scenes":
        save_strip(run, workdir, data_dir)
    (RESULTS / f"{run.name}.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("action", choices=("list", "run", "tables"))
    parser.add_argument("--only", default="", help="runs whose name holds this text")
    parser.add_argument("--data_dir", default="runs/data", help="where `mscaflax prepare` put the datasets")
    parser.add_argument("--workdirs", default="runs/study", help="where the runs train")
    args = parser.parse_args()
    chosen = [run for run in study_plan.runs() if args.only in run.name]
    if args.action == "list":
        for run in chosen:
            print("done" if (RESULTS / f"{run.name}.json").exists() else "open", run.name)
    elif args.action == "run":
        root = Path(args.workdirs).expanduser().absolute()
        for run in chosen:
            if not (RESULTS / f"{run.name}.json").exists():
                execute(run, root, str(Path(args.data_dir).expanduser().absolute()))
                study_tables.write(RESULTS)
    else:
        study_tables.write(RESULTS)


if __name__ == "__main__":
    main()

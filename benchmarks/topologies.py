"""The same training on 1, 2 and 4 processes of this machine: what changes but rounding?

mscaflax prepare --name=scenes --data_dir=runs/data
python benchmarks/topologies.py [--setting adam] [--data_dir=runs/data] [--output=docs/topologies.json]

Each topology (processes x CPU devices of each) trains a toy network for the same 20 steps from the same
global batches: data parallel, and with parameters shared (fsdp) by all eight devices, of whatever process.
Then each goes on from step 10 with the checkpoint of another, one of the two with shared parameters. A table
on stdout, row by row, JSON on request; the exit status is 1 where a number is beyond its limit. Settings:

sgd: descent, so slow that an update does not amplify rounding; every pair of topologies resumes.
adam: the shipped Adam at a tenth of its rates.
adam-shipped: at its rates, the losses without a limit; nothing resumes.

A row "in two parts" is the yardstick: one device that adds up each batch in two parts (train.accumulate=2),
which changes nothing but rounding either.

losses: the largest relative difference from 1x1 of any step's losses. parameters: of the two networks, the
norm of the difference over that of the parameters, the larger. worst array: of any single array.
"""

import argparse
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from run_scalars import read_scalars

ROOT = Path(__file__).parents[1]
TOPOLOGIES = ((1, 1), (1, 8), (2, 4), (4, 2))
SHARED_BY = (1, 8)  # config.mesh.fsdp
STEPS, HALF = 20, 10
# Kind and rates. Of SGD, small: with gradients of norm 100 a larger one amplifies rounding as Adam does.
SETTINGS = {
    "sgd": ("sgd", 5e-6, 1e-4),
    "adam": ("adam", 2e-5, 4e-5),
    "adam-shipped": ("adam", 2e-4, 4e-4),
}
# Relative differences. Plain descent carries rounding along: one unit in the last place for each step. Adam
# without a first moment amplifies it wherever a gradient is close to zero, so that only its losses are held.
ROUNDING = STEPS * float(np.finfo(np.float32).eps)
# An array that begins with zeros, a bias, holds nothing but updates, whose rounding is that of the gradients.
LIMITS = {
    "sgd": {"losses": 1e-3, "parameters": ROUNDING, "worst array": 1e-2},
    "adam": {"losses": 1e-3},
    "adam-shipped": {},
}

COLUMNS = ("losses", "parameters", "worst array")


def train(workdir, topology, setting, fsdp, options, parts=1):
    """Trains in a workdir, or goes on there."""
    (processes, devices), (optimizer, generator_rate, discriminator_rate) = topology, SETTINGS[setting]
    arguments = [
        "--config=tiny", f"--workdir={workdir}", f"--cpu_devices={devices}",
        f"--config.data.data_dir={options.data_dir}", f"--config.train.steps={STEPS}",
        "--config.train.batch_size=16", "--config.train.log_every=1",
        f"--config.train.checkpoint_every={HALF}", f"--config.train.accumulate={parts}",
        # Nothing but the training: health and samples have programs of their own.
        "--config.train.health_every=0", "--config.train.sample_every=0",
        "--config.model.generator_channels=(8,8,16,48,48)",  # so that some arrays are worth splitting
        # Instance normalization over the four positions of the coarsest scale amplifies rounding.
        "--config.model.normalization=position",
        f"--config.optimizer.kind={optimizer}", f"--config.optimizer.generator_rate={generator_rate}",
        f"--config.optimizer.discriminator_rate={discriminator_rate}", f"--config.mesh.fsdp={fsdp}",
    ]  # fmt: skip
    program = [sys.executable, ROOT / "launch/local.py", str(processes), "train", *arguments]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{name(topology, setting, fsdp)} failed:\n{done.stderr[-3000:]}")


def name(topology, setting, fsdp):
    return f"{topology[0]}x{topology[1]}-{setting}-fsdp{fsdp}"


def parameters(workdir, step=STEPS):
    """{network: {path: array}} of a checkpoint, in float64."""
    folder = workdir / "checkpoints" / str(step)
    # The devices that wrote it are not here.
    here = ocp.args.StandardRestore(fallback_sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
        items = checkpointer.restore((folder / "training").absolute(), args=here)
    return {
        network: {
            jax.tree_util.keystr(path): np.asarray(x, np.float64)
            for path, x in jax.tree.leaves_with_path(items[network])
        }
        for network in ("generator", "discriminator")
    }


def compare(workdir, reference):
    """Differences from the reference run, by column of the table, and the name of the worst array."""
    ours, theirs = read_scalars(workdir), read_scalars(reference)
    losses = {}
    for key in ("loss/generator", "loss/discriminator"):
        a, b = dict(zip(*ours[key][:2], strict=True)), dict(zip(*theirs[key][:2], strict=True))
        losses[key] = max(abs(a[step] - b[step]) / abs(b[step]) for step in a)
    one, other = parameters(workdir), parameters(reference)
    arrays = {
        f"{network}{path}": relative([one[network][path]], [x])
        for network, tree in other.items()
        for path, x in tree.items()
    }
    worst = max(arrays, key=arrays.get)
    return {
        "losses": float(max(losses.values())),
        "parameters": max(distance(one, other).values()),
        "worst array": arrays[worst],
        "its name": worst,
    }


def relative(some, others):
    """The norm of the difference of two lists of arrays over that of the latter."""
    apart = sum(float(((a - b) ** 2).sum()) for a, b in zip(some, others, strict=True))
    whole = sum(float((b**2).sum()) for b in others)
    return (apart / whole) ** 0.5 if whole else float(apart > 0)


def distance(one, other):
    """{network: norm of the difference over that of `other`}, of all its parameters."""
    return {
        network: relative([one[network][path] for path in tree], list(tree.values()))
        for network, tree in other.items()
    }


def beyond(row):
    """The numbers of a row that are beyond their limits, NaN too: {name: limit}."""
    return {key: limit for key, limit in LIMITS[row["setting"]].items() if not row[key] <= limit}


def check_that_it_trains(reference):
    """Exits where a run has changed its parameters so little that rounding would pass for it."""
    moved = min(distance(parameters(reference, HALF), parameters(reference)).values())
    rounding = ROUNDING * (STEPS - HALF) / STEPS
    if moved < 20 * rounding:
        sys.exit(
            f"{reference.name}: the parameters moved by {moved:.1e} alone; rounding moves {rounding:.1e}"
        )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--data_dir", default="runs/data")
    parser.add_argument("--setting", choices=SETTINGS, nargs="+", default=SETTINGS, help="default: all")
    parser.add_argument("--output", help="JSON file of all numbers")
    options = parser.parse_args()
    options.data_dir = str(Path(options.data_dir).absolute())
    rows = []
    with tempfile.TemporaryDirectory(prefix="topologies-") as folder:
        root = Path(folder)
        titles = ["setting", "fsdp", "processes x devices", "begins with", *COLUMNS, "beyond"]
        print(f"| {' | '.join(titles)} |")
        print(f"|{' --- |' * 4}{' ---: |' * len(COLUMNS)} --- |", flush=True)
        for setting in options.setting:
            reference = root / name((1, 1), setting, 1)
            train(reference, (1, 1), setting, 1, options)
            check_that_it_trains(reference)
            workdir = root / f"{reference.name}-in-parts"
            train(workdir, (1, 1), setting, 1, options, parts=2)
            rows.append(show(workdir, reference, (1, 1), setting, 1, "step 0, in two parts"))
            for fsdp in SHARED_BY:
                for topology in TOPOLOGIES[1:]:
                    workdir = root / name(topology, setting, fsdp)
                    train(workdir, topology, setting, fsdp, options)
                    rows.append(show(workdir, reference, topology, setting, fsdp, "step 0"))
            for index, (donor, topology) in enumerate(resumptions(setting)):
                # What all shared becomes whole, or what was whole is shared by all.
                ways = SHARED_BY if index % 2 else SHARED_BY[::-1]
                had, fsdp = (
                    1 if at == (1, 1) else way for at, way in zip((donor, topology), ways, strict=True)
                )
                workdir = root / f"{name(topology, setting, fsdp)}-of-{donor[0]}x{donor[1]}"
                shutil.copytree(root / name(donor, setting, had), workdir)
                shutil.rmtree(workdir / "checkpoints" / str(STEPS))
                shutil.rmtree(workdir / "tensorboard")
                train(workdir, topology, setting, fsdp, options)
                start = f"step {HALF} of {donor[0]}x{donor[1]}, fsdp {had}"
                rows.append(show(workdir, reference, topology, setting, fsdp, start))
                shutil.rmtree(workdir)
    if options.output:
        Path(options.output).write_text(json.dumps(rows, indent=1) + "\n")
    return 1 if any(map(beyond, rows)) else 0


def resumptions(setting):
    """(who wrote the checkpoint, who goes on): each of the others for each, the next one alone, or none."""
    if setting == "sgd":
        return list(itertools.permutations(TOPOLOGIES, 2))
    following = [(TOPOLOGIES[index - 1], topology) for index, topology in enumerate(TOPOLOGIES)]
    return following if setting == "adam" else []


def show(workdir, reference, topology, setting, fsdp, start):
    """Prints and returns a row of the table."""
    row = {"setting": setting, "fsdp": fsdp, "processes": topology[0], "devices": topology[1]}
    row |= {"start": start} | compare(workdir, reference)
    excess = ", ".join(f"{key} > {limit:.1e}" for key, limit in beyond(row).items())
    print(
        f"| {setting} | {fsdp} | {topology[0]}x{topology[1]} | {start} "
        f"| {' | '.join(f'{row[column]:.1e}' for column in COLUMNS)} | {excess} |",
        flush=True,
    )
    return row


if __name__ == "__main__":
    sys.exit(main())

"""The same training on 1, 2 and 4 processes of this machine: what changes but rounding?

mscaflax prepare --name=scenes --data_dir=runs/data
python benchmarks/topologies.py [--data_dir=runs/data] [--output=docs/topologies.json]

Each topology (processes x CPU devices of each) trains a toy network for the same 20 steps from the same
global batches, with SGD and with the shipped Adam, data parallel and with parameters shared by two devices
(fsdp). Then each one goes on, from step 10, with the checkpoint that another has written. A table on stdout,
row by row, JSON on request; the exit status is 1 where a number is beyond its limit.
"""

import argparse
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
STEPS, HALF = 20, 10
# Of SGD, small: with gradients of norm 100 a larger one amplifies rounding as Adam does.
RATES = {"sgd": (5e-6, 1e-4), "adam": (2e-4, 4e-4)}
# Relative differences. Plain descent carries rounding along: one unit in the last place for each step. Adam
# without a first moment amplifies it wherever a gradient is close to zero, so that only its losses are held.
ROUNDING = STEPS * float(np.finfo(np.float32).eps)
LIMITS = {"sgd": {"losses": 1e-3, "parameters": ROUNDING}, "adam": {"losses": 1e-3}}


def train(workdir, topology, optimizer, fsdp, options, steps=STEPS):
    """Trains in a workdir, or goes on there."""
    processes, devices = topology
    arguments = [
        "--config=tiny", f"--workdir={workdir}", f"--cpu_devices={devices}",
        f"--config.data.data_dir={options.data_dir}", f"--config.train.steps={steps}",
        "--config.train.batch_size=16", "--config.train.log_every=1",
        f"--config.train.checkpoint_every={HALF}",
        f"--config.train.health_every={STEPS}", f"--config.train.sample_every={STEPS}",
        "--config.model.generator_channels=(8,8,16,48,48)",  # so that some arrays are worth splitting
        # Instance normalization over the four positions of the coarsest scale amplifies rounding.
        "--config.model.normalization=position",
        f"--config.optimizer.kind={optimizer}", f"--config.optimizer.generator_rate={RATES[optimizer][0]}",
        f"--config.optimizer.discriminator_rate={RATES[optimizer][1]}", f"--config.mesh.fsdp={fsdp}",
    ]  # fmt: skip
    program = [sys.executable, ROOT / "launch/local.py", str(processes), "train", *arguments]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{name(topology, optimizer, fsdp)} failed:\n{done.stderr[-3000:]}")


def name(topology, optimizer, fsdp):
    return f"{topology[0]}x{topology[1]}-{optimizer}-fsdp{fsdp}"


def parameters(workdir, step=STEPS):
    """{network: its parameters as one vector} of a checkpoint."""
    folder = workdir / "checkpoints" / str(step)
    # The devices that wrote it are not here.
    here = ocp.args.StandardRestore(fallback_sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
        items = checkpointer.restore((folder / "training").absolute(), args=here)
    return {
        network: np.concatenate([np.ravel(x) for x in jax.tree.leaves(items[network])]).astype(np.float64)
        for network in ("generator", "discriminator")
    }


def compare(workdir, reference):
    """Largest relative differences from the reference run: of the losses of any step, of the parameters."""
    ours, theirs = read_scalars(workdir), read_scalars(reference)
    losses = {}
    for key in ("loss/generator", "loss/discriminator"):
        a, b = dict(zip(*ours[key][:2], strict=True)), dict(zip(*theirs[key][:2], strict=True))
        losses[key] = max(abs(a[step] - b[step]) / abs(b[step]) for step in a)
    differences = distance(parameters(workdir), parameters(reference))
    return {"losses": float(max(losses.values())), "parameters": float(max(differences.values()))}


def distance(one, other):
    """{network: norm of the difference over that of `other`}."""
    return {key: np.linalg.norm(one[key] - other[key]) / np.linalg.norm(other[key]) for key in other}


def beyond(row):
    """The numbers of a row that are beyond their limits, NaN too: {name: limit}."""
    return {key: limit for key, limit in LIMITS[row["optimizer"]].items() if not row[key] <= limit}


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
    parser.add_argument("--output", help="JSON file of all numbers")
    options = parser.parse_args()
    options.data_dir = str(Path(options.data_dir).absolute())
    rows = []
    with tempfile.TemporaryDirectory(prefix="topologies-") as folder:
        root = Path(folder)
        print("| optimizer | fsdp | processes x devices | goes on from | losses | parameters | beyond |")
        print("| --- | --- | --- | --- | ---: | ---: | --- |", flush=True)
        for optimizer in RATES:
            reference = root / name((1, 1), optimizer, 1)
            train(reference, (1, 1), optimizer, 1, options)
            check_that_it_trains(reference)
            for fsdp in (1, 2):
                for topology in TOPOLOGIES[1:]:
                    workdir = root / name(topology, optimizer, fsdp)
                    train(workdir, topology, optimizer, fsdp, options)
                    rows.append(show(workdir, reference, topology, optimizer, fsdp, "step 0"))
            # Each one's checkpoint of step 10, by the next topology, the last's by the first.
            for index, topology in enumerate(TOPOLOGIES):
                donor = TOPOLOGIES[index - 1]
                fsdp = 1 if topology == (1, 1) else 2
                workdir = root / f"{name(topology, optimizer, fsdp)}-resumed"
                shutil.copytree(root / name(donor, optimizer, 1 if donor == (1, 1) else 2), workdir)
                shutil.rmtree(workdir / "checkpoints" / str(STEPS))
                shutil.rmtree(workdir / "tensorboard")
                train(workdir, topology, optimizer, fsdp, options)
                start = f"step {HALF} of {donor[0]}x{donor[1]}"
                rows.append(show(workdir, reference, topology, optimizer, fsdp, start))
    if options.output:
        Path(options.output).write_text(json.dumps(rows, indent=1) + "\n")
    return 1 if any(map(beyond, rows)) else 0


def show(workdir, reference, topology, optimizer, fsdp, start):
    """Prints and returns a row of the table."""
    row = {"optimizer": optimizer, "fsdp": fsdp, "processes": topology[0], "devices": topology[1]}
    row |= {"start": start} | compare(workdir, reference)
    excess = ", ".join(f"{key} > {limit:.1e}" for key, limit in beyond(row).items())
    print(
        f"| {optimizer} | {fsdp} | {topology[0]}x{topology[1]} | {start} | {row['losses']:.1e} "
        f"| {row['parameters']:.1e} | {excess} |",
        flush=True,
    )
    return row


if __name__ == "__main__":
    sys.exit(main())

"""`mscaflax train`: trains, or goes on with what the workdir holds."""

import argparse

from mscaflax.commands.argument_types import positive
from mscaflax.commands.training_console import add_cpu_devices, train_on_console
from mscaflax.errors import UserError

HELP = "train a model, or go on with what the workdir holds"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("--workdir", required=True, metavar="DIR", help="the folder of the run")
    add_cpu_devices(parser)
    parser.add_argument(
        "--status_when_stopped",
        type=int,
        choices=range(256),
        default=0,
        metavar="N",
        help="exit status of a run that SIGTERM stopped (default: 0), for schedulers that take 0 for its end",
    )
    group = parser.add_argument_group(
        "several processes",
        "Each is started with the same command, and all see the same workdir and dataset "
        "(launch/ has scripts that do it). A process takes all GPUs of its machine, unless Slurm or Open MPI "
        "give it one or JAX_LOCAL_DEVICE_IDS names others.",
    )
    group.add_argument(
        "--distributed",
        action="store_true",
        help="this process is one of several; Cloud TPU, Slurm, Open MPI and Kubernetes tell which",
    )
    group.add_argument(
        "--coordinator_address", metavar="HOST:PORT", help="elsewhere: where process 0 can be reached"
    )
    group.add_argument("--num_processes", type=positive, metavar="N", help="elsewhere: their number")
    group.add_argument("--process_id", type=int, metavar="I", help="elsewhere: which one this is, from 0")


def _place(args: argparse.Namespace) -> tuple[str, int, int] | None:
    """(address, processes, process) as given by the user, or None."""
    given = (args.coordinator_address, args.num_processes, args.process_id)
    if all(value is None for value in given):
        return None
    if any(value is None for value in given):
        raise UserError("give --coordinator_address, --num_processes and --process_id together, or none")
    host, _, port = args.coordinator_address.rpartition(":")
    if not host or not port.isdecimal():
        raise UserError(f"--coordinator_address={args.coordinator_address} must be HOST:PORT of process 0")
    return given


def _line(numbers: dict[str, float]) -> str:
    return (
        f"{numbers['train/pairs_per_second']:.1f} pairs/s  "
        f"perceptual {numbers['loss/perceptual']:.3f}  L1 {numbers['loss/l1']:.3f}"
    )


def run(args: argparse.Namespace) -> int:
    """Runs the command: 0 when done, `--status_when_stopped` after SIGTERM, 130 after Ctrl-C; all have saved.

    Raises:
      UserError: as mscaflax.training.synthesis.SynthesisTask, mscaflax.training.loop.train and
        mscaflax.training.processes.connect.
    """
    from mscaflax.config import load_config
    from mscaflax.training.processes import connect, failing_together
    from mscaflax.training.sharding import split_cpu
    from mscaflax.training.synthesis import SynthesisTask

    config = load_config(args.config_argv)
    place = _place(args)
    even, accumulate = config.data.both_directions, config.train.accumulate
    processes = place[1] if place else 1
    split_cpu(config.train.batch_size, even, args.cpu_devices, accumulate=accumulate, processes=processes)
    with failing_together():
        if place or args.distributed:
            connect(*(place or ()))
        status = train_on_console(lambda: SynthesisTask(config), args.workdir, config.train.steps, _line)
    # None: all steps are done.
    return {None: 0, 0: args.status_when_stopped}.get(status, status)

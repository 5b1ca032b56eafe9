"""`mscaflax train`: trains, or goes on with what the workdir holds."""

import argparse

from mscaflax.commands.training_console import add_cpu_devices, train_on_console

HELP = "train a model, or go on with what the workdir holds"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("--workdir", required=True, metavar="DIR", help="the folder of the run")
    add_cpu_devices(parser)


def _line(numbers: dict[str, float]) -> str:
    return (
        f"{numbers['train/pairs_per_second']:.1f} pairs/s  "
        f"perceptual {numbers['loss/perceptual']:.3f}  L1 {numbers['loss/l1']:.3f}"
    )


def run(args: argparse.Namespace) -> int:
    """Runs the command: 0 when done or stopped by SIGTERM, 130 after Ctrl-C; both saved a checkpoint.

    Raises:
      UserError: as mscaflax.training.synthesis.SynthesisTask and mscaflax.training.loop.train.
    """
    from mscaflax.config import load_config
    from mscaflax.training.sharding import split_cpu
    from mscaflax.training.synthesis import SynthesisTask

    config = load_config(args.config_argv)
    even, accumulate = config.data.both_directions, config.train.accumulate
    split_cpu(config.train.batch_size, even, args.cpu_devices, accumulate=accumulate)
    status = train_on_console(lambda: SynthesisTask(config), args.workdir, config.train.steps, _line)
    return status or 0

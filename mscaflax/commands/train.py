"""`mscaflax train`: trains, or goes on with what the workdir holds."""

import argparse
import functools
import signal
from pathlib import Path

import mscaflax
from mscaflax.commands.argument_types import positive

HELP = "train a model, or go on with what the workdir holds"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("--workdir", required=True, metavar="DIR", help="the folder of the run")
    parser.add_argument(
        "--cpu_devices",
        type=positive,
        metavar="N",
        help="where there is no accelerator: split each batch over N devices of one CPU thread each "
        "(default: one per core, if the batch divides)",
    )


def _keep(record, folders) -> bool:
    """Keeps warnings, and notes from files below these folders; the other libraries tell too much."""
    return record.levelno >= 30 or any(folder in Path(record.pathname).parents for folder in folders)


def run(args: argparse.Namespace) -> int:
    """Runs the command: 0 when done or stopped by SIGTERM, 130 after Ctrl-C; both saved a checkpoint.

    Raises:
      UserError: as mscaflax.training.loop.train.
    """
    import logging

    from absl import logging as absl_logging
    from clu import metric_writers
    from rich.console import Console
    from rich.logging import RichHandler
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from mscaflax.config import load_config
    from mscaflax.training.loop import train
    from mscaflax.training.sharding import split_cpu

    config = load_config(args.config_argv)
    split_cpu(config.train.batch_size, config.data.both_directions, args.cpu_devices)
    console = Console(stderr=True)
    if console.is_terminal:
        # One handler for log lines and bar, so that neither overwrites the other.
        handler = RichHandler(console=console, show_path=False)
        # The main numbers go above the bar; all of them, as the metric writer tells them, fill a screen.
        folders = [Path(mscaflax.__file__).parent]
    else:
        folders = [Path(mscaflax.__file__).parent, Path(metric_writers.__file__).parent]
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    handler.addFilter(functools.partial(_keep, folders=folders))
    logger = absl_logging.get_absl_logger()
    logger.handlers = [handler]
    # The root logger may have a handler too, and would write each line again.
    logger.propagate = False
    absl_logging.set_verbosity(absl_logging.INFO)
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[numbers]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=config.train.steps, numbers="compiling")

        def on_step(step, numbers):
            bar.update(task, completed=step)
            if numbers is not None:
                line = (
                    f"{numbers['train/pairs_per_second']:.1f} pairs/s  "
                    f"perceptual {numbers['loss/perceptual']:.3f}  L1 {numbers['loss/l1']:.3f}"
                )
                bar.update(task, numbers=line)
                if console.is_terminal:
                    console.print(f"step {step}  {line}", highlight=False)

        step, stopped_by = train(config, args.workdir, on_step)
    if stopped_by is not None:
        done = f"stopped and saved at step {step}" if step else "stopped before the first step"
        console.print(f"{done}; the same command goes on from there")
    return 130 if stopped_by == signal.SIGINT else 0

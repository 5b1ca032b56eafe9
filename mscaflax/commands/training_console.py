"""What a training shows: log lines, a progress bar, and how it ended."""

import argparse
import functools
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mscaflax
from mscaflax.commands.argument_types import positive


def add_cpu_devices(parser: argparse.ArgumentParser) -> None:
    """Adds the argument that `mscaflax.training.sharding.split_cpu` takes."""
    parser.add_argument(
        "--cpu_devices",
        type=positive,
        metavar="N",
        help="where there is no accelerator: split each batch over N devices of one CPU thread each "
        "(default: one per core, if the batch divides); a run goes on bit for bit under the same N",
    )


def _keep(record, folder) -> bool:
    """Keeps warnings, and notes from files below this folder; the other libraries tell too much.

    Of several processes, the first one's notes are enough. Tracebacks are dropped: an error that matters is
    raised again, and said in one line or shown in full by the program itself.
    """
    from mscaflax.training.processes import is_first

    record.exc_info = record.exc_text = None
    if record.levelno >= 30:
        return _not_of_full_disk(record)
    return is_first() and folder in Path(record.pathname).parents


def _not_of_full_disk(record) -> bool:
    """Drops what each part of the libraries says of a full disk: the program ends with a line about it."""
    from mscaflax.training.checkpoint import tells_of_full_disk

    return not tells_of_full_disk(record.getMessage())


def train_on_console(
    make_task: Callable[[], Any],
    workdir: Path | str,
    steps: int,
    line: Callable[[dict[str, float]], str],
) -> int | None:
    """Trains with a progress bar on stderr; where that is no terminal, with log lines.

    Args:
      make_task: makes what is trained; called once the log is set up.
      workdir: the folder of the run.
      steps: the length of the bar.
      line: a few words about the numbers of a logged step.

    Returns:
      None once all steps are done; the exit status if a signal stopped the run, which saved a checkpoint: 0
      after SIGTERM, 130 after Ctrl-C.

    Raises:
      UserError: as `make_task` and mscaflax.training.loop.train.
    """
    import logging

    from absl import logging as absl_logging
    from rich.console import Console
    from rich.logging import RichHandler
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from mscaflax.data.tensorflow import import_tensorflow
    from mscaflax.training.loop import train
    from mscaflax.training.processes import is_first

    import_tensorflow()  # before clu does it, in its own way
    console = Console(stderr=True)
    if console.is_terminal:
        # One handler for log lines and bar, so that neither overwrites the other.
        handler = RichHandler(console=console, show_path=False)
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    # The main numbers; all of them, as the metric writer tells them, fill a screen, and TensorBoard has them.
    handler.addFilter(functools.partial(_keep, folder=Path(mscaflax.__file__).parent))
    logger = absl_logging.get_absl_logger()
    logger.handlers = [handler]
    # The root logger may have a handler too, and would write each line again.
    logger.propagate = False
    absl_logging.set_verbosity(absl_logging.INFO)
    # It tells at the very end of writes of a checkpoint that nobody waited for after the first had failed.
    logging.getLogger("asyncio").addFilter(_not_of_full_disk)
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[numbers]}"),
    )
    with Progress(*columns, console=console, disable=not (console.is_terminal and is_first())) as bar:
        row = bar.add_task("", total=steps, numbers="compiling")

        def on_step(step, numbers):
            bar.update(row, completed=step)
            if numbers is not None:
                bar.update(row, numbers=line(numbers))
                if console.is_terminal and is_first():
                    console.print(f"step {step}  {line(numbers)}", highlight=False)
                elif is_first():
                    absl_logging.info("step %d of %d  %s", step, steps, line(numbers))

        step, stopped_by = train(make_task(), workdir, on_step)
    if stopped_by is None:
        return None
    done = f"stopped and saved at step {step}" if step else "stopped before the first step"
    if is_first():
        console.print(f"{done}; the same command goes on from there")
    return 130 if stopped_by == signal.SIGINT else 0

"""Building datasets safely: in parallel, with a progress bar, all or nothing.

A dataset is built in a hidden folder of its own beside its place and moved there when it is complete; the one
that it replaces is set aside until then. What an interrupted or killed run leaves behind is removed, or put
back, by the next one.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from mscaflax.data.datasets import Dataset, check_name, default_data_dir, read_dataset
from mscaflax.data.inputs import Inputs
from mscaflax.data.workers import default_workers, parallel_map
from mscaflax.errors import UserError
from mscaflax.files import expanded

# What file systems without locks answer: some of the network's, and some that are mounted from a bucket.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@dataclass(frozen=True)
class Prepared:
    """The outcome of `prepare`.

    Attributes:
        dataset: the finished dataset.
        reused: it was there already.
        left_out: messages about the examples that it leaves out.
        seconds: time spent on building.
    """

    dataset: Dataset
    reused: bool
    left_out: tuple[str, ...]
    seconds: float


class _RateColumn(ProgressColumn):
    """Examples per second."""

    def render(self, task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f}/s" if speed else "", style="progress.data.speed")


def prepare(
    inputs: Inputs,
    data_dir: str | os.PathLike | None = None,
    *,
    skip_bad: bool = False,
    workers: int | None = None,
    overwrite: bool = False,
    report: Callable[[str], None] = print,
) -> Prepared:
    """Builds a TFDS dataset, or finds that it is already there.

    A dataset of other input is replaced only with `overwrite`, or if `inputs.generated`.

    Args:
        inputs: what to build.
        data_dir: the local folder that holds datasets; None for `default_data_dir()`.
        skip_bad: leave out the examples that cannot be used.
        workers: worker processes; None for one per core.
        overwrite: build again although the dataset is there; the old one stays until the new one is complete.
        report: takes each line of text meant for the user.

    Raises:
        BadFilesError: examples cannot be used; each was reported, and nothing was written.
        UserError: the dataset exists but was built from other input, another run is building it, or the
            folder cannot be used.
    """
    check_name(inputs.name)
    data_dir = os.fspath(data_dir or default_data_dir())
    if "://" in data_dir:
        raise UserError(
            f"{data_dir} is a bucket: the array_record format can be read there but not written. Build into "
            f"a local folder, then copy it: `gcloud storage cp -r DIR/{inputs.name} {data_dir.rstrip('/')}/`"
        )
    if workers is not None and workers < 1:
        raise UserError(f"--workers={workers}: give at least 1")
    root = expanded(data_dir).absolute()
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot use {root} for datasets: {error.strerror}") from None

    with _exclusive(root / f".{inputs.name}.lock", inputs.name, report):
        staging, parked = root / f".{inputs.name}.incomplete", root / f".{inputs.name}.replaced"
        if staging.exists():
            shutil.rmtree(staging)
            report(f"Removed what an interrupted run left in {staging}.")
        # Only now, since it loads TensorFlow.
        from mscaflax.data.builders import LabelMapBuilder

        place = root / inputs.name / str(LabelMapBuilder.VERSION)
        if parked.exists():
            if place.exists():
                shutil.rmtree(parked)
            else:
                _move(parked, place)
                report(f"Put back the dataset that an interrupted run had set aside: {place}")
        if place.exists() and not overwrite:
            dataset = read_dataset(place)
            if dataset.metadata["fingerprint"] == inputs.fingerprint:
                return _reuse(dataset, report)
            if not inputs.generated:
                raise UserError(
                    f"{place} was prepared from other input (files, classes or options have changed since): "
                    "pass --overwrite to build it again, or choose another --name"
                )
            report(f"{place} was made by another version of mscaflax: building it again.")
        start = time.perf_counter()
        try:
            _build(inputs, staging, skip_bad, workers or default_workers(), report)
            _replace(staging / place.relative_to(root), place, parked)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        dataset = read_dataset(place)
        left_out = tuple(dataset.metadata["left_out"])
        seconds = time.perf_counter() - start
        counts = ", ".join(f"{split} {count}" for split, count in dataset.splits.items())
        report(f"Prepared {inputs.name} ({counts}) in {seconds:.0f} s: {place}")
        if left_out:
            report(f"Left out {len(left_out)} examples that cannot be used:")
            _list_problems(left_out, report)
        return Prepared(dataset, False, left_out, seconds)


def _reuse(dataset: Dataset, report: Callable[[str], None]) -> Prepared:
    left_out = tuple(dataset.metadata["left_out"])
    note = f"; it leaves out {len(left_out)} examples that could not be used" if left_out else ""
    report(f"{dataset.name} is already prepared and its input has not changed{note}: {dataset.path}")
    return Prepared(dataset, True, left_out, 0.0)


def _build(
    inputs: Inputs, staging: Path, skip_bad: bool, workers: int, report: Callable[[str], None]
) -> None:
    from mscaflax.data.builders import BadFilesError, LabelMapBuilder, tfds

    tfds.disable_progress_bar()
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    with bar:
        task = bar.add_task(f"preparing {inputs.name}", total=inputs.num_items)

        def results(split: str) -> Iterator:
            bar.update(task, description=f"preparing {inputs.name} {split}")
            for result in parallel_map(inputs.make, inputs.splits[split], workers):
                bar.advance(task)
                yield result
            # TFDS shuffles and writes the shards when a split's examples are at their end.
            bar.update(task, description=f"writing {inputs.name} {split}")

        builder = LabelMapBuilder(inputs=inputs, results=results, skip_bad=skip_bad, data_dir=staging)
        try:
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(register_checksums=False, try_download_gcs=False)
            )
        except BadFilesError as error:
            bar.stop()
            _list_problems(error.problems, report)
            raise


def _replace(new: Path, place: Path, parked: Path) -> None:
    """Moves the finished folder into its place; an older one stays in `parked` until that is done.

    Killed at any moment, either `place` or `parked` holds a whole dataset.
    """
    if place.exists():
        place.rename(parked)
    try:
        _move(new, place)
    except BaseException:
        if parked.exists() and not place.exists():
            parked.rename(place)
        raise
    shutil.rmtree(parked, ignore_errors=True)


def _move(folder: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(place)


def _list_problems(problems: tuple[str, ...], report: Callable[[str], None]) -> None:
    for problem in problems:
        report(f"  {problem}")


@contextlib.contextmanager
def _exclusive(lock: Path, name: str, report: Callable[[str], None]) -> Iterator[None]:
    """Holds a lock that the system frees when this process ends, however it ends."""
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open(lock, "w"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is preparing {name} in {lock.parent}: wait for it") from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise UserError(f"cannot lock {lock}: {error.strerror}: choose another --data_dir") from None
            report(
                f"The file system of {lock.parent} has no locks ({error.strerror}): "
                f"take care that no other process prepares {name} there."
            )
        yield

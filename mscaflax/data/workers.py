"""A map over worker processes that keeps order, bounds memory, and dies with its parent."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from typing import Any

from mscaflax.errors import UserError

_CHUNK = 8
_CHUNKS_PER_WORKER = 3


class Failure(str):
    """Why an item could not be used: the text of its UserError."""


def attempt(function: Callable[[Any], Any], item: Any) -> Any:
    """`function(item)`, or a Failure with the message of the UserError that it raised."""
    try:
        return function(item)
    except UserError as error:
        return Failure(error)


def default_workers() -> int:
    """As many processes as this one may use cores."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def parallel_map(function: Callable[[Any], Any], items: Iterable[Any], workers: int) -> Iterator[Any]:
    """Yields `attempt(function, item)` for every item, in order.

    Only a few items per worker are in flight, so results never pile up when the consumer is slow. Closing
    the iterator early drops what is not yet begun. With one worker everything runs in this process.

    Args:
        function: picklable; what it raises, other than UserError, is raised here.
        items: picklable.
        workers: number of processes.

    Raises:
        UserError: a worker process died.
    """
    if workers <= 1:
        yield from (attempt(function, item) for item in items)
        return
    # Spawned, not forked: the parent runs TensorFlow's threads, which do not survive a fork.
    context = multiprocessing.get_context("spawn")
    items = iter(items)
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool:
        pending = deque()
        try:
            while True:
                while len(pending) < workers * _CHUNKS_PER_WORKER and (chunk := list(islice(items, _CHUNK))):
                    pending.append(pool.submit(_run_chunk, function, chunk))
                if not pending:
                    return
                yield from pending.popleft().result()
        except BrokenProcessPool:
            raise UserError("a worker process died, perhaps for lack of memory: try --workers=1") from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _run_chunk(function: Callable[[Any], Any], chunk: list[Any]) -> list[Any]:
    return list(map(partial(attempt, function), chunk))


def _start_worker() -> None:
    # Ctrl-C reaches the whole process group; the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)

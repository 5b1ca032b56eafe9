"""The program `mscaflax COMMAND`, also as `python -m mscaflax COMMAND`."""

import os
import sys

from mscaflax.cli import main

# Commands that compute for minutes.
LONG = ("train", "segmenter", "evaluate")


def start_again_with_large_pages() -> None:
    """Starts a long command's process again, once, with the C library's memory in large pages.

    XLA on CPUs allocates and frees the arrays of every step, and with pages of 4 KB a fifth of a step is
    spent in page faults. glibc (2.35 and newer; others ignore it) takes the setting from the environment, as
    a process starts. Where the user has set GLIBC_TUNABLES, if only to nothing, all stays as it is.
    """
    if sys.platform != "linux" or "GLIBC_TUNABLES" in os.environ or sys.argv[1:2] not in ([c] for c in LONG):
        return
    os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def program() -> int:
    """Runs the command line of this process; returns its exit status."""
    start_again_with_large_pages()
    return main()


if __name__ == "__main__":
    sys.exit(program())

"""What no case may do: touch a file that it was not told to write, end without its output, or hang."""

import contextlib
import faulthandler
import os
import signal
import stat
import sys
import tempfile
import threading
from pathlib import Path


class Late(BaseException):
    """A case has not ended in its time; no `except Exception` of what is tried catches it."""


@contextlib.contextmanager
def limited(seconds, name):
    """Raises Late after so many seconds.

    Where that does not help, since the program waits in compiled code, it is ended a minute later, and
    the name of the case is printed with what all threads do.
    """

    def late(signum, frame):
        raise Late(f"it takes more than {seconds} s")

    def end():
        print(f"case {name} hangs:", file=sys.__stderr__, flush=True)
        faulthandler.dump_traceback(sys.__stderr__)
        os._exit(1)

    previous = signal.signal(signal.SIGALRM, late)
    last = threading.Timer(seconds + 60, end)
    last.daemon = True
    last.start()
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        last.cancel()


@contextlib.contextmanager
def surroundings(top):
    """Moves into `top` where programs write without being told: the working, home and temporary folders.

    Args:
      top: an absolute path.
    """
    here, home, temporary = (top / name for name in ("here", "home", "temporary"))
    for folder in (here, home, temporary):
        folder.mkdir(exist_ok=True)
    changed = {"HOME": str(home), "TMPDIR": str(temporary), "TFDS_DATA_DIR": None}
    before = {name: os.environ.get(name) for name in changed}
    set_variables(changed)
    tempfile.tempdir = None  # Python remembers where it once found it
    try:
        with contextlib.chdir(here):
            yield
    finally:
        set_variables(before)
        tempfile.tempdir = None


def set_variables(values):
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def listing(folder):
    """What lies below a folder, {path: what tells whether it was changed}; links are not followed."""
    found = {}
    for parent, folders, names in os.walk(folder):
        for path in (os.path.join(parent, name) for name in folders + names):
            about = os.lstat(path)
            # The times of a folder change with what it holds, which is listed itself.
            whole = about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns
            found[path] = "folder" if stat.S_ISDIR(about.st_mode) else whole
    return found


def changes(before, after):
    """The paths that were made, changed or removed between two listings, sorted."""
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))


def check_changes(line, status, changed):
    """Raises AssertionError where a command changed what its line does not name, or did not write its output.

    Args:
      line: of the command, each flag with its value in one item.
      status: with which it ended; only 0 allows an output.
      changed: the paths that it changed.
    """
    given = dict(item[2:].split("=", 1) for item in line if item.startswith("--") and "=" in item)
    if line[0] == "prepare":
        files, folders = _of_prepare(given["name"], Path(given["data_dir"]))
        folders = folders if status == 0 else []
    else:
        files = {os.path.abspath(given[key]) for key in ("output", "attention") if key in given}
        missing = [path for path in files if not os.path.isfile(path)]
        assert status or not missing, f"status 0 without the output {missing}"
        files, folders = files if status == 0 else set(), []
    stray = [path for path in changed if path not in files and not any(_in(path, place) for place in folders)]
    assert not stray, f"status {status}, and changed without being asked for: {', '.join(stray)}"


def _of_prepare(name, data):
    """(paths, folders) that it may change. Its lock stays: were it removed, two could hold one of a name."""
    if not name.isidentifier():
        return set(), []
    return {str(data), str(data / f".{name}.lock")}, [str(data / name)]


def _in(path, folder):
    return path == folder or path.startswith(folder + os.sep)

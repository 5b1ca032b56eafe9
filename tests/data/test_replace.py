"""How a dataset takes the place of another, and how runs that want the same place keep apart."""

import errno
import fcntl
import os
import subprocess
import sys

import pytest

from mscaflax.data.datasets import open_dataset
from mscaflax.data.inputs import folder_inputs, scenes_inputs
from mscaflax.data.prepare import prepare
from mscaflax.errors import UserError


def leftovers(data_dir):
    """What a data folder holds apart from the lock and the finished datasets."""
    return sorted(path.name for path in data_dir.iterdir() if not path.name.endswith(".lock"))


KILLED = """
import os, shutil, sys
from pathlib import Path
from mscaflax.data import prepare
setattr(shutil if sys.argv[1] == "rmtree" else prepare, sys.argv[1], lambda *a, **k: os._exit(9))
prepare._replace(*map(Path, sys.argv[2:]))
"""


@pytest.mark.parametrize(("killed_at", "survivor"), [("_move", "old"), ("rmtree", "new")])
def test_a_kill_while_a_new_dataset_takes_its_place_loses_none(tmp_path, make_folder, killed_at, survivor):
    inputs = {}
    for name, count in (("old", 1), ("new", 2)):
        inputs[name] = folder_inputs("made", **make_folder(tmp_path / name, {"train": count}))
        prepare(inputs[name], tmp_path / f"{name}_data", workers=1)
    data_dir = tmp_path / "old_data"
    place, parked = data_dir / "made/1.0.0", data_dir / ".made.replaced"
    paths = tmp_path / "new_data/made/1.0.0", place, parked
    # Between the two moves; or after both, before the old one is deleted.
    assert subprocess.run([sys.executable, "-c", KILLED, killed_at, *paths]).returncode == 9
    assert parked.exists() and place.exists() == (survivor == "new")
    said = []
    prepared = prepare(inputs[survivor], data_dir, workers=1, report=said.append)
    assert prepared.reused and prepared.dataset.splits == {"train": {"old": 1, "new": 2}[survivor]}
    assert any("had set aside" in line for line in said) == (survivor == "old")
    assert leftovers(data_dir) == ["made"]


def test_an_error_between_the_moves_puts_the_old_dataset_back(tmp_path, make_folder, monkeypatch):
    def fail(*paths):
        raise OSError("disk full")

    folders = make_folder(tmp_path, {"train": 1})
    prepare(folder_inputs("made", **folders), tmp_path / "data", workers=1)
    monkeypatch.setattr("mscaflax.data.prepare._move", fail)
    with pytest.raises(OSError, match="disk full"):
        prepare(folder_inputs("made", **folders), tmp_path / "data", workers=1, overwrite=True)
    assert open_dataset("made", tmp_path / "data").splits == {"train": 1}
    assert leftovers(tmp_path / "data") == ["made"]


def test_outdated_scenes_are_built_again_unasked(tmp_path, monkeypatch):
    said = []

    def prepare_scenes():
        inputs = scenes_inputs(counts={"train": 2}, size=(16, 32))
        return prepare(inputs, tmp_path, workers=1, report=said.append)

    assert not prepare_scenes().reused and prepare_scenes().reused
    monkeypatch.setattr("mscaflax.data.scenes.RENDERER_VERSION", 0)
    said.clear()
    assert not prepare_scenes().reused and prepare_scenes().reused
    assert "another version of mscaflax: building it again" in said[0]
    assert leftovers(tmp_path) == ["scenes"]


def test_two_runs_at_once_do_not_mix(tmp_path, make_folder):
    inputs = folder_inputs("made", **make_folder(tmp_path, {"train": 1}))
    (tmp_path / "data").mkdir()
    with open(tmp_path / "data/.made.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process is preparing made"):
            prepare(inputs, tmp_path / "data", workers=1)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_used_with_a_warning(tmp_path, make_folder, monkeypatch, number):
    def no_locks(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    said = []
    inputs = folder_inputs("made", **make_folder(tmp_path, {"train": 1}))
    prepare(inputs, tmp_path / "data", workers=1, report=said.append)
    assert f"has no locks ({os.strerror(number)})" in said[0] and "Prepared made" in said[1]
    number = errno.EIO
    with pytest.raises(UserError, match=r"cannot lock .*made\.lock: Input/output error"):
        prepare(inputs, tmp_path / "data", workers=1)

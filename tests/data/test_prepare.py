import dataclasses
import io
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mscaflax.data.builders import BadFilesError
from mscaflax.data.datasets import open_dataset
from mscaflax.data.inputs import coco_stuff_inputs, folder_inputs
from mscaflax.data.prepare import prepare
from mscaflax.errors import UserError


def leftovers(data_dir):
    """What a data folder holds apart from the lock and the finished datasets."""
    return sorted(path.name for path in data_dir.iterdir() if not path.name.endswith(".lock"))


def spoil(root):
    """Puts one fault of each kind into a folder with five photos in train."""
    images, maps = root / "images/train", root / "annotations/train"
    Image.fromarray(np.full((24, 32), 3, np.uint8)).save(maps / "train00.png")
    Image.fromarray(np.zeros((24, 31), np.uint8)).save(maps / "train01.png")
    photo = images / "train02.jpg"
    photo.write_bytes(photo.read_bytes()[:-30])
    (maps / "train03.png").unlink()
    return [
        f"{images}/train03.jpg: no label map",
        f"{maps}/train00.png: label id 3 at x=0, y=0 (768 pixels in all); allowed are 0..2, or 255",
        f"{maps}/train01.png: the label map is 31x24 but its photo {images}/train01.jpg is 32x24",
        f"{images}/train02.jpg: truncated or damaged",
    ]


def test_prepared_dataset_opens_with_everything_in_it(tmp_path, make_folder, labels, classes):
    inputs = folder_inputs("made", **make_folder(tmp_path, {"train": 3, "val": 2}))
    said = []
    prepared = prepare(inputs, tmp_path / "data", workers=1, report=said.append)
    assert not prepared.reused and prepared.left_out == ()
    assert said[0].startswith("Prepared made (train 3, val 2) in ")
    assert leftovers(tmp_path / "data") == ["made"]

    dataset = open_dataset("made", tmp_path / "data")
    assert dataset.name == "made" and dataset.classes == classes
    assert dataset.splits == {"train": 3, "val": 2}
    source = dataset.source("train")
    assert len(source) == 3
    examples = [source[i] for i in range(3)]
    assert sorted(example["name"] for example in examples) == ["train00", "train01", "train02"]
    for example in examples:
        assert example["image"] == (tmp_path / f"images/train/{example['name']}.jpg").read_bytes()
        label = np.asarray(Image.open(io.BytesIO(example["label"])))
        seed = int(example["name"][-1]) + 1
        np.testing.assert_array_equal(label, np.where(labels(seed) == 255, 3, labels(seed)))
    with pytest.raises(UserError, match="no split 'test'; it has train, val: .*val_split or --split"):
        dataset.source("test")


def test_no_temporary_file_is_left(tmp_path, make_folder, monkeypatch):
    inputs = folder_inputs("made", **make_folder(tmp_path, {"train": 1, "val": 1}))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    prepare(inputs, tmp_path / "data", workers=1)
    assert list(temporary.iterdir()) == []


def test_tfds_reads_it_without_our_code(tmp_path, make_folder):
    prepare(folder_inputs("made", **make_folder(tmp_path, {"train": 2})), tmp_path / "data", workers=1)
    code = (
        "import sys, tensorflow_datasets as tfds\n"
        f"builder = tfds.builder_from_directory({str(tmp_path / 'data/made/1.0.0')!r})\n"
        "example = builder.as_data_source('train')[0]\n"
        "assert example['image'].shape == (24, 32, 3) and example['label'].shape == (24, 32, 1)\n"
        "assert builder.info.metadata['mscaflax']['classes']['classes'] == ['sky', 'road', 'house']\n"
        "assert not any(name.startswith('mscaflax') for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_all_bad_files_are_listed_and_nothing_is_written(tmp_path, make_folder):
    folders = make_folder(tmp_path, {"train": 5, "val": 1})
    expected = spoil(tmp_path)
    # The last split is bad altogether: the others are checked all the same.
    Image.fromarray(np.full((24, 32), 7, np.uint8)).save(tmp_path / "annotations/val/val00.png")
    expected.append(f"{tmp_path}/annotations/val/val00.png: label id 7")
    said = []
    with pytest.raises(BadFilesError, match="5 of 6 examples cannot be used, so nothing") as error:
        prepare(folder_inputs("made", **folders), tmp_path / "data", workers=1, report=said.append)
    assert len(error.value.problems) == len(said) == len(expected)
    for problem, line, start in zip(error.value.problems, said, expected, strict=True):
        assert problem.startswith(start) and line == f"  {problem}"
    assert leftovers(tmp_path / "data") == []


def test_a_split_of_bad_files_does_not_hide_the_next_split(tmp_path, make_folder):
    folders = make_folder(tmp_path, {"a": 1, "b": 1})
    for split in "ab":
        Image.fromarray(np.full((24, 32), 7, np.uint8)).save(tmp_path / f"annotations/{split}/{split}00.png")
    inputs = folder_inputs("made", **folders)
    with pytest.raises(BadFilesError, match="2 of 2 examples"):
        prepare(inputs, tmp_path / "data", workers=1, report=lambda line: None)
    with pytest.raises(UserError, match="no example of the split 'a' can be used"):
        prepare(inputs, tmp_path / "data", workers=1, skip_bad=True, report=lambda line: None)
    assert leftovers(tmp_path / "data") == []


def test_skip_bad_leaves_them_out_and_says_how_many_and_which(tmp_path, make_folder):
    folders = make_folder(tmp_path, {"train": 5})
    expected = spoil(tmp_path)
    said = []
    inputs = folder_inputs("made", **folders)
    prepared = prepare(inputs, tmp_path / "data", workers=1, skip_bad=True, report=said.append)
    assert prepared.dataset.splits == {"train": 1}
    assert prepared.dataset.source("train")[0]["name"] == "train04"
    assert said[1] == "Left out 4 examples that cannot be used:"
    assert all(line.strip().startswith(start) for line, start in zip(said[2:], expected, strict=True))
    again = prepare(inputs, tmp_path / "data", workers=1, report=said.append)
    assert again.reused and again.left_out == prepared.left_out
    assert "it leaves out 4 examples" in said[-1]


def test_a_finished_dataset_is_reused_until_its_input_changes(tmp_path, make_folder):
    folders = make_folder(tmp_path, {"train": 2})
    said = []
    prepare(folder_inputs("made", **folders), tmp_path / "data", workers=1, report=said.append)
    records = next((tmp_path / "data/made/1.0.0").glob("*.array_record*"))
    written = records.stat().st_mtime_ns
    assert prepare(folder_inputs("made", **folders), tmp_path / "data", report=said.append).reused
    assert said[-1].startswith("made is already prepared and its input has not changed: ")
    assert records.stat().st_mtime_ns == written

    (tmp_path / "images/train/train01.jpg").unlink()
    (tmp_path / "annotations/train/train01.png").unlink()
    changed = folder_inputs("made", **folders)
    with pytest.raises(UserError, match="prepared from other input .* pass --overwrite"):
        prepare(changed, tmp_path / "data", report=said.append)
    prepared = prepare(changed, tmp_path / "data", workers=1, overwrite=True, report=said.append)
    assert prepared.dataset.splits == {"train": 1} and not prepared.reused
    assert leftovers(tmp_path / "data") == ["made"]


def test_a_failed_overwrite_keeps_the_old_dataset(tmp_path, make_folder):
    folders = make_folder(tmp_path, {"train": 5})
    prepare(folder_inputs("made", **folders), tmp_path / "data", workers=1)
    spoil(tmp_path)
    with pytest.raises(BadFilesError):
        prepare(folder_inputs("made", **folders), tmp_path / "data", workers=1, overwrite=True)
    assert open_dataset("made", tmp_path / "data").splits == {"train": 5}


def test_remains_of_a_killed_run_are_removed(tmp_path, make_folder):
    stale = tmp_path / "data/.made.incomplete/made/1.0.0"
    stale.mkdir(parents=True)
    (stale / "made-train.array_record-00000-of-00001").write_bytes(b"half")
    with pytest.raises(UserError, match="no dataset 'made'"):
        open_dataset("made", tmp_path / "data")
    said = []
    inputs = folder_inputs("made", **make_folder(tmp_path, {"train": 1}))
    prepare(inputs, tmp_path / "data", workers=1, report=said.append)
    assert said[0].startswith("Removed what an interrupted run left")
    assert leftovers(tmp_path / "data") == ["made"]


def test_an_interrupt_leaves_nothing_and_the_next_call_succeeds(tmp_path, make_folder):
    class Interrupting:
        """Makes examples until the third, then behaves like Ctrl-C."""

        def __init__(self, make):
            self.make, self.calls = make, 0

        def __call__(self, item):
            self.calls += 1
            if self.calls == 3:
                raise KeyboardInterrupt
            return self.make(item)

    inputs = folder_inputs("made", **make_folder(tmp_path, {"train": 4}))
    with pytest.raises(KeyboardInterrupt):
        prepare(dataclasses.replace(inputs, make=Interrupting(inputs.make)), tmp_path / "data", workers=1)
    assert leftovers(tmp_path / "data") == []
    assert not prepare(inputs, tmp_path / "data", workers=1).reused


def test_wrong_arguments(tmp_path, make_folder):
    inputs = folder_inputs("made", **make_folder(tmp_path, {"train": 1}))
    with pytest.raises(UserError, match=r"'my-data' cannot name a dataset: use small letters"):
        prepare(dataclasses.replace(inputs, name="my-data"), tmp_path / "data")
    with pytest.raises(
        UserError, match=r"gs://bucket/sets is a bucket.*gcloud storage cp -r DIR/made gs://bucket"
    ):
        prepare(inputs, "gs://bucket/sets")
    with pytest.raises(UserError, match="--workers=0: give at least 1"):
        prepare(inputs, tmp_path / "data", workers=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot use .*file for datasets"):
        prepare(inputs, tmp_path / "file")


def test_open_dataset_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(UserError, match=r"mscaflax prepare --name=scenes --data_dir=/") as error:
        open_dataset("scenes", tmp_path)
    message = str(error.value)
    assert str(tmp_path) in message and "--data_dir=DIR" in message
    assert "for `mscaflax train` --config.data.data_dir=DIR" in message
    with pytest.raises(UserError, match="--name=mine --images=DIR --annotations=DIR --classes=FILE"):
        open_dataset("mine", tmp_path)
    with pytest.raises(UserError, match="--name=coco_stuff --source=DIR"):
        open_dataset("coco_stuff", tmp_path)


def test_default_data_dir_is_that_of_tfds(tmp_path, monkeypatch, make_folder):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "sets"))
    prepare(folder_inputs("made", **make_folder(tmp_path, {"train": 1})), workers=1)
    assert open_dataset("made").path == str(tmp_path / "sets/made/1.0.0")


def test_coco_stuff_of_the_shared_photos(tmp_path, shared_data):
    inputs = coco_stuff_inputs("coco_stuff", shared_data / "coco_stuff")
    dataset = prepare(inputs, tmp_path, workers=1).dataset
    assert dataset.splits == {"train": 13, "val": 4} and dataset.classes.num_classes == 182
    for example in dataset.source("val"):
        label = np.asarray(Image.open(io.BytesIO(example["label"])))
        original = shared_data / "coco_stuff/stuffthingmaps/val2017" / f"{example['name']}.png"
        original = np.asarray(Image.open(original))
        np.testing.assert_array_equal(label, np.where(original == 255, 182, original))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["facade", "camvid"])
def test_the_shared_folders_in_parallel(tmp_path, shared_data, name):
    folder = shared_data / name
    inputs = folder_inputs(name, folder / "images", folder / "annotations", folder / "classes.json")
    dataset = prepare(inputs, tmp_path, workers=2).dataset
    assert dataset.splits["train"] == {"facade": 700, "camvid": 367}[name]


def command(folders, data_dir, *options):
    return [
        sys.executable, "-m", "mscaflax", "prepare", "--name=made", f"--images={folders['images']}",
        f"--annotations={folders['annotations']}", f"--classes={folders['classes_file']}",
        f"--data_dir={data_dir}", *options,
    ]  # fmt: skip


@pytest.mark.slow
def test_command_lists_problems_and_exits_with_2(tmp_path, make_folder):
    folders = make_folder(tmp_path, {"train": 5})
    spoil(tmp_path)
    process = subprocess.run(command(folders, tmp_path / "data"), capture_output=True, text=True)
    assert process.returncode == 2
    assert "train00.png: label id 3" in process.stdout
    assert "mscaflax: error: 4 of 5 examples cannot be used" in process.stderr
    skipping = command(folders, tmp_path / "data", "--skip_bad")
    process = subprocess.run(skipping, capture_output=True, text=True)
    assert process.returncode == 0 and "Left out 4 examples" in process.stdout


@pytest.mark.slow
@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_in_the_middle_of_a_parallel_run(tmp_path, make_folder, kill):
    folders = make_folder(tmp_path, {"train": 3000})
    data_dir = tmp_path / "data"
    program = command(folders, data_dir, "--workers=2")
    # Where the tests run in the background of a shell, Ctrl-C is ignored, and what they start inherits that.
    heed = "import os, signal, sys; signal.signal(2, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
    program = [sys.executable, "-c", heed, *program]
    process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    staging = data_dir / ".made.incomplete"
    # The two workers, and the process by which Python tracks what they share.
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + 120
    while len(workers := children.read_text().split()) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(workers) == 3 and staging.exists()
    time.sleep(0.1)
    process.send_signal(kill)
    process.wait(timeout=60)
    assert process.returncode == (-signal.SIGKILL if kill == signal.SIGKILL else 130)
    assert not (data_dir / "made").exists()
    assert staging.exists() == (kill == signal.SIGKILL)
    deadline = time.monotonic() + 20
    while any(map(running, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(running, workers))
    rerun = subprocess.run(command(folders, data_dir), capture_output=True, text=True)
    assert rerun.returncode == 0, rerun.stderr
    assert ("Removed what an interrupted run left" in rerun.stdout) == (kill == signal.SIGKILL)
    assert open_dataset("made", data_dir).splits == {"train": 3000}


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False

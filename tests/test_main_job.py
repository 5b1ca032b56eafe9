"""The main job, as a person does it: a folder of photos with label maps becomes a model and a picture."""

import json
import os
import pty
import re
import subprocess
import sys

import numpy as np
import pytest
from absl import logging as absl_logging
from documented import commands_of
from PIL import Image

from mscaflax import cli
from mscaflax.data.images import read_photo


@pytest.fixture(autouse=True)
def logger_as_before():
    """`train` sets the logger up for a program of its own; other tests have it as it was."""
    logger = absl_logging.get_absl_logger()
    handlers, propagate, verbosity = logger.handlers, logger.propagate, absl_logging.get_verbosity()
    yield
    logger.handlers, logger.propagate = handlers, propagate
    absl_logging.set_verbosity(verbosity)


def program(*arguments, **options):
    """Runs `python -m mscaflax` with `arguments`; returns it done."""
    command = [sys.executable, "-m", "mscaflax", *map(str, arguments)]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, **options)


def prepare_arguments(photo_folder, data_dir):
    return [
        "prepare", "--name=photos", f"--images={photo_folder}/images", "--workers=1",
        f"--annotations={photo_folder}/annotations", f"--classes={photo_folder}/classes.json",
        f"--data_dir={data_dir}",
    ]  # fmt: skip


@pytest.fixture
def synthesize_arguments(photo_folder, tmp_path):
    """Arguments of `synthesize` but the workdir: the layout of one photo, another one as the exemplar."""
    return [
        f"--label={photo_folder}/annotations/val/0.png",
        f"--exemplar={photo_folder}/images/val/1.png",
        f"--exemplar_label={photo_folder}/annotations/val/1.png",
        f"--output={tmp_path}/picture.png",
    ]


# What keeps the five commands of the page short enough for a test.
SHORTER = {
    "prepare": ["--workers=1"],
    "train": ["--config.train.steps=4"],
    "segmenter": ["--steps=2"],
    "evaluate": ["--pairs=4"],
    "synthesize": [],
}


@pytest.mark.slow
def test_from_a_folder_of_photos_to_a_picture_as_the_page_says(photo_folder, tmp_path):
    """The commands of docs/own_photos.md as they stand there, but for the config of toy networks."""
    commands = [command for command in commands_of("docs/own_photos.md") if command[0] in SHORTER]
    assert [name for name, _ in commands] == list(SHORTER)
    (tmp_path / "photos").symlink_to(photo_folder)
    Image.open(photo_folder / "annotations/val/0.png").save(tmp_path / "layout.png")
    Image.open(photo_folder / "images/val/1.png").convert("RGB").save(tmp_path / "photo.jpg")
    place = {"cwd": tmp_path, "env": os.environ | {"TFDS_DATA_DIR": str(tmp_path / "data")}}
    said = {}
    for name, arguments in commands:
        arguments = ["--config=tiny" if item == "--config=photos64" else item for item in arguments]
        done = program(name, *arguments, *SHORTER[name], **place)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr and "WARNING" not in done.stderr, done.stderr
        said[name] = done
    results = tmp_path / "runs/mine/evaluation"
    assert "Prepared mine (train 8, val 4)" in said["prepare"].stdout
    lines = said["train"].stderr.splitlines()
    assert len(lines) == len(set(lines)) and sum(" of 4  " in line for line in lines) == 2
    assert all(
        re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (step \d of 4  |compiling)", line) for line in lines
    ), lines
    report = json.loads((results / "metrics.json").read_text())
    assert report["step"] == 4 and report["segmenter"]["step"] == 2
    assert 0 <= report["segmentation"]["real"]["pixel_accuracy"]["mean"] <= 1
    assert "No segmentation scores" not in said["evaluate"].stdout
    assert {path.name for path in results.iterdir()} == {
        "metrics.json", "pairs.json", "values.json", "table.md", "grid.png"
    }  # fmt: skip
    picture = read_photo(tmp_path / "picture.png")
    assert picture.shape == (64, 128, 3) and picture.std() > 2
    assert said["synthesize"].stdout == "picture.png\n"
    # The exemplar has no label map there.
    assert said["synthesize"].stderr.count("\n") == 1 and "segmenter guesses" in said["synthesize"].stderr
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_trained_model_is_evaluated(tiny_run, tmp_path, capsys):
    results = tmp_path / "results"
    arguments = [f"--workdir={tiny_run}", f"--output={results}", "--pairs=4", "--batch_size=4"]
    assert cli.main(["evaluate", *arguments]) == 0
    report = json.loads((results / "metrics.json").read_text())
    assert report["step"] == 4 and report["config"]["train"]["steps"] == 4
    assert (results / "grid.png").exists() and "PSNR" in capsys.readouterr().out


@pytest.mark.slow
def test_neither_devices_nor_batches_change_an_evaluation(tiny_run, tmp_path):
    counting = (
        "import sys, jax; from mscaflax.cli import main\n"
        "assert main(sys.argv[2:]) == 0 and jax.device_count() == int(sys.argv[1])"
    )
    arguments = ["evaluate", f"--workdir={tiny_run}", "--pairs=11"]
    reports = {}
    for name, devices, size in (("one", 1, 4), ("again", 1, 4), ("eight", 8, 5)):
        extra = [f"--output={tmp_path / name}", f"--batch_size={size}", f"--cpu_devices={devices}"]
        subprocess.run([sys.executable, "-c", counting, str(devices), *arguments, *extra], check=True)
        reports[name] = json.loads((tmp_path / name / "metrics.json").read_text())
        assert reports[name].pop("seconds") > 0
    assert reports["one"] == reports["again"]
    assert far_apart(reports["one"], reports["eight"]) == []


def far_apart(expected, found):
    """The keys of two reports whose numbers differ by more than 1e-5, or whose texts differ."""
    expected, found = dict(walk_numbers(expected)), dict(walk_numbers(found))
    assert found.keys() == expected.keys() and len(found) > 100
    return [
        key
        for key, value in expected.items()
        if found[key] != (pytest.approx(value, rel=1e-5, abs=1e-5) if isinstance(value, float) else value)
    ]


def walk_numbers(value, key=""):
    """("key/key/...", leaf) of a JSON value."""
    if not isinstance(value, (dict, list)):
        yield key, value
        return
    for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield from walk_numbers(inner, f"{key}/{name}")


def test_a_picture_from_the_command_line(tiny_run, synthesize_arguments, tmp_path):
    done = program("synthesize", f"--workdir={tiny_run}", *synthesize_arguments, "--seed=3")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{tmp_path}/picture.png\n", "")
    assert read_photo(tmp_path / "picture.png").shape == (64, 128, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


def test_the_attention_from_the_command_line(tiny_run, synthesize_arguments, tmp_path, capsys):
    files = [tmp_path / "picture.png", tmp_path / "attention.png"]
    attention = [f"--attention={files[1]}", "--attention_scale=2"]
    assert cli.main(["synthesize", f"--workdir={tiny_run}", *synthesize_arguments, *attention]) == 0
    assert capsys.readouterr().out.splitlines() == [str(file) for file in files]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    drawn = read_photo(files[1])
    assert read_photo(files[0]).shape == (64, 128, 3) and drawn.shape[1] > 4 * 128
    # Of the four regions, two lie beside each other.
    one_row = [*attention, "--attention_regions=2"]
    assert cli.main(["synthesize", f"--workdir={tiny_run}", *synthesize_arguments, *one_row]) == 0
    assert len(read_photo(files[1])) < len(drawn)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("--workdir=missing", "missing holds no trained model: make one with `mscaflax train`"),
        ("--label=missing.png", "missing.png: cannot be read: No such file or directory"),
        ("--exemplar={classes}", "classes.json: not an image in a known format"),
        ("--exemplar_label={photo}", "is not in the palette; allowed are the colours of its 12 classes"),
        (
            "--exemplar_label={half}",
            "(upright, as its EXIF data says), its label map 64x32: give a map of equal size",
        ),
        ("--output={folder}/picture.jpg", "picture.jpg must end in .png"),
        ("--output={folder}/none/picture.png", "cannot be written: choose a file in a folder that exists"),
        ("--attention={folder}/picture.png", "name the same file: give two"),
        ("--attention={folder}/attention.gif", "--attention={folder}/attention.gif must end in .png"),
        ("--attention_scale=1", "--attention_scale says something about --attention=PNG alone"),
        ("--attention_regions=4", "--attention_regions says something about --attention=PNG alone"),
        (
            "--attention={folder}/attention.png --attention_regions=0",
            "--attention_regions=0 draws none: give 1 or more",
        ),
        ("--step=3", "has no checkpoint of step 3: it holds steps 2, 4"),
        ("--step=x", "--step: invalid int value: 'x'"),
        ("--seed=-1", "argument --seed: -1 is outside 0..4294967295"),
    ],
)
def test_bad_input_of_synthesize_is_one_line(
    changed, message, tiny_run, photo_folder, synthesize_arguments, tmp_path, capsys
):
    Image.fromarray(np.zeros((32, 64), np.uint8)).save(tmp_path / "half.png")
    names = {
        "classes": photo_folder / "classes.json",
        "photo": photo_folder / "images/val/1.png",
        "half": tmp_path / "half.png",
        "folder": tmp_path,
    }
    arguments = [f"--workdir={tiny_run}", *synthesize_arguments, *changed.format(**names).split()]
    assert cli.main(["synthesize", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("mscaflax: error: ")
    assert message.format(**names) in err
    assert not (tmp_path / "picture.png").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("--config.data.name=scenes", "make it with: mscaflax prepare --name=scenes --data_dir="),
        ("--config.data.name=streets", "mscaflax prepare --name=streets --images=DIR --annotations=DIR"),
        ("--config.data.name=Streets", "'Streets' cannot name a dataset"),
        ("--config.data.train_split=all", "the dataset photos has no split 'all'; it has train, val"),
        ("--config.data.val_split=test", "the dataset photos has no split 'test'; it has train, val"),
        ("--config.data.size=40", "config.data.size is 40; it must be a multiple of 16, at least 32"),
        ("--config.model.modulation=x", "config.model.modulation is 'x'; choose one of spade, decoupled"),
        ("--config.model.num_regions=0", "config.model.num_regions is 0"),
        ("--config.train.batch_size=0", "config.train.batch_size is 0; give a positive multiple"),
        ("--config.train.stepz=3", "did you mean --config.train.steps?"),
        ("--config.data.side_range=(0.9,0.1)", "side_range"),
        ("--config.train.log_every=0", "config.train.log_every is 0"),
        ("--config.train.checkpoint_every=-1", "config.train.checkpoint_every is -1"),
        ("--config.train.keep_checkpoints=0", "config.train.keep_checkpoints is 0"),
        ("--config.train.statistics_photos=0", "config.train.statistics_photos is 0"),
        ("--config.train.steps=0", "config.train.steps is 0"),
        ("--config.train.sample_every=-1", "config.train.sample_every is -1; it must be at least 0"),
    ],
)
def test_bad_input_of_train_is_one_line(changed, message, tiny_arguments, tmp_path, capsys):
    assert cli.main(["train", f"--workdir={tmp_path}/run", *tiny_arguments, changed]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.startswith("mscaflax: error: ") and message in err, err
    assert not list((tmp_path / "run").glob("checkpoints/*"))


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (["--num_processes=2"], "give --coordinator_address, --num_processes and --process_id together"),
        (["--coordinator_address=host", "--num_processes=2", "--process_id=0"], "must be HOST:PORT"),
        (["--coordinator_address=host:1", "--num_processes=2", "--process_id=2"], "process 2 of 2 does not"),
    ],
)
def test_a_process_that_has_no_place_is_told_so(place, message, tiny_arguments, tmp_path, capsys):
    assert cli.main(["train", f"--workdir={tmp_path}/run", *tiny_arguments, *place]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and message in err, err
    assert not (tmp_path / "run").exists()


def test_a_workdir_with_another_config_is_refused(tiny_run, tiny_arguments):
    files = {path: path.stat().st_mtime_ns for path in tiny_run.rglob("*") if path.name != ".lock"}
    done = program("train", f"--workdir={tiny_run}", *tiny_arguments, "--config.model.num_regions=5")
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert done.stderr.startswith("mscaflax: error: ")
    assert "another config (model.num_regions: 4 != 5): choose another --workdir" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in tiny_run.rglob("*") if path.name != ".lock"} == files


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("--workdir=missing", "missing holds no trained model"),
        ("--data_dir={folder}", "no dataset 'photos' in {folder}; make it with: mscaflax prepare"),
        ("--split=test", "the dataset photos has no split 'test'"),
        ("--split=val[:0]", "'val[:0]' is not a slice of a split of photos, or is empty"),
        ("--segmenter_seed=5", "holds no segmenter of seed 5: make it with `mscaflax segmenter"),
        ("--step=9", "has no checkpoint of step 9"),
        ("--output={folder}/file", "is not a folder: choose another"),
        ("--overlap_pairs=3", "--overlap_pairs needs the true answers, which photos does not have"),
        ("--inception={folder}/file", "{folder}/file"),
    ],
)
def test_bad_input_of_evaluate_is_one_line(changed, message, tiny_run, tmp_path, capsys):
    (tmp_path / "file").touch()
    arguments = [f"--workdir={tiny_run}", f"--output={tmp_path}/results", "--pairs=2"]
    assert cli.main(["evaluate", *arguments, changed.format(folder=tmp_path)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and message.format(folder=tmp_path) in err, err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rate", "step", "kept"),
    [
        ("1e30", 1, "nothing was saved yet: begin again"),
        # The first step's numbers are finite, and what it makes of the parameters gives no image.
        (
            "1e10",
            2,
            "checkpoint of step 1 gives that loss and was set aside in damaged/; no other was saved: begin",
        ),
    ],
)
def test_exploding_rates_end_with_one_line(rate, step, kept, tiny_arguments, tmp_path):
    arguments = [f"--config.optimizer.generator_rate={rate}", "--config.train.checkpoint_every=1"]
    done = program("train", f"--workdir={tmp_path}/run", *tiny_arguments, *arguments)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert re.match(rf"mscaflax: error: step {step}: .+ = (nan|inf|-inf)\b", last) and kept in last, last
    assert not list((tmp_path / "run/checkpoints").iterdir())
    assert [path.name for path in (tmp_path / "run").glob("damaged/*")] == ["1"] * (step > 1)


@pytest.mark.slow
def test_a_terminal_sees_a_bar(tiny_arguments, tmp_path):
    master, terminal = pty.openpty()
    command = [sys.executable, "-m", "mscaflax", "train", f"--workdir={tmp_path}/run", *tiny_arguments]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    with subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment
    ) as program:
        os.close(terminal)
        shown = b""
        try:
            while block := os.read(master, 65536):
                shown += block
        except OSError:
            pass  # What Linux says when the other side is closed.
    os.close(master)
    text = shown.decode()
    assert program.returncode == 0, text
    assert "training" in text and "compiling" in text and "4/4" in text and "pairs/s" in text
    assert "Traceback" not in text and text.count("4/4") < 40

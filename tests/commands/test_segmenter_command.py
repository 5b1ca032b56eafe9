import contextlib
import io
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from absl import logging as absl_logging

from mscaflax.cli import main
from mscaflax.data.datasets import open_dataset
from mscaflax.data.images import read_photo
from mscaflax.data.pipeline import evaluation_pairs
from mscaflax.training.segmenter import load_segmenter, segmenter_folder


@pytest.fixture(scope="module", autouse=True)
def logger_as_before():
    """The command sets the logger up for a program of its own; other tests have it as it was."""
    logger = absl_logging.get_absl_logger()
    handlers, propagate, verbosity = logger.handlers, logger.propagate, absl_logging.get_verbosity()
    yield
    logger.handlers, logger.propagate = handlers, propagate
    absl_logging.set_verbosity(verbosity)


@pytest.fixture(scope="module")
def scored(segmenter_run, tmp_path_factory):
    """A copy of `segmenter_run`, and what the command says when it scores it."""
    workdir = tmp_path_factory.mktemp("scored") / "run"
    shutil.copytree(segmenter_run, workdir)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert main(["segmenter", f"--workdir={workdir}"]) == 0
    return workdir, said.getvalue().splitlines()


def test_a_trained_segmenter_is_scored_on_frozen_patches(scored, coloured_photos):
    scored, said = scored
    folder = segmenter_folder(scored, 0)
    scores = json.loads((folder / "scores.json").read_text())
    assert said[0] == (
        f"pixel accuracy {scores['pixel_accuracy']:.4f}, mean IoU {scores['mean_iou']:.4f} "
        "(8 patches of coloured val)"
    )
    assert said[1].split() == ["red", f"{scores['class_iou']['red']:.4f}"]
    assert said[4].split() == ["never", "does", "not", "occur"]
    assert said[5:] == [str(folder / "scores.json"), str(folder / "sample.png")]
    assert read_photo(folder / "sample.png").shape[1] > 3 * 128
    assert (scores["step"], scores["seed"], scores["size"]) == (40, 0, 32)

    # The same number by another way: the pairs as the pipeline gives them, pixels counted one by one.
    segmenter = load_segmenter(scored)
    assert segmenter.scores == scores
    source = open_dataset("coloured", coloured_photos).source("val")
    pairs = evaluation_pairs(source, count=4, size=32, num_classes=4, seed=0)
    right = labelled = 0
    for image, label in (("image", "label"), ("exemplar", "exemplar_label")):
        predicted = segmenter.predict(np.rint((pairs[image] + 1) * 127.5) / 127.5 - 1)
        right += ((predicted == pairs[label]) & (pairs[label] < 4)).sum()
        labelled += (pairs[label] < 4).sum()
    assert 0 < labelled < 8 * 32 * 32
    assert scores["pixel_accuracy"] == pytest.approx(right / labelled, abs=2e-3)
    assert scores["pixel_accuracy"] > 0.9 and scores["mean_iou"] > 0.8


def test_scoring_again_gives_the_same_bytes(scored):
    scored, _ = scored
    file = segmenter_folder(scored, 0) / "scores.json"
    before = file.read_bytes()
    assert main(["segmenter", f"--workdir={scored}"]) == 0
    assert file.read_bytes() == before
    assert not [path for path in file.parent.iterdir() if path.name.startswith(".scores")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workdir=missing"], "missing holds no trained model: make one with `mscaflax train`"),
        (["--workdir={run}", "--steps=0"], "0 is not above 0"),
        (["--workdir={run}", "--rate=0"], "0 is not above 0"),
        (["--workdir={run}", "--rate=0.02"], "segmenter.rate: 0.01 != 0.02): choose another --seed"),
        (["--workdir={run}", "--seed=-1"], "-1 is outside 0..4294967295"),
        (["--workdir={run}", "--batch_size=3"], "config.segmenter.batch_size (--batch_size) is 3"),
        (["--workdir={run}", "--steps=41"], "segmenter.steps: 40 != 41): choose another --seed"),
        (["--workdir={run}", "--data_dir={run}"], "no dataset 'coloured' in {run}; make it with"),
        ([], "--workdir"),
    ],
)
def test_bad_input_is_one_line(arguments, message, segmenter_run, capsys):
    assert main(["segmenter", *(argument.format(run=segmenter_run) for argument in arguments)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and message.format(run=segmenter_run) in err, err


def test_a_dataset_of_other_classes_is_refused(segmenter_run, tmp_path, capsys):
    for name in ("config.json", "classes.json"):
        shutil.copy(segmenter_run / name, tmp_path)
    classes = tmp_path / "classes.json"
    classes.write_text(classes.read_text().replace("never", "always"))
    assert main(["segmenter", f"--workdir={tmp_path}"]) == 2
    assert "the dataset coloured has other classes than the model in" in capsys.readouterr().err
    assert not (tmp_path / "segmenter").exists()


@pytest.mark.slow
def test_a_second_segmenter_lives_beside_the_first(scored):
    scored, _ = scored
    command = [sys.executable, "-m", "mscaflax", "segmenter", f"--workdir={scored}", "--seed=1", "--steps=3"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "WARNING" not in done.stderr, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == len(set(lines)) and sum("  cross entropy " in line for line in lines) == 2
    assert done.stdout.startswith("pixel accuracy ")
    folders = [path.name for path in (scored / "segmenter").iterdir()]
    assert sorted(folders) == ["seed0", "seed1"]
    second = load_segmenter(scored, 1)
    assert (second.seed, second.step) == (1, 3)
    assert second.scores["patches_sha256"] == json.loads(
        (segmenter_folder(scored, 0) / "scores.json").read_text()
    ).get("patches_sha256")

import json
import re
import statistics
import types

import pytest
from ml_collections import ConfigDict
from PIL import Image

from mscaflax.data.grids import picture_grid
from mscaflax.evaluation import protocol, report
from mscaflax.evaluation.batches import Batches
from mscaflax.evaluation.protocol import Judges
from mscaflax.evaluation.tables import table

MODEL = types.SimpleNamespace(step=5, config=ConfigDict({"data": {"size": 12}}))


def mean_colour(images):
    return images.mean((1, 2)) / 255


def brightness(images):
    return (images.mean(-1) > 0).astype(int)


@pytest.fixture(scope="module")
def evaluation(pairs, painter):
    judges = Judges(extractors={"inception": mean_colour}, predict=brightness)
    return protocol.evaluate(painter(), pairs, 3, batches=Batches(4), judges=judges)


@pytest.fixture
def value(pairs, evaluation):
    return report.assemble(evaluation, pairs, photos=7, model=MODEL, seconds=1.26)


def test_report_files(pairs, evaluation, value, toy_classes, tmp_path):
    assert value["seconds"] == 1.3 and value["pairs"]["sha256"] == pairs.sha256() and value["versions"]["jax"]
    grid = picture_grid(report.grid_columns(pairs, evaluation, toy_classes, rows=3), min_cell=12)
    text = table(value, "runs/toy")
    values = report.values_json(evaluation, pairs, {})
    report.write_report(tmp_path, value, text, pairs.to_json(), values, grid)
    assert {p.name for p in tmp_path.iterdir()} == {
        "metrics.json", "pairs.json", "values.json", "table.md", "grid.png"
    }  # fmt: skip
    values = json.loads((tmp_path / "values.json").read_text())
    assert values["photos"] == pairs.photos.tolist() and values["pairs_sha256"] == pairs.sha256()
    assert values["exemplars"] == {
        "retrieved": pairs.photos[pairs.retrieved].tolist(),
        "random": pairs.photos[pairs.triples[:, 1]].tolist(),
    }
    for metric, mean in value["metrics"]["cross"].items():
        if metric != "n":
            assert statistics.mean(values["metrics"]["cross"][metric]) == pytest.approx(
                mean["mean"], abs=2e-6
            )
    assert json.loads((tmp_path / "metrics.json").read_text()) == value
    assert (tmp_path / "table.md").read_text() == text
    assert (tmp_path / "pairs.json").read_text() == pairs.to_json()
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.size[0] == 8 * (12 + 6) + 6


def test_tables(value):
    value["swap"]["real"] = {"n": 7, "counted": 0, "half_n": 4, "all": None, "half": None}
    text = table(value, "runs/toy")
    assert "| the other patch of the photo | 7 |" in text and "100.0% (100.0%–100.0%)" in text
    assert "| real patches | 0 of 7 | – | – |" in text
    assert "| random: any other photo | 7 | – | – |" in text
    assert "| images | pixel accuracy ↑ | mIoU ↑ | mIoU lost against the other patch ↓ |" in text
    assert re.search(r"\| real targets \| [0-9.]+% \([0-9.]+%–[0-9.]+%\) \| .* \| – \|\n", text)
    assert "| exemplar | n | FID ↓ | KID on Inception-v3 ↓ |" in text
    assert "| real targets | " in text and "No segmentation scores" not in text
    assert "true answer" not in text
    # Every row of a table has as many cells as its title.
    for block in text.split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) <= 1, block


def test_a_warning_stands_below_the_distances_once(value):
    for found in value["distances"].values():
        found["inception"]["warning"] = "few images"
    assert table(value, "runs/toy").count("Beware: few images.") == 1


def test_weights_of_another_file_are_said(value):
    assert value["inception"] is None
    for original in (True, False):
        text = table(value | {"inception": {"sha256": "ab12", "original": original}}, "runs/toy")
        assert ("another file than pytorch-fid's (SHA-256 ab12)" in text) == (not original)


def test_what_is_missing_is_said(value):
    text = table(value | {"segmentation": None, "swap": None, "distances": None}, "runs/toy")
    assert "No segmentation scores: train a segmenter by `mscaflax segmenter --workdir=runs/toy`" in text
    assert "three different photos" in text and "FID" not in text


def test_truth_has_two_rows_for_each_kind(value):
    number = {"mean": 0.5, "low": 0.4, "high": 0.6}
    row = {"n": 7, "known_pixels": number, "psnr": number, "masked_psnr": None}
    text = table(value | {"truth": {"random": row}}, "runs/toy")
    assert "| random: any other photo | all | 7 | 0.50 (0.40–0.60) |" in text
    assert "| random: any other photo | known, 50% | 0 | – |" in text


def test_grid_shows_every_kind_and_the_truth(pairs, evaluation, toy_classes):
    titles = [c.title for c in report.grid_columns(pairs, evaluation, toy_classes)]
    assert titles == [
        "label map", "target", "its other patch as exemplar", "output", "retrieved exemplar", "output",
        "random exemplar", "output",
    ]  # fmt: skip
    truth = {kind: evaluation.outputs[kind] for kind in ("retrieved", "random")}
    columns = report.grid_columns(pairs, evaluation, toy_classes, truth, rows=2)
    assert [c.title for c in columns].count("truth") == 2 and columns[-1].title == "truth"
    assert all(len(c.images) == 2 for c in columns)

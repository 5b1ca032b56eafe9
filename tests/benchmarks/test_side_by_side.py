"""Evaluations in one table."""

import copy
import json
import sys

import pytest


@pytest.fixture(scope="module")
def script(benchmark_script):
    return benchmark_script("side_by_side")


def numbers(shift=0.0, pairs="a"):
    def mean(value):
        return {"mean": value + shift, "low": value + shift - 1, "high": value + shift + 1}

    return {
        "pairs": {"n": 7, "sha256": pairs},
        "metrics": {"cross": {"n": 7, "psnr": mean(11.0)}, "random": {"n": 7, "style_relevance": mean(0.5)}},
        "truth": {"random": {"psnr": mean(22.0)}},
        "overlap": {"under a third": {"n": 3, "psnr": mean(33.0)}},
        "true_answers": {"random": {"n": 7, "style_relevance": mean(0.75)}},
        "segmentation": {"real": {"mean_iou": {"mean": 0.5, "low": 0.25, "high": 0.75}}}
        | {"cross": {"mean_iou": mean(0.25)}},
        "distances": {"random": {"vgg16": {"frechet": 44.0 + shift, "warning": "too few images"}}},
        "swap": {"outputs": {"all": mean(0.75)}},
    }


def test_every_kind_and_metric_has_its_cell(script):
    lines = script.table({"one": numbers(), "two": numbers(1.0)})
    assert lines[1:] == [
        "| exemplar | n | PSNR, dB ↑ | style relevance ↑ | mIoU ↑ | Fréchet on VGG-16 ↓ |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| the real pictures | 7 | – | – | 0.500 | – |",
        "| the true answers to random: one | 7 | – | 0.750 | – | – |",
        "| the true answers to random: two | 7 | – | 1.750 | – | – |",
        "| the other patch: one | 7 | 11.00 | – | 0.250 | – |",
        "| the other patch: two | 7 | 12.00 | – | 1.250 | – |",
        "| random: one | 7 | 22.00 | 0.500 | – | 44.00 |",
        "| random: two | 7 | 23.00 | 1.500 | – | 45.00 |",
        "| under a third: one | 3 | 33.00 | – | – | – |",
        "| under a third: two | 3 | 34.00 | – | – | – |",
        "",
        "Swap test: one 75.0%, two 175.0%.",
        "",
        "Beware: too few images.",
    ]


def test_a_photo_has_no_truth_and_a_metric_may_have_its_interval(script):
    photo = copy.deepcopy(numbers()) | {
        "truth": None,
        "true_answers": None,
        "overlap": None,
        "distances": None,
    }
    table = script.table({"one": photo}, intervals=True)
    assert "| the other patch: one | 7 | 11.00 (10.00–12.00) | – | 0.250 (-0.750–1.250) |" in table
    assert not any("22.00" in line for line in table)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("two=NOWHERE", "NOWHERE holds no evaluation"),
        ("NOWHERE", "give NAME=FOLDER"),
        ("two={}", "different pairs"),
    ],
)
def test_what_cannot_be_shown(script, second, message, tmp_path, monkeypatch, capsys):
    for name, pairs in (("one", "a"), ("two", "b")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text(json.dumps(numbers(pairs=pairs)))
    second = second.format(tmp_path / "two")
    monkeypatch.setattr(sys, "argv", ["side_by_side.py", f"one={tmp_path / 'one'}", second])
    with pytest.raises(SystemExit):
        script.main()
    assert message in capsys.readouterr().err

"""Two evaluations compared pair by pair."""

import json
import sys

import numpy as np
import pytest


@pytest.fixture(scope="module")
def script(benchmark_script):
    return benchmark_script("paired_difference")


def values(shift, pairs="a"):
    wide = np.random.default_rng(0).normal(size=40) * 10
    row = {"psnr": [None, *(wide + shift).tolist()]}
    return {
        "pairs_sha256": pairs, "photos": list(range(41)), "bins": {"few": [[3, 0], [4, 1]]},
        "exemplars": {"random": list(range(41))},
        "metrics": {"cross": row, "random": {"style_relevance": [0.0] * 41}}, "truth": {},
        "overlap": {"few": {"psnr": [1.0, 2.0 + shift]}},
    }  # fmt: skip


def test_a_shift_is_found_exactly(script):
    rows = script.differences(values(0.0), values(0.25), ["psnr", "lpips_alex"])
    assert rows == [
        ["metrics", "cross", "41", "+0.2500 (+0.2500 to +0.2500) *", "–"],
        # Student's quantile of two values is wide.
        ["overlap", "few", "2", "+0.1250 (-1.4633 to +1.7133)", "–"],
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [(values(0.0, "b"), "different pairs"), (None, "No such file"), (values(0.0), "no values of ssim")],
)
def test_what_cannot_be_compared(script, content, message, tmp_path, monkeypatch, capsys):
    for name, found in (("one", values(0.0)), ("two", content)):
        (tmp_path / name).mkdir()
        if found:
            (tmp_path / name / "values.json").write_text(json.dumps(found))
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path / "one"), str(tmp_path / "two"), "--metrics=ssim"])
    with pytest.raises(SystemExit, match="2"):
        script.main()
    assert message in capsys.readouterr().err

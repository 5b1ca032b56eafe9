"""benchmarks/studio_speed.py: what it reads from the studio, sends and prints."""

import base64
import json

import pytest


@pytest.fixture
def script(benchmark_script):
    return benchmark_script("studio_speed")


def test_the_address_is_read_from_the_line_that_is_printed(script):
    assert script.url_of("The studio is at http://[::1]:80/ (Ctrl-C ends it)\n") == "http://[::1]:80/"
    assert script.url_of("mscaflax: error: no http://model\n") is None


def test_seeds_and_strokes_make_other_requests(script):
    def coded(data):
        return base64.b64encode(data).decode()

    layout = {"name": "a", "width": 3, "height": 1, "label": coded(b"\0\1\7")}
    exemplar = {"name": "b", "width": 2, "height": 1, "photo": coded(b"png"), "label": coded(b"\4\5")}
    form = script.form_of(layout, exemplar, 9, stroke=2)
    assert json.loads(form["request"][1]) == {
        "layout": {"width": 3, "height": 1},
        "exemplars": [{"width": 2, "height": 1}],
        "weights": [1],
        "seed": 9,
    }
    assert (form["layout"][1], form["photo0"][1], form["label0"][1]) == (b"\1\0\7", b"png", b"\4\5")
    layouts = {script.form_of(layout, exemplar, 0, stroke)["layout"][1] for stroke in range(4)}
    assert len(layouts) == 4


def test_the_table_has_medians_in_milliseconds(script):
    table = script.table_of([("64×64", 12.34, [0.1, 0.2, 9], [0.5, 0.7])])
    assert table.splitlines()[2:] == ["| 64×64 | 12.3 | 200 | 600 |"]

"""The studio's application, in this process: what it answers, and what it refuses."""

import base64
import io
import json
import logging

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from mscaflax import Synthesizer
from mscaflax.apps.blend import Blender
from mscaflax.apps.inputs import read_layout
from mscaflax.apps.studio.guards import MAX_BODY
from mscaflax.apps.studio.server import build_app
from mscaflax.apps.studio.service import Studio
from mscaflax.data import scenes

URL = "http://127.0.0.1:7860"


@pytest.fixture(scope="module")
def photos(photo_folder):
    """Two photos with their label maps: [(photo, label)], bytes of PNG files of 128x64."""
    folders = (photo_folder / "images/train", photo_folder / "annotations/train")
    return [tuple((folder / f"{i}.png").read_bytes() for folder in folders) for i in (0, 1)]


def array(text, *shape):
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(shape)


def picture_of(text):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def png(pixels, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", **options)
    return buffer.getvalue()


def prepared(client, photos):
    found = []
    for photo, label in photos:
        response = client.post("/api/exemplar", files={"photo": photo, "label": label})
        assert response.status_code == 200, response.text
        found.append(response.json())
    return found


def parts(layout, exemplars, /, **changes):
    """The form of a request for a picture: {name: (file name, content)}."""
    request = {
        "layout": {"width": layout.shape[1], "height": layout.shape[0]},
        "exemplars": [{"width": e["width"], "height": e["height"]} for e in exemplars],
        "weights": [1 / len(exemplars)] * len(exemplars),
        "seed": 3,
    } | changes
    files = {"request": (None, json.dumps(request)), "layout": ("layout", layout.astype(np.uint8).tobytes())}
    for index, exemplar in enumerate(exemplars):
        for name in ("photo", "label"):
            files[f"{name}{index}"] = (name, base64.b64decode(exemplar[name]))
    return files


@pytest.fixture(scope="module")
def exemplars(client, photos):
    return prepared(client, photos)


@pytest.fixture(scope="module")
def layout(client):
    """A ready layout at the canvas of 64x32 pixels."""
    found = client.get("/api/layouts?size=0").json()[0]
    return array(found["label"], found["height"], found["width"])


def open_photos(photos):
    return [tuple(np.asarray(Image.open(io.BytesIO(data))) for data in pair) for pair in photos]


def test_one_exemplar_gives_the_picture_of_the_synthesizer(client, studio, exemplars, layout, photos):
    answer = client.post("/api/picture", files=parts(layout, exemplars[:1])).json()
    photo, label = open_photos(photos)[0]
    expected = studio.synthesizer(layout.astype(int), photo, label.astype(int), seed=3)
    found = picture_of(answer["picture"])
    np.testing.assert_array_equal(found, expected)
    assert (answer["width"], answer["height"]) == (64, 32) and answer["milliseconds"] >= 0


@pytest.mark.parametrize("weights", [[1.0, 0.0], [-0.5, 1.5]])
def test_two_exemplars_give_the_mixture_of_the_blender(weights, client, studio, exemplars, layout, photos):
    answer = client.post("/api/picture", files=parts(layout, exemplars, weights=weights, seed=7)).json()
    read = [studio.synthesizer.model, *open_photos(photos)]
    from mscaflax.apps.inputs import read_exemplar

    given = [read_exemplar(read[0], photo, label.astype(int)) for photo, label in read[1:]]
    expected = Blender(read[0], read_layout(read[0], layout.astype(int)), given, seed=7).mix(weights)
    np.testing.assert_array_equal(picture_of(answer["picture"]), expected)


def test_what_feeds_the_picture(client, studio, exemplars, layout, photos):
    answer = client.post("/api/picture", files=parts(layout, exemplars)).json()
    regions = answer["regions"]
    count, h, w = regions["count"], regions["height"], regions["width"]
    shares = array(regions["assignment"], count, h, w)
    np.testing.assert_allclose(shares.sum(axis=0, dtype=int), 255, atol=count)
    assert len(regions["colours"]) == count
    np.testing.assert_allclose(regions["use"], shares.mean(axis=(1, 2)) / 255, atol=0.005)
    for (photo, label), found in zip(open_photos(photos), regions["exemplars"], strict=True):
        expected = studio.synthesizer.explain(layout.astype(int), photo, label.astype(int))
        planes = array(found["attention"], count, found["height"], found["width"])
        peaks = expected.attention.max(axis=(1, 2), keepdims=True)
        np.testing.assert_allclose(planes / 255, expected.attention / peaks, atol=0.01)
        np.testing.assert_allclose(found["peaks"], peaks[:, 0, 0], rtol=0.01)
        np.testing.assert_allclose(found["gate"], expected.gate, atol=0.001)
        assert regions["scale"] == expected.scale


def test_every_scale_can_be_asked_for(client, studio, exemplars, layout, photos):
    photo, label = open_photos(photos)[0]
    usual = client.post("/api/picture", files=parts(layout, exemplars[:1])).json()
    scales = usual["regions"]["scales"]
    assert len(scales) > 1 and usual["regions"]["scale"] in scales
    for scale in scales:
        answer = client.post("/api/picture", files=parts(layout, exemplars[:1], scale=scale)).json()
        regions = answer["regions"]
        assert answer["picture"] == usual["picture"] and regions["scale"] == scale
        expected = studio.synthesizer.explain(layout.astype(int), photo, label.astype(int), scale=scale)
        shape = (regions["count"], regions["height"], regions["width"])
        assert shape == expected.assignment.shape
        np.testing.assert_allclose(array(regions["assignment"], *shape) / 255, expected.assignment, atol=0.01)


def test_another_seed_or_weight_keeps_the_alignment(client, studio, exemplars, layout, monkeypatch):
    calls = []
    align = type(studio.model).align
    monkeypatch.setattr(type(studio.model), "align", lambda *a: calls.append(1) or align(*a))
    studio._aligned = (None, None)
    pictures = [
        client.post("/api/picture", files=parts(layout, exemplars, seed=seed, weights=weights)).json()[
            "picture"
        ]
        for seed, weights in ((1, [1, 0]), (2, [1, 0]), (2, [0, 1]))
    ]
    assert len(calls) == 2 and len(set(pictures)) == 3
    client.post("/api/picture", files=parts(np.zeros_like(layout), exemplars))
    assert len(calls) == 4


def test_the_page_and_what_it_needs(client, studio):
    page = client.get("/")
    assert page.status_code == 200 and "<title>" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for name in ("style.css", "main.js"):
        assert f"page/{name}" in page.text and client.get(f"/page/{name}").status_code == 200
    about = client.get("/api/studio").json()
    assert about["classes"] == list(scenes.CLASS_NAMES) and len(about["palette"]) == 13
    assert about["sizes"][0] == {"width": 64, "height": 32}
    ready = client.get("/api/exemplars").json()
    assert len(ready) == 8 and len({e["photo"] for e in ready}) == 8
    for index, size in enumerate(studio.sizes):
        layouts = client.get(f"/api/layouts?size={index}").json()
        assert {(e["height"], e["width"]) for e in layouts} == {size} and len(layouts) == 8
    # Clients and servers resolve "..", or hand it on decoded, as here.
    assert client.get("/page/%2e%2e/server.py").status_code == 404
    assert client.get("/page/%2e%2e%2fserver.py").status_code == 404


def test_an_uploaded_map_of_a_canvas_size_is_kept_as_it_is(client):
    label = np.random.default_rng(0).integers(0, 12, (32, 64)).astype(np.uint8)
    label[0, 0] = 255
    found = client.post("/api/layout", files={"label": png(label)}).json()
    label[0, 0] = 12
    np.testing.assert_array_equal(array(found["label"], 32, 64), label)
    assert found["given"] == {"width": 64, "height": 32}
    colours = np.array([*scenes.PALETTE, (0, 0, 0)], np.uint8)[label]
    found = client.post("/api/layout", files={"label": png(colours)}).json()
    np.testing.assert_array_equal(array(found["label"], 32, 64), label)


def test_without_a_segmenter_a_photo_needs_its_map(client, photos):
    response = client.post("/api/exemplar", files={"photo": photos[0][0]})
    assert response.status_code == 422 and "segmenter" in response.json()["error"]


def test_a_segmenter_guesses_the_map(tiny_run, photos):
    class Fives:
        """A stand-in for a segmenter."""

        def predict(self, images):
            return np.full(images.shape[:3], 5, np.int32)

    synthesizer = Synthesizer.from_workdir(tiny_run)
    synthesizer.__dict__["segmenter"] = Fives()
    app = build_app(Studio(synthesizer), warm=False)
    with TestClient(app, base_url=URL) as client:
        found = client.post("/api/exemplar", files={"photo": photos[0][0]}).json()
    assert found["guessed"] and set(base64.b64decode(found["label"])) == {5}


BLACK = np.zeros((64, 128, 3), np.uint8)
GRAY = np.zeros((64, 128), np.uint8)


def refused(response, message, status=422):
    assert response.status_code == status, response.text
    line = response.json()["error"]
    assert message in line and "\n" not in line and "Traceback" not in response.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": {"width": 48, "height": 48}}, "it must be one of 64x32"),
        (
            {"layout": {"width": 32, "height": 32}},
            "the layout has 2048 bytes, for 32x32 pixels it takes 1024",
        ),
        ({"layout": {"width": "64", "height": 32}}, "whole pixels"),
        ({"layout": None}, "whole pixels"),
        ({"exemplars": []}, "give 1 to 4 exemplars"),
        ({"exemplars": [{}] * 5}, "give 1 to 4 exemplars"),
        ({"exemplars": [{"width": 88, "height": True}]}, "whole pixels"),
        ({"exemplars": [{"width": 48, "height": 80}]}, "exemplar 1 is 80x48 pixels, its label map 48x80"),
        ({"weights": [float("nan")]}, "in -10..10"),
        ({"weights": [float("inf")]}, "in -10..10"),
        ({"weights": [10**400]}, "in -10..10"),
        ({"weights": ["1"]}, "as many weights"),
        ({"weights": [0.5, 0.5]}, "as many weights"),
        ({"weights": None}, "as many weights"),
        ({"seed": -1}, "the seed must be"),
        ({"seed": 0.5}, "the seed must be"),
        ({"seed": True}, "the seed must be"),
        ({"seed": 2**32}, "the seed must be"),
        ({"scale": True}, "the scale of the attention must be a whole number"),
        ({"scale": 0.5}, "the scale of the attention must be a whole number"),
        ({"scale": -1}, "scale -1 has no attention: choose one of 0, 1"),
        ({"scale": 99}, "scale 99 has no attention: choose one of 0, 1"),
    ],
)
def test_wrong_requests_get_one_line(changes, message, client, exemplars, layout):
    one = exemplars[:1]
    refused(client.post("/api/picture", files=parts(layout, one, **changes)), message)


def test_wrong_forms_get_one_line(client, exemplars, layout):
    good = parts(layout, exemplars[:1])
    refused(client.post("/api/picture", files=good | {"request": (None, "{")}), "no JSON text")
    refused(client.post("/api/picture", files=good | {"request": (None, "[" * 50000)}), "no JSON text")
    refused(client.post("/api/picture", files=good | {"request": (None, "[]")}), "no JSON object")
    refused(client.post("/api/picture", files=good | {"request": (None, "{}")}), "whole pixels")
    for name in ("layout", "photo0", "label0"):
        rest = {key: value for key, value in good.items() if key != name}
        refused(client.post("/api/picture", files=rest), f"lacks the file '{name}'")
    wrong = layout.copy()
    wrong[0, 0] = 13
    refused(client.post("/api/picture", files=parts(wrong, exemplars[:1])), "holds the id 13")
    refused(client.post("/api/picture", json={"a": 1}), "no multipart form")
    refused(client.post("/api/picture", files=good | {"photo0": ("photo", b"x")}), "not an image")
    broken = {"content-type": "multipart/form-data; boundary=x"}
    refused(client.post("/api/picture", content=b"--y\r\n", headers=broken), "", status=400)
    many = [("more", (f"{i}", b"x")) for i in range(50)]
    refused(client.post("/api/picture", files=many), "", status=400)
    small = {"width": 8, "height": 8}
    files = parts(layout, exemplars[:1], exemplars=[small])
    files |= {"photo0": ("photo", png(BLACK[:8, :8])), "label0": ("label", b"\0" * 64)}
    refused(client.post("/api/picture", files=files), "was not prepared here")


def test_large_bodies_are_refused(client):
    refused(client.post("/api/exemplar", files={"photo": b"\0" * (MAX_BODY + 1)}), "more than 20 MB", 413)

    def chunks():
        yield b'--x\r\nContent-Disposition: form-data; name="photo"; filename="a"\r\n\r\n'
        for _ in range(MAX_BODY // 2**20 + 1):
            yield b"\0" * 2**20

    headers = {"content-type": "multipart/form-data; boundary=x"}
    refused(client.post("/api/exemplar", content=chunks(), headers=headers), "more than 20 MB", 413)


def test_only_its_own_page_may_ask(client):
    for host in ("evil.example", "evil.example:7860", "127.0.0.1.evil.example", "", "[", "192.168.0.7"):
        refused(client.get("/", headers={"host": host}), "open the one that was printed", 403)
    refused(client.get("/api/studio", headers={"origin": "http://evil.example"}), "another page", 403)
    refused(client.get("/api/studio", headers={"origin": "null"}), "another page", 403)
    refused(client.get("/api/studio", headers={"origin": "http://["}), "another page", 403)
    assert client.get("/api/studio", headers={"origin": URL}).status_code == 200


def test_unknown_paths_and_methods(client):
    refused(client.get("/api/nothing"), "Not Found", 404)
    refused(client.get("/api/picture"), "Method Not Allowed", 405)
    refused(client.get("/api/layouts?size=9"), "must be one of 0..2")
    refused(client.get("/api/layouts"), "must be one of 0..2")


def test_an_unknown_error_is_logged_and_not_told(client, studio, monkeypatch, caplog):
    monkeypatch.setattr(studio, "read_layout", lambda data: 1 / 0)
    with caplog.at_level(logging.ERROR, "mscaflax.studio"):
        refused(client.post("/api/layout", files={"label": png(GRAY)}), "something went wrong here", 500)
    assert "ZeroDivisionError" in caplog.text


def test_the_sizes_are_compiled_ahead(tiny_run, monkeypatch):
    warmed = []
    monkeypatch.setattr(Studio, "warm", lambda self, *what: warmed.append(what))
    studio = Studio(Synthesizer.from_workdir(tiny_run))
    with TestClient(build_app(studio), base_url=URL) as client:
        while len(warmed) < 6:
            assert client.get("/api/studio").status_code == 200
    assert warmed == [(size, count) for count in (1, 2) for size in studio.sizes]

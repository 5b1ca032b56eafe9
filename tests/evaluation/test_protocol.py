import dataclasses
import io
import json

import numpy as np
import pytest
from PIL import Image

from mscaflax.data.classes import ClassTable
from mscaflax.data.grids import picture_grid
from mscaflax.data.pixels import to_float
from mscaflax.errors import UserError
from mscaflax.evaluation import protocol, report
from mscaflax.evaluation.pairlist import PairList, freeze_pairs
from mscaflax.evaluation.swap import draw_triples

CLASSES = ClassTable(("sky", "wall", "door"), ((0, 0, 255), (200, 100, 50), (90, 60, 20)))
N, SIZE = 7, 12


@pytest.fixture(scope="module")
def pairs():
    """Photos of one flat colour per class, so that the exemplar tells everything about the target."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (2 * N, 4, 4)).repeat(3, 1).repeat(3, 2).astype(np.int32)
    palette = rng.integers(0, 256, (N, 4, 3)).astype(np.uint8)
    patches = np.stack([palette[i % N][labels[i]] for i in range(2 * N)])
    return PairList(
        dataset="toy",
        split="val",
        fingerprint="f",
        seed=3,
        names=tuple(f"photo{i}" for i in range(N)),
        photos=np.arange(N),
        boxes=np.zeros((N, 2, 3), np.int32),
        triples=draw_triples(np.arange(N), N, seed=3),
        patches=patches,
        labels=labels,
    )


@dataclasses.dataclass
class Painter:
    """Paints each class in its mean colour in the exemplar; with `deaf`, in colours of its own."""

    deaf: bool = False
    batch_sizes: set = dataclasses.field(default_factory=set)

    def generate(self, label, exemplar, exemplar_label, seed=0):
        self.batch_sizes.add(len(label))
        assert exemplar.dtype == np.float32 and np.abs(exemplar).max() <= 1
        out = np.zeros((*label.shape, 3), np.float32)
        for image, target, style, style_map in zip(out, label, exemplar, exemplar_label, strict=True):
            for k in np.unique(target):
                inside = style[style_map == k]
                image[target == k] = k / 4 if self.deaf or not len(inside) else inside.mean(0)
        return out


def run(model, pairs, batch_size=4, weights=None):
    return protocol.evaluate(model, pairs, 3, batch_size=batch_size, weights=weights or {})


def test_a_follower_is_rewarded(pairs):
    found = run(Painter(), pairs)
    for kind in ("cross", "self"):
        assert found.metrics[kind]["n"] == N
        assert found.metrics[kind]["ssim"]["mean"] > 0.95 and found.metrics[kind]["psnr"]["mean"] > 30
    assert found.swap["outputs"]["all"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
    # the two patches of a photo have the same colours here, so the truth passes as well
    assert found.swap["real"]["all"]["mean"] == 1
    assert found.swap["real"]["counted"] == found.swap["outputs"]["counted"] == N


def test_an_exemplar_ignored_scores_zero(pairs):
    found = run(Painter(deaf=True), pairs)
    assert found.swap["outputs"]["all"]["mean"] == 0
    assert found.swap["real"]["all"]["mean"] == 1


def test_outputs_belong_to_their_layout_and_exemplar(pairs):
    class Echo:
        """Writes the layout into red and the exemplar into green and blue."""

        def generate(self, label, exemplar, exemplar_label, seed=0):
            out = exemplar.copy()
            out[..., 0] = label / 127.5 - 1
            return out

    found = run(Echo(), pairs)
    expected = {
        "cross": (np.arange(N), N + np.arange(N)),
        "self": (np.arange(N), np.arange(N)),
        "random": (pairs.triples[:, 0], N + pairs.triples[:, 1]),
    }
    for kind, (layouts, exemplars) in expected.items():
        np.testing.assert_array_equal(found.outputs[kind][..., 0], pairs.labels[layouts])
        np.testing.assert_array_equal(found.outputs[kind][..., 1:], pairs.patches[exemplars][..., 1:])


def test_both_rows_of_the_swap_test_have_one_half(pairs):
    # Some targets have class 2 alone and some exemplars lack it: the rows count different triples.
    labels = pairs.labels.copy()
    labels[:2][labels[:2] < 2] = 3
    labels[-2:][labels[-2:] == 2] = 3
    lacking = dataclasses.replace(pairs, labels=labels)
    found, deaf = run(Painter(), lacking).swap, run(Painter(deaf=True), lacking).swap
    counted = [found[row]["counted"] for row in ("outputs", "real")]
    assert min(counted) > 0 and counted[0] != counted[1]
    # ... but one half of those that both count, whatever the model makes of them.
    for swap in (found, deaf):
        assert swap["outputs"]["half_n"] == swap["real"]["half_n"] == found["real"]["half_n"]
        assert swap["real"] == found["real"]
    assert 0 < found["real"]["half_n"] <= -(-min(counted) // 2)
    assert found["outputs"]["half"]["mean"] == 1 and deaf["outputs"]["half"]["mean"] == 0


@pytest.mark.parametrize("photos", [1, 2])
def test_a_split_without_three_photos_has_no_swap_test(pairs, photos):
    few = dataclasses.replace(pairs, photos=np.arange(N) % photos, triples=np.zeros((0, 3), np.int64))
    done = []
    found = protocol.evaluate(Painter(), few, 3, batch_size=4, weights={}, advance=done.append)
    assert found.swap is None and sum(done) == protocol.steps_of(few, {})
    assert (found.metrics["cross"]["psnr"]["low"] is None) == (photos == 1)
    columns = protocol.grid_columns(few, found, CLASSES)
    assert [column.title for column in columns] == ["label map", "target", "exemplar", "output"]
    value = {"dataset": {"name": "toy", "split": "val"}, "size": SIZE, "step": 5}
    text = report.table(value | {"metrics": found.metrics, "swap": found.swap})
    assert "three different photos" in text and ("–" in text) == (photos == 2)


@pytest.mark.parametrize("batch_size", [1, 7, 16])
def test_result_does_not_depend_on_the_batch_size(pairs, batch_size):
    model = Painter()
    found, expected = run(model, pairs, batch_size), run(Painter(), pairs)
    assert found.metrics == expected.metrics and found.swap == expected.swap
    # every call has the full size: one compiled program
    assert model.batch_sizes == {batch_size}


def test_lpips_is_averaged_over_the_real_images_of_padded_batches():
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 256, (2, 3, 32, 32, 3)).astype(np.uint8)
    a[2] = b[2]
    weights = protocol.load_lpips_weights(["alex"])
    done = []
    scores = protocol.reconstruction_metrics(a, b, batch_size=2, weights=weights, advance=done.append)
    direct = protocol.lpips_module.lpips(weights["alex"], to_float(a), to_float(b))
    assert set(scores) == {"psnr", "ssim", "lpips_alex"} and done == [2, 1]
    np.testing.assert_allclose(scores["lpips_alex"], direct, atol=1e-5)
    assert scores["lpips_alex"][2] < 1e-6 < scores["lpips_alex"][0]


def test_metrics_that_small_images_do_not_have_are_left_out():
    a = np.zeros((1, 9, 9, 3), np.uint8)
    weights = protocol.load_lpips_weights(["alex"])
    assert set(protocol.reconstruction_metrics(a, a, batch_size=1, weights=weights)) == {"psnr"}


def test_progress_adds_up(pairs):
    done = []
    protocol.evaluate(Painter(), pairs, 3, batch_size=4, weights={}, advance=done.append)
    assert sum(done) == protocol.steps_of(pairs, {})


def test_output_that_is_not_finite(pairs):
    class Diverged:
        def generate(self, label, exemplar, exemplar_label, seed=0):
            return np.full(exemplar.shape, np.nan, np.float32)

    with pytest.raises(UserError, match="diverged"):
        run(Diverged(), pairs)


def test_report_files(pairs, tmp_path):
    found = run(Painter(), pairs)
    value = {
        "dataset": {"name": "toy", "split": "val", "photos": N},
        "metrics": found.metrics,
        "size": SIZE,
        "step": 5,
        "swap": {**found.swap, "real": {"n": 7, "counted": 0, "half_n": 4, "all": None, "half": None}},
        "versions": report.versions(),
    }
    grid = picture_grid(protocol.grid_columns(pairs, found, CLASSES, rows=3), min_cell=SIZE)
    report.write_report(tmp_path, value, pairs.to_json(), grid)
    assert {p.name for p in tmp_path.iterdir()} == {"metrics.json", "pairs.json", "table.md", "grid.png"}
    assert json.loads((tmp_path / "metrics.json").read_text()) == value
    assert value["versions"]["jax"]
    table = (tmp_path / "table.md").read_text()
    assert "| the other patch of the photo | 7 |" in table and "100.0% (100.0%–100.0%)" in table
    assert "| real patches | 0 of 7 | – | – |" in table
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.size[0] == 6 * (SIZE + 6) + 6


def photo(seed):
    rng = np.random.default_rng(seed)
    encoded = []
    for array in (rng.integers(0, 256, (30, 44, 3)), rng.integers(0, 4, (30, 44))):
        file = io.BytesIO()
        Image.fromarray(array.astype(np.uint8)).save(file, "PNG")
        encoded.append(file.getvalue())
    return {"image": encoded[0], "label": encoded[1], "name": f"photo{seed}"}


def test_frozen_pairs_are_the_same_every_time_and_only_grow():
    source = [photo(i) for i in range(4)]
    draw = dict(dataset="toy", split="val", fingerprint="f", size=16, num_classes=3)
    first = freeze_pairs(source, count=4, seed=1, **draw)
    again = freeze_pairs(source, count=4, seed=1, **draw)
    assert first.to_json() == again.to_json() and first.sha256() == again.sha256()
    np.testing.assert_array_equal(first.patches, again.patches)
    assert first.patches.shape == (8, 16, 16, 3) and first.labels.shape == (8, 16, 16)
    assert freeze_pairs(source, count=4, seed=2, **draw).sha256() != first.sha256()
    longer = json.loads(freeze_pairs(source, count=6, seed=1, **draw).to_json())
    assert longer["pairs"][:4] == json.loads(first.to_json())["pairs"]
    other_photos = freeze_pairs(source, count=4, seed=1, **(draw | {"fingerprint": "g"}))
    assert other_photos.sha256() != first.sha256()
    assert sorted(first.photos) == [0, 1, 2, 3] and first.names[0] == f"photo{first.photos[0]}"
    assert freeze_pairs(source[:2], count=4, seed=1, **draw).triples.shape == (0, 3)

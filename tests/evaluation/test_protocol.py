import dataclasses

import numpy as np
import pytest

from mscaflax.errors import UserError
from mscaflax.evaluation import protocol
from mscaflax.evaluation.batches import Batches
from mscaflax.evaluation.protocol import Judges

FULL_REFERENCE = {"psnr", "ssim", "lpips_vgg", "lpips_alex"}
N = 7


def colour_moments(images):
    """A quick stand-in for a network's features: uint8 [b, h, w, 3] to [b, 6]."""
    x = images.astype(np.float64) / 255
    return np.concatenate([x.mean((1, 2)), x.std((1, 2))], -1)


def run(model, pairs, batch_size=4, judges=None, **options):
    batches = Batches(batch_size)
    return protocol.evaluate(model, pairs, 3, batches=batches, judges=judges or Judges(), **options)


@pytest.fixture(scope="module")
def all_judges():
    """Every network, and a segmenter that goes by brightness."""
    return protocol.load_judges(
        32, Batches(4), {"colours": colour_moments}, lambda x: (x.mean(-1) > 0).astype(np.int32)
    )


def test_a_follower_is_rewarded(pairs, painter):
    found = run(painter(), pairs)
    for kind in ("cross", "self"):
        assert found.metrics[kind]["n"] == N
        assert found.metrics[kind]["ssim"]["mean"] > 0.95 and found.metrics[kind]["psnr"]["mean"] > 30
    assert found.swap["outputs"]["all"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
    # the two patches of a photo have the same colours here, so the truth passes as well
    assert found.swap["real"]["all"]["mean"] == 1
    assert found.swap["real"]["counted"] == found.swap["outputs"]["counted"] == N


def test_an_exemplar_ignored_scores_zero(pairs, painter):
    found = run(painter(deaf=True), pairs)
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
        "retrieved": (np.arange(N), N + pairs.retrieved),
        "random": (pairs.triples[:, 0], N + pairs.triples[:, 1]),
    }
    assert found.outputs.keys() == expected.keys()
    for kind, (layouts, exemplars) in expected.items():
        np.testing.assert_array_equal(found.outputs[kind][..., 0], pairs.labels[layouts])
        np.testing.assert_array_equal(found.outputs[kind][..., 1:], pairs.patches[exemplars][..., 1:])


def test_both_rows_of_the_swap_test_have_one_half(pairs, painter):
    # Some targets have class 2 alone and some exemplars lack it: the rows count different triples.
    labels = pairs.labels.copy()
    labels[:2][labels[:2] < 2] = 3
    labels[-2:][labels[-2:] == 2] = 3
    lacking = dataclasses.replace(pairs, labels=labels)
    found, deaf = run(painter(), lacking).swap, run(painter(deaf=True), lacking).swap
    counted = [found[row]["counted"] for row in ("outputs", "real")]
    assert min(counted) > 0 and counted[0] != counted[1]
    # ... but one half of those that both count, whatever the model makes of them.
    for swap in (found, deaf):
        assert swap["outputs"]["half_n"] == swap["real"]["half_n"] == found["real"]["half_n"]
        assert swap["real"] == found["real"]
    assert 0 < found["real"]["half_n"] <= -(-min(counted) // 2)
    assert found["outputs"]["half"]["mean"] == 1 and deaf["outputs"]["half"]["mean"] == 0


@pytest.mark.parametrize("photos", [1, 2])
def test_a_split_without_three_photos_has_no_swap_test(pairs, painter, photos):
    retrieved = pairs.retrieved[: 0 if photos == 1 else N]
    few = dataclasses.replace(
        pairs, photos=np.arange(N) % photos, triples=np.zeros((0, 3), np.int64), retrieved=retrieved
    )
    done = []
    found = run(painter(), few, advance=done.append)
    assert found.swap is None and sum(done) == protocol.steps_of(few, Judges())
    assert (found.metrics["cross"]["psnr"]["low"] is None) == (photos == 1)
    assert list(found.metrics) == ["cross", "self", "retrieved"][: photos + 1]


@pytest.mark.parametrize("batch_size", [1, 7, 16])
def test_result_does_not_depend_on_the_batch_size(pairs, painter, batch_size):
    model = painter()
    judges = Judges(extractors={"colours": colour_moments})
    found, expected = run(model, pairs, batch_size, judges), run(painter(), pairs, judges=judges)
    for part in ("metrics", "swap", "distances"):
        assert getattr(found, part) == getattr(expected, part)
    # every call has the full size: one compiled program
    assert model.batch_sizes == {batch_size}


def test_foreign_exemplars_have_no_reference_among_photos(larger_pairs, painter, all_judges):
    done = []
    found = run(painter(), larger_pairs, judges=all_judges, advance=done.append)
    assert sum(done) == protocol.steps_of(larger_pairs, all_judges)
    kinds = ["cross", "self", "retrieved", "random"]
    assert list(found.metrics) == list(found.distances) == kinds and found.truth is None
    for kind in ("cross", "self"):
        assert found.metrics[kind].keys() >= FULL_REFERENCE
    for kind in ("retrieved", "random"):
        assert found.metrics[kind].keys() == {"n", "style_relevance", "semantic_consistency"}
    # Flat colours: the output under the photo's own exemplar is the target, and has its very features.
    assert found.metrics["self"]["lpips_alex"]["mean"] < 0.05
    assert found.metrics["self"]["semantic_consistency"]["mean"] > 0.98
    assert found.metrics["self"]["style_relevance"]["mean"] > 0.95
    for kind in kinds:
        assert found.distances[kind].keys() == {"vgg16", "colours"}
        value = found.distances[kind]["vgg16"]
        assert value["n"] == 5 and value["features"] == 512 and "fewer than its 512" in value["warning"]
    assert found.distances["self"]["colours"]["frechet"] < found.distances["random"]["colours"]["frechet"]
    assert list(found.segmentation) == ["real", *kinds]
    # A segmenter is deaf to everything but its images.
    assert (
        abs(found.segmentation["self"]["mean_iou"]["mean"] - found.segmentation["real"]["mean_iou"]["mean"])
        < 0.05
    )


def test_every_image_passes_each_extractor_once(pairs, painter):
    seen = []

    def extract(images):
        seen.append(len(images))
        return colour_moments(images)

    run(painter(), pairs, N, Judges(extractors={"colours": extract}))
    assert seen == [N] * 5  # targets and four kinds of outputs


def test_one_pair_has_no_distance_of_distributions(pairs, painter):
    one = dataclasses.replace(
        pairs,
        names=pairs.names[:1],
        photos=pairs.photos[:1],
        boxes=pairs.boxes[:1],
        triples=np.zeros((0, 3), np.int64),
        retrieved=np.zeros(0, np.int64),
        patches=pairs.patches[[0, N]],
        labels=pairs.labels[[0, N]],
    )
    done = []
    judges = Judges(extractors={"colours": colour_moments})
    assert run(painter(), one, judges=judges, advance=done.append).distances is None
    assert sum(done) == protocol.steps_of(one, judges)


def test_small_images_have_fewer_judges():
    assert protocol.load_judges(12, Batches(1)) == Judges()
    judges = protocol.load_judges(16, Batches(1))
    assert judges.lpips.keys() == {"vgg"} and judges.extractors.keys() == {"vgg16"}


def test_output_that_is_not_finite(pairs):
    class Diverged:
        def generate(self, label, exemplar, exemplar_label, seed=0):
            return np.full(exemplar.shape, np.nan, np.float32)

    with pytest.raises(UserError, match="diverged"):
        run(Diverged(), pairs)

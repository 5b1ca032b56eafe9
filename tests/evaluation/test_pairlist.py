import dataclasses
import io
import json

import numpy as np
from PIL import Image

from mscaflax.evaluation.pairlist import freeze_pairs, retrieve_exemplars
from mscaflax.evaluation.retrieval import descriptors, rank


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
    assert freeze_pairs(source[:1], count=4, seed=1, **draw).retrieved.shape == (0,)


def test_the_retrieved_exemplars_are_part_of_the_list(pairs):
    other = dataclasses.replace(pairs, retrieved=np.roll(pairs.retrieved, 1))
    assert json.loads(other.to_json())["retrieved"] == other.retrieved.tolist()
    assert other.sha256() != pairs.sha256()


def test_retrieved_exemplars_come_from_the_nearest_fifth_of_other_photos():
    rng = np.random.default_rng(0)
    n = 30
    labels = rng.integers(0, 5, (2 * n, 4, 4)).repeat(2, 1).repeat(2, 2)
    photos = np.arange(n) // 2  # two pairs of each photo
    labels[n:] = labels[:n]  # the nearest exemplar would be the target's own
    targets = [f"target{i}" for i in range(n)]
    found = retrieve_exemplars(labels, photos, targets, 4, seed=5)
    assert found.shape == (n,) and (photos[found] != photos).all()
    vectors = descriptors(labels, 4)
    for i, exemplar in enumerate(found):
        others = np.flatnonzero(photos != photos[i])
        (nearest,) = rank(vectors[i : i + 1], vectors[n:][others])
        assert len(nearest.indices) == 28 // 5 and exemplar in others[nearest.indices]
    np.testing.assert_array_equal(retrieve_exemplars(labels, photos, targets, 4, seed=5), found)
    assert (retrieve_exemplars(labels, photos, targets, 4, seed=6) != found).any()


def test_no_exemplar_is_retrieved_from_a_single_photo(pairs):
    labels = pairs.labels
    assert retrieve_exemplars(labels, np.zeros(7), pairs.names, 3, seed=0).shape == (0,)
    np.testing.assert_array_equal(
        np.arange(7)[retrieve_exemplars(labels, np.arange(7) % 2, pairs.names, 3, seed=0)] % 2,
        1 - np.arange(7) % 2,
    )

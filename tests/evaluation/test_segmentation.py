import numpy as np
import pytest

from mscaflax.evaluation.segmentation import (
    class_counts,
    confusion_matrix,
    scores_of_counts,
    segmentation_scores,
)


def sets_of_pixels(truth, predicted, num_classes):
    """The scores from their definition, by sets of pixels: (accuracy, {class: IoU of those in the truth})."""
    counted = {place for place in np.ndindex(truth.shape) if truth[place] < num_classes}
    right = {place for place in counted if truth[place] == predicted[place]}
    found = {}
    for c in range(num_classes):
        true_places = {place for place in counted if truth[place] == c}
        predicted_places = {place for place in counted if predicted[place] == c}
        if true_places:
            found[c] = len(true_places & predicted_places) / len(true_places | predicted_places)
    return len(right) / len(counted), found


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_the_definition(seed):
    rng = np.random.default_rng(seed)
    # Class 5 is in no map, class 4 in the prediction alone.
    truth = rng.choice([0, 1, 2, 3, 6], (3, 8, 9))
    predicted = np.where(rng.random(truth.shape) < 0.5, np.minimum(truth, 4), rng.integers(0, 5, truth.shape))
    scores = segmentation_scores(confusion_matrix(truth, predicted, 6))
    accuracy, ious = sets_of_pixels(truth, predicted, 6)
    assert scores.pixel_accuracy == pytest.approx(accuracy, abs=1e-12)
    assert scores.mean_iou == pytest.approx(sum(ious.values()) / len(ious), abs=1e-12)
    assert sorted(ious) == [0, 1, 2, 3] and (predicted == 4).any()
    assert len(scores.class_iou) == 6 and np.isnan(scores.class_iou[4:]).all()
    np.testing.assert_allclose(scores.class_iou[:4], [ious[c] for c in range(4)], atol=1e-12)


def test_rows_are_the_truth():
    confusion = confusion_matrix(np.array([[0, 0, 1, 2]]), np.array([[1, 1, 1, 0]]), 2)
    np.testing.assert_array_equal(confusion, [[0, 2], [0, 1]])
    assert confusion.dtype == np.int64


def test_what_is_predicted_for_unlabelled_pixels_does_not_matter():
    truth = np.array([[0, 1, 2, 2]])
    for predicted in ([[0, 1, 0, 0]], [[0, 1, 1, 0]], [[0, 1, -7, 99]]):
        scores = segmentation_scores(confusion_matrix(truth, np.array(predicted), 2))
        assert (scores.pixel_accuracy, scores.mean_iou) == (1, 1)


def test_parts_add_up():
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 5, (6, 4, 4)), rng.integers(0, 4, (6, 4, 4))
    parts = sum(confusion_matrix(truth[i : i + 2], predicted[i : i + 2], 4) for i in (0, 2, 4))
    np.testing.assert_array_equal(parts, confusion_matrix(truth, predicted, 4))


def test_counts_of_many_sets_are_scored_like_each_alone():
    rng = np.random.default_rng(1)
    # Of the first set nothing is labelled, of the second one class alone.
    truth, predicted = rng.integers(0, 5, (3, 6, 6)), rng.integers(0, 4, (3, 6, 6))
    truth[0], truth[1] = 4, 2
    matrices = [confusion_matrix(*pair, 4) for pair in zip(truth, predicted, strict=True)]
    accuracy, mean_iou, class_iou = scores_of_counts(np.stack([class_counts(m) for m in matrices]))
    assert np.isnan(accuracy[0]) and np.isnan(mean_iou[0]) and np.isnan(class_iou[0]).all()
    for place in (1, 2):
        alone = segmentation_scores(matrices[place])
        assert (accuracy[place], mean_iou[place]) == (alone.pixel_accuracy, alone.mean_iou)
        np.testing.assert_array_equal(class_iou[place], alone.class_iou)


def test_eight_bit_maps_of_many_classes_do_not_overflow():
    truth = np.arange(250, dtype=np.uint8).reshape(1, 25, 10)
    np.testing.assert_array_equal(confusion_matrix(truth, truth, 250), np.eye(250))


def test_json_has_no_nan():
    scores = segmentation_scores(confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 3))
    assert scores.to_json(("sky", "road", "car")) == {
        "pixel_accuracy": pytest.approx(2 / 3),
        "mean_iou": pytest.approx(0.5),
        "class_iou": {"sky": pytest.approx(0.5), "road": pytest.approx(0.5), "car": None},
    }


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        (np.zeros((2, 2), int), np.zeros((2, 3), int), "one shape"),
        (np.zeros(2), np.zeros(2, int), "integers"),
        (np.zeros(2, int), np.zeros(2), "integers"),
        (np.array([0, 4]), np.array([0, 0]), "0..4 do not lie in 0..2"),
        (np.array([0, -1]), np.array([0, 0]), "-1..0 do not lie in 0..2"),
        (np.array([0, 1]), np.array([0, 3]), "0..3 do not lie in 0..2"),
    ],
)
def test_maps_that_do_not_fit_are_refused(truth, predicted, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(truth, predicted, 3)


def test_nothing_to_count_is_said():
    with pytest.raises(ValueError, match="no labelled pixel"):
        segmentation_scores(confusion_matrix(np.full((2, 2), 3), np.zeros((2, 2), int), 3))

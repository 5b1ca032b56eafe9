import numpy as np
import pytest

from mscaflax.data.pixels import to_float
from mscaflax.evaluation.batches import Batches
from mscaflax.evaluation.lpips import lpips
from mscaflax.evaluation.reconstruction import full_reference, known_pixels, load_lpips_weights


@pytest.fixture(scope="module")
def alex():
    return load_lpips_weights(["alex"])


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 256, (2, 3, 32, 32, 3)).astype(np.uint8)
    a[2] = b[2]
    return a, b


def test_lpips_is_averaged_over_the_real_images_of_padded_batches(alex, images):
    a, b = images
    done = []
    scores = full_reference(b, {"x": a}, batches=Batches(2), weights=alex, advance=done.append)["x"]
    direct = lpips(alex["alex"], to_float(a), to_float(b))
    assert set(scores) == {"psnr", "ssim", "lpips_alex"} and done == [2, 1]
    np.testing.assert_allclose(scores["lpips_alex"], direct, atol=1e-5)
    assert scores["lpips_alex"][2] < 1e-6 < scores["lpips_alex"][0]


def test_several_outputs_share_a_reference(alex, images):
    a, b = images
    both = full_reference(b, {"a": a, "b": b}, batches=Batches(2), weights=alex)
    alone = full_reference(b, {"a": a}, batches=Batches(2), weights=alex)
    for metric, values in both["a"].items():
        np.testing.assert_array_equal(values, alone["a"][metric])
    np.testing.assert_allclose(both["b"]["ssim"], 1)


def test_metrics_that_small_images_do_not_have_are_left_out(alex):
    a = np.zeros((1, 9, 9, 3), np.uint8)
    assert set(full_reference(a, {"a": a}, batches=Batches(1), weights=alex)["a"]) == {"psnr"}


def test_masked_metrics_are_averages_of_the_maps(alex, images):
    skimage_metrics = pytest.importorskip("skimage.metrics")
    a, b = images
    rng = np.random.default_rng(2)
    mask = rng.random(a.shape[:3]) < 0.4
    options = dict(batches=Batches(2), weights=alex)
    scores = full_reference(b, {"a": a}, masks={"masked": {"a": mask}}, **options)["a"]
    maps = np.asarray(lpips(alex["alex"], to_float(b), to_float(a), spatial=True))
    for i in range(3):
        error = (a[i].astype(float) - b[i])[mask[i]]
        expected = 10 * np.log10(255**2 / max((error**2).mean(), 1 / error.size))
        assert scores["masked_psnr"][i] == pytest.approx(expected, rel=1e-12)
        _, similarity = skimage_metrics.structural_similarity(
            a[i], b[i], gaussian_weights=True, use_sample_covariance=False, data_range=255,
            channel_axis=-1, full=True,
        )  # fmt: skip
        inner = np.s_[5:-5, 5:-5]
        assert scores["masked_ssim"][i] == pytest.approx(similarity[inner][mask[i][inner]].mean(), rel=1e-10)
        assert scores["masked_lpips_alex"][i] == pytest.approx(maps[i][mask[i]].mean(), rel=1e-4, abs=1e-7)

    everything = full_reference(b, {"a": a}, masks={"masked": {"a": np.ones_like(mask)}}, **options)["a"]
    np.testing.assert_allclose(everything["masked_psnr"], everything["psnr"])
    np.testing.assert_allclose(everything["masked_ssim"], everything["ssim"])
    # The layers' maps are enlarged, which weighs borders a little differently than their means.
    np.testing.assert_allclose(
        everything["masked_lpips_alex"], everything["lpips_alex"], rtol=0.02, atol=1e-6
    )

    nothing = full_reference(b, {"a": a}, masks={"masked": {"a": np.zeros_like(mask)}}, **options)["a"]
    assert all(np.isnan(nothing[f"masked_{name}"]).all() for name in ("psnr", "ssim", "lpips_alex"))


def test_known_pixels_are_those_whose_class_covers_a_hundredth_of_the_exemplar():
    exemplar = np.zeros((1, 20, 20), np.int32)
    exemplar[0, 0, :3] = 1  # 3 of 400 pixels
    exemplar[0, 1, :4] = 2  # 4 of 400 pixels
    exemplar[0, 2:10] = 4  # unlabelled
    label = np.array([[[0, 1, 2], [3, 4, 0]]], np.int32)
    np.testing.assert_array_equal(
        known_pixels(label, exemplar, 4), [[[True, False, True], [False, False, True]]]
    )

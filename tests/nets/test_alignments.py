"""Every alignment against a reference in plain numpy loops, and what all of them have in common."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mscaflax.nets.alignments import ALIGNMENTS, AlignmentInputs

CLASSES, REGIONS = 4, 3
IMAGE, LABEL = (5, 6, 7, 8), (4, 5, 6, 7)
B, SIZE, EXEMPLAR = 2, (16, 24), (24, 16)


def pyramid(rng, size, channels):
    return tuple(
        rng.normal(size=(B, size[0] >> i, size[1] >> i, c)).astype(np.float32) for i, c in enumerate(channels)
    )


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    exemplar_map = rng.integers(0, CLASSES, (B, *EXEMPLAR)).astype(np.int32)
    exemplar_map[0][exemplar_map[0] == 2] = 1  # a class that the first exemplar lacks
    return AlignmentInputs(
        images=pyramid(rng, EXEMPLAR, IMAGE),
        exemplar_labels=pyramid(rng, EXEMPLAR, LABEL),
        target_labels=pyramid(rng, SIZE, LABEL),
        exemplar_map=exemplar_map,
        target_map=rng.integers(0, CLASSES + 1, (B, *SIZE)).astype(np.int32),
        coverage=(None,) * 4,
        visible=(None,) * 4,
    )


def build(name, **fields):
    return ALIGNMENTS[name](CLASSES, REGIONS, IMAGE, LABEL, **{"scales": (True,) * 4, **fields})


@pytest.fixture(scope="module")
def run(inputs):
    """name → (parameters, alignments, divergence), as numpy arrays; each compiled once."""

    @functools.cache
    def run(name):
        out, variables = jax.jit(build(name).init_with_output)(jax.random.key(1), inputs)
        return jax.tree.map(np.asarray, (variables["params"], *out))

    return run


@pytest.mark.parametrize("name", ALIGNMENTS)
def test_photos_in_the_targets_order_give_the_same(name):
    """The targets' own photos with word of whose exemplar they are, or every exemplar in its row."""
    rng = np.random.default_rng(1)
    labels = pyramid(rng, SIZE, LABEL)
    seen = rng.uniform(size=(B, *SIZE, 1)).astype(np.float32)
    photos = AlignmentInputs(
        images=pyramid(rng, SIZE, IMAGE),
        exemplar_labels=labels,
        target_labels=labels,
        exemplar_map=rng.integers(0, CLASSES, (B, *SIZE)).astype(np.int32),
        target_map=rng.integers(0, CLASSES, (B, *SIZE)).astype(np.int32),
        coverage=(None,) * 4,
        visible=tuple(seen[:, :: 2**i, :: 2**i] for i in range(4)),
        itself=np.array([False, True]),
    )
    apart = photos.per_target()
    assert apart.itself is None
    for i in (0, 1):  # both have the second photo as their exemplar
        np.testing.assert_array_equal(apart.images[2][i], photos.images[2][1])
        np.testing.assert_array_equal(apart.exemplar_map[i], photos.exemplar_map[1])
        np.testing.assert_array_equal(apart.visible[1][i], photos.visible[1][1])
    if not ALIGNMENTS[name].takes_photos:
        return
    net = build(name)
    params = net.init(jax.random.key(1), apart)
    for a, b in zip(*(jax.tree.leaves(net.apply(params, x)) for x in (photos, apart)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def perceptron(params, name, x):
    hidden, out = params[f"{name}_hidden"], params[f"{name}_out"]
    return np.maximum(x @ hidden["kernel"] + hidden["bias"], 0) @ out["kernel"] + out["bias"]


@pytest.mark.parametrize("name", ALIGNMENTS)
def test_shapes_and_parameters_of_all_are_alike(name, run):
    wide = (32, 64, 64, 64, 64), (16, 32, 48, 64, 64)
    params, alignments, divergence = run(name)
    for scale, alignment in enumerate(alignments):
        assert alignment.features.shape == (B, SIZE[0] >> scale, SIZE[1] >> scale, IMAGE[scale])
    assert (float(divergence) > 0) == (name == "vae")

    def count(name, **options):
        net = ALIGNMENTS[name](CLASSES, 16, *wide, scales=(True,) * 5, **options)
        example = AlignmentInputs(
            *(
                tuple(jnp.zeros((1, 64 >> i, 64 >> i, c)) for i, c in enumerate(cs))
                for cs in (*wide, wide[1])
            ),
            jnp.zeros((1, 64, 64), jnp.int32),
            jnp.zeros((1, 64, 64), jnp.int32),
            (None,) * 5,
            (None,) * 5,
        )
        return sum(x.size for x in jax.tree.leaves(jax.eval_shape(net.init, jax.random.key(0), example)))

    assert count(name) == pytest.approx(count("msca"), rel=0.15)
    # The one exception: γ = 1 needs no perceptron, and nothing else is put in its place.
    unmasked = count("msca", masking=False)
    assert 0.25 * count("msca") < unmasked < 0.4 * count("msca")


@pytest.mark.parametrize("name", ALIGNMENTS)
def test_scales_that_are_off(name, inputs):
    net = build(name, scales=(False, True, False, True))
    out, _ = jax.eval_shape(net.init_with_output, jax.random.key(0), inputs)
    assert [alignment is not None for alignment in out[0]] == [False, True, False, True]


@pytest.mark.parametrize("name", ALIGNMENTS)
def test_the_exemplar_moves_every_scale(name, run, inputs):
    net = build(name)
    params = net.init(jax.random.key(1), inputs)

    def total(images):
        alignments, _ = net.apply(params, inputs.replace(images=images))
        return sum(
            (a.features * np.cos(np.arange(a.features.size).reshape(a.features.shape))).sum()
            for a in alignments
        )

    gradients = jax.grad(total)(inputs.images)
    moved = [float(np.abs(g).max()) > 1e-6 for g in gradients]
    assert moved == ([False, False, False, True] if name == "vae" else [True] * 4)


@pytest.mark.parametrize("name", sorted(set(ALIGNMENTS) - {"vae"}))
def test_what_is_hidden_moves_nothing(name, run, inputs):
    """The right half of the exemplar is hidden; `vae` sees it through its convolution's border alone."""
    hidden = np.ones((B, *EXEMPLAR, 1), np.float32)
    hidden[:, :, 8:] = 0
    visible = tuple(hidden[:, :: 2**i, :: 2**i] for i in range(4))
    other = tuple(np.where(v > 0, x, 7 * x + 1) for x, v in zip(inputs.images, visible, strict=True))
    net, params = build(name), run(name)[0]
    align = jax.jit(lambda inputs: net.apply({"params": params}, inputs)[0])
    found, same = (align(inputs.replace(images=x, visible=visible)) for x in (inputs.images, other))
    seen = align(inputs.replace(images=other))
    for a, b, c in zip(found, same, seen, strict=True):
        np.testing.assert_allclose(a.features, b.features, rtol=1e-5, atol=1e-5)
        assert np.abs(b.features - c.features).max() > 1e-2


def test_all_visible_is_as_if_nothing_was_said(run, inputs):
    everything = tuple(np.ones((B, EXEMPLAR[0] >> i, EXEMPLAR[1] >> i, 1), np.float32) for i in range(4))
    for name in ALIGNMENTS:
        found, _ = build(name).apply({"params": run(name)[0]}, inputs.replace(visible=everything))
        for a, b in zip(found, run(name)[1], strict=True):
            np.testing.assert_allclose(a.features, b.features, rtol=1e-5, atol=1e-5, err_msg=name)


def test_gap_is_one_style_of_mean_and_deviation(run, inputs):
    params, alignments, _ = run("gap")
    for scale, alignment in enumerate(alignments):
        x = inputs.images[scale].reshape(B, -1, IMAGE[scale]).astype(np.float64)
        style = perceptron(params, f"scale{scale}", np.concatenate([x.mean(1), x.std(1)], -1))
        expected = np.broadcast_to(style[:, None, None], alignment.features.shape)
        np.testing.assert_allclose(alignment.features, expected, atol=1e-4)


def test_class_means_and_the_global_mean_for_missing_classes(run, inputs):
    params, alignments, _ = run("class")
    for scale, alignment in enumerate(alignments):
        f, n = 2**scale, IMAGE[scale]
        expected = np.zeros(alignment.features.shape)
        for b in range(B):
            image, cells = inputs.images[scale][b].astype(np.float64), inputs.exemplar_map[b]
            values = []
            for c in range(CLASSES + 1):
                share = (cells == c).reshape(EXEMPLAR[0] // f, f, EXEMPLAR[1] // f, f).mean((1, 3))[..., None]
                empty = share.sum() == 0
                mean = image.mean((0, 1)) if empty else (share * image).sum((0, 1)) / share.sum()
                values.append(perceptron(params, f"scale{scale}", mean))
            for y in range(SIZE[0] // f):
                for x in range(SIZE[1] // f):
                    cell = inputs.target_map[b, y * f : y * f + f, x * f : x * f + f]
                    expected[b, y, x] = np.mean([values[c] for c in cell.ravel()], axis=0)
        assert expected.shape[-1] == n
        np.testing.assert_allclose(alignment.features, expected, atol=1e-4)


def test_dense_correspondence_copies_cells(run, inputs):
    params, alignments, _ = run("dense")

    def norm(x):
        x = x.astype(np.float64)
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)

    image, exemplar, target = (
        norm(p[2]) for p in (inputs.images, inputs.exemplar_labels, inputs.target_labels)
    )
    w_x, w_c = params["image_projection"], params["label_projection"]
    keys = (exemplar @ w_c + image @ w_x).reshape(B, -1, w_c.shape[1])
    queries = (target @ w_c).reshape(B, -1, w_c.shape[1])
    for b in range(B):
        for q in range(0, queries.shape[1], 5):
            y, x = divmod(q, SIZE[1] // 4)
            logits = params["temperature"] * keys[b] @ queries[b, q] / w_c.shape[1] ** 0.5
            weights = np.exp(logits - logits.max())
            weights = (weights / weights.sum()).reshape(EXEMPLAR[0] // 4, EXEMPLAR[1] // 4)
            for scale, f in ((0, 4), (1, 2), (2, 1)):
                # A cell of the target is the weighted mean of the exemplar's cells, pixel by pixel.
                cells = inputs.images[scale][b]
                cells = cells.reshape(weights.shape[0], f, weights.shape[1], f, -1)
                expected = np.einsum("hw,hiwjn->ijn", weights, cells)
                found = alignments[scale].features[b, y * f : y * f + f, x * f : x * f + f]
                np.testing.assert_allclose(found, expected, atol=1e-4)


def test_variational_code_is_drawn_by_its_keys_only(run, inputs):
    net, params = build("vae"), run("vae")[0]

    @jax.jit
    def drawn(keys):
        return net.apply({"params": params}, inputs.replace(keys=keys))[0][0].features

    def features(seed):
        if seed is None:
            return run("vae")[1][0].features
        return np.asarray(drawn(jax.random.split(jax.random.key(seed), B)))

    np.testing.assert_array_equal(features(1), features(1))
    assert np.abs(features(1) - features(2)).max() > 0.1
    mean = np.mean([features(seed) for seed in range(200)], axis=0)
    # The standard error of 200 draws of deviation about one.
    np.testing.assert_allclose(mean, features(None), atol=0.5)


def test_divergence_against_the_formula(run, inputs):
    params, _, divergence = run("vae")
    x = np.pad(inputs.images[3], ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge").astype(np.float64)
    kernel = np.asarray(params["encoder"]["conv"]["kernel"], np.float64)
    h, w = x.shape[1] - 2, x.shape[2] - 2
    y = sum(x[:, i : i + h, j : j + w] @ kernel[i, j] for i in range(3) for j in range(3))
    y = np.maximum(y + params["encoder"]["conv"]["bias"], 0).mean((1, 2))
    code = y @ params["code"]["kernel"] + params["code"]["bias"]
    mean, log_variance = np.split(np.asarray(code), 2, axis=-1)
    expected = 0.5 * (np.exp(log_variance) + mean**2 - 1 - log_variance).sum(-1).mean()
    assert float(divergence) == pytest.approx(expected, rel=1e-4)

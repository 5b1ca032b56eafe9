"""Putting synthesized pixels into a photo without a step of light or colour.

The photo and what the network paints at the same place differ: by a little light and colour, and by their
textures. Where the photo is kept this offset is known; it is continued over the new pixels and added to them,
so that no step is left. Textures are not continued: a reflection in water may end where the photo does.
From the border of the kept pixels the offset is continued as smoothly as can be, by the membrane of Pérez,
Gangnet and Blake, "Poisson image editing", SIGGRAPH 2003, in its form for offsets. A plain membrane carries
the offset of a bright sky into the dark road below it, and the mean of a few border pixels as far as the
picture goes. Therefore

  - the membrane is cut where the label changes: a region is adapted by kept pixels of its own class;
  - what it carries is only how much the offset differs from the one to be expected of this class at this
    height (`expected`), and it fades with the distance.
"""

import numpy as np
from scipy.signal import lfilter
from scipy.sparse import coo_array, diags_array
from scipy.sparse.linalg import cg, splu

# More pixels than these are not solved for at once: a minute and gigabytes for a picture of four million.
MAX_DIRECT = 300_000


def composite(photo, synthesis, kept, label, reach):
    """The photo where it is kept, elsewhere the synthesis, adapted to it.

    Args:
      photo: uint8 [h, w, 3]; what is not kept does not count.
      synthesis: uint8 [h, w, 3], of the whole picture: where the photo is kept it tells the offset.
      kept: bool [h, w].
      label: int [h, w], classes of the whole picture.
      reach: as of `membrane`.

    Returns:
      uint8 [h, w, 3], the photo bit for bit where it is kept. Where nothing is kept: the synthesis.
    """
    if not kept.any():
        return synthesis.copy()
    offset = membrane(photo.astype(np.float64) - synthesis, kept, label, reach)
    filled = np.rint(np.clip(synthesis + offset, 0, 255)).astype(np.uint8)
    return np.where(kept[..., None], photo, filled)


def membrane(values, kept, label, reach):
    """Continues known values, within classes.

    With m = `expected(values, kept, label, reach / 8)`, the result is m + u, where u is known for kept
    pixels, and for the others minimizes Σ (u_i - u_j)² + Σ u_i² / reach². The first sum runs over neighbours
    (side by side, at least one of them not kept) of equal label; at the border of the picture there is no
    condition.

    Args:
      values: float [h, w, c]; those that are not kept do not count.
      kept: bool [h, w], somewhere True.
      label: int [h, w].
      reach: how far, in pixels, u reaches: at this distance from a straight border 1/e of it is left.
        Above 0.

    Returns:
      float64 [h, w, c]; kept values are as they were, to rounding.
    """
    means = expected(values, kept, label, reach / 8)
    return means + _continued(np.where(kept[..., None], values - means, 0.0), kept, label, 1 / reach**2)


def expected(values, kept, label, width):
    """Which value is to be expected, by label and height: float64 [h, w, c].

    For each label and row it is the mean of the kept values with this label, each weighed by
    exp(-rows / width): in photos, light and distance change with the height, above all in the sky. Where no
    value with this label is kept, it is the mean of all.
    """
    classes, index = np.unique(label, return_inverse=True)
    rows = np.arange(len(label))[:, None]
    cells = index.reshape(label.shape) * len(rows) + rows
    # Sums over the pixels of each label in each row; the last column counts them.
    found = np.concatenate([values[kept], np.ones((np.count_nonzero(kept), 1))], axis=1)
    sums = [np.bincount(cells[kept], column, len(classes) * len(rows)) for column in found.T]
    sums = np.stack(sums, axis=-1).reshape(len(classes), len(rows), -1)
    decay = [1.0], [1.0, -np.exp(-1 / width)]
    near = lfilter(*decay, sums, axis=1) + lfilter(*decay, sums[:, ::-1], axis=1)[:, ::-1] - sums
    # Rows so far off that their weights vanish count a little, all alike.
    near += 1e-6 * sums.sum(axis=1, keepdims=True)
    near = np.where(near[..., -1:] > 0, near, sums.sum(axis=(0, 1)))
    return (near[..., :-1] / near[..., -1:]).reshape(-1, near.shape[-1] - 1)[cells]


def _continued(known, kept, label, pull):
    """The u of `membrane`; `known` holds it where it is kept, and 0 elsewhere."""
    unknown = ~kept
    if not unknown.any():
        return known
    system, right = _equations(known, kept, label, pull)
    result = known.copy()
    if len(right) <= MAX_DIRECT:
        # Symmetric and positive definite: no pivots are needed, and an ordering for A + Aᵀ fills in least.
        factors = splu(
            system, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
        )
        result[unknown] = factors.solve(right)
        return result
    # Of a large picture the half gives what is smooth, and a few steps the rest.
    half = _continued(known[::2, ::2], kept[::2, ::2], label[::2, ::2], 4 * pull)
    guess = half.repeat(2, axis=0)[: len(known)].repeat(2, axis=1)[:, : known.shape[1]][unknown]
    columns = zip(right.T, guess.T, strict=True)
    solved = [cg(system, b, x0=x, rtol=1e-5, maxiter=300)[0] for b, x in columns]
    result[unknown] = np.stack(solved, axis=-1)
    return result


def _equations(known, kept, label, pull):
    """The minimum as a linear system: (sparse [n, n], float64 [n, c]) for the n pixels that are not kept."""
    unknown = ~kept
    count = np.count_nonzero(unknown)
    index = np.zeros(kept.shape, np.int32)
    index[unknown] = np.arange(count)
    diagonal = np.full(count, pull)
    right = np.zeros((count, known.shape[-1]))
    edges = []
    for one, other in _neighbours(kept.shape):
        alike = label[one] == label[other]
        for here, there in ((one, other), (other, one)):
            beside_kept = alike & unknown[here] & kept[there]
            np.add.at(diagonal, index[here][beside_kept], 1)
            np.add.at(right, index[here][beside_kept], known[there][beside_kept])
        inner = alike & unknown[one] & unknown[other]
        edges.append((index[one][inner], index[other][inner]))
    first, second = (np.concatenate(ends) for ends in zip(*edges, strict=True))
    np.add.at(diagonal, first, 1)
    np.add.at(diagonal, second, 1)
    links = coo_array((np.ones(len(first)), (first, second)), (count, count))
    return (diags_array(diagonal) - links - links.T).tocsc(), right


def _neighbours(size):
    """Index pairs (one, other) of all pixels and their right, then lower, neighbours."""
    everything = slice(None)
    yield (everything, slice(0, size[1] - 1)), (everything, slice(1, size[1]))
    yield (slice(0, size[0] - 1), everything), (slice(1, size[0]), everything)

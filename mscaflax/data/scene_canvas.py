"""The canvas that scenes are painted on: coordinates, smooth noise, and blending with coverage.

Pictures are kept as planes [3, h, w] while they are painted: numpy then runs along rows, not channels.
"""

from __future__ import annotations

import numpy as np

from mscaflax.data.scene_elements import Disc, Layout
from mscaflax.data.scene_styles import Look

_TABLE = 64
# Powers 1, f, f², f³ of the place in a cell to the weights of the four lattice points of a cubic B-spline.
_BASIS = np.float32([[1, 4, 1, 0], [-3, 0, 3, 0], [3, -6, 3, 0], [-1, 3, -3, 1]]) / 6


def unit(value):
    """`value` limited to [0, 1]; np.clip takes several times as long on small arrays."""
    return np.minimum(np.maximum(value, 0), 1)


def smoothstep(low, high, value):
    """0 below `low`, 1 above `high`, a smooth rise between."""
    t = unit((value - low) * (1 / (high - low)))
    return t * t * (3 - 2 * t)


def planes(colour: np.ndarray) -> np.ndarray:
    """RGB [3] as [3, 1, 1]."""
    return colour[:, None, None]


def _spline(at: np.ndarray) -> tuple[int, np.ndarray]:
    """B-spline weights of lattice points for coordinates `at` [n]: (first point, weights [n, points])."""
    floor = np.floor(at)
    f = (at - floor).astype(np.float32)
    cell = floor.astype(np.int64)
    low = int(cell.min())
    n = int(cell.max()) + 4 - low
    weights = np.zeros((len(at), n), np.float32)
    powers = np.empty((len(at), 4), np.float32)
    powers[:, 0] = 1
    powers[:, 1] = f
    powers[:, 2] = f * f
    powers[:, 3] = powers[:, 2] * f
    index = (np.arange(len(at)) * n + cell - low)[:, None] + np.arange(4)
    weights.reshape(-1)[index] = powers @ _BASIS
    return low - 1, weights


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a @ b by blocks of rows, each too small for BLAS to share out among threads.

    Its threads gain nothing at these sizes, and where several processes render they spin against each other
    (seven times slower with two processes on two cores).
    """
    rows = max(1, 200_000 // (a.shape[1] * b.shape[1]))
    if rows >= len(a):
        return a @ b
    out = np.empty((len(a), b.shape[1]), np.float32)
    for i in range(0, len(a), rows):
        np.matmul(a[i : i + rows], b, out=out[i : i + rows])
    return out


class Canvas:
    """Image [3, h, w] and label map [h, w] under construction, with the look and every pixel's coordinates.

    The scene is 2 x 1 units; a canvas of another shape sees the largest centred part of its shape.
    """

    def __init__(self, layout: Layout, look: Look, size: tuple[int, int]):
        self.height, self.width = size
        self.look = look
        self.horizon = layout.horizon
        self.suns = [e.x for e in layout.elements if isinstance(e, Disc)]
        self.pixel = min(1 / self.height, 2 / self.width)
        self.x0 = 1 - self.width * self.pixel / 2
        self.y0 = 0.5 - self.height * self.pixel / 2
        self.x = (self.x0 + (np.arange(self.width, dtype=np.float32) + 0.5) * np.float32(self.pixel))[None]
        self.y = (self.y0 + (np.arange(self.height, dtype=np.float32) + 0.5) * np.float32(self.pixel))[
            :, None
        ]
        self.image = np.empty((3, *size), np.float32)
        self.label = np.zeros(size, np.uint8)
        rng = np.random.Generator(np.random.Philox(layout.seed))
        self._table = rng.random((_TABLE, _TABLE), np.float32) * 2 - 1
        # Everything below this height gets painted over; painters of ground stop there.
        self.floor = 1.0
        self._leaves: np.ndarray | None = None

    def noise(self, x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
        """Smooth noise of about unit deviation and wavelength on the grid x [1, n] by y [m, 1]; [m, n]."""
        column, across = _spline(x[0] + seed % 61)
        row, down = _spline(y[:, 0] + seed % 47)
        grid = self._table.take(np.arange(row, row + down.shape[1]), 0, mode="wrap")
        grid = grid.take(np.arange(column, column + across.shape[1]), 1, mode="wrap")
        return _product(down, _product(grid, across.T)) * np.float32(3.4)

    def noise_line(self, x: np.ndarray, seed: int, crisp: bool = False) -> np.ndarray:
        """The same along a line, x [n] to [n]; `crisp` joins the lattice points by straight lines."""
        row = self._table[seed % _TABLE]
        if crisp:
            first = int(np.floor(x[0]))
            points = np.arange(first, int(x[-1]) + 3)
            return np.interp(x, points, row.take(points, mode="wrap")).astype(np.float32) * 1.7
        column, across = _spline(x)
        return (across @ row.take(np.arange(column, column + across.shape[1]), mode="wrap")) * np.float32(2.4)

    def leaves(self, box: Box) -> np.ndarray:
        """The texture of foliage on a box [m, n]; one for the whole canvas, made when first asked for."""
        if self._leaves is None:
            self._leaves = self.noise(self.x * 34, self.y * 36, 5) + 0.7 * self.noise(
                self.x * 70, self.y * 70, 14
            )
        return self._leaves[box.rows, box.columns]

    def cover(self, signed: np.ndarray) -> np.ndarray:
        """Pixel coverage of a shape from the signed distance to its border (positive inside)."""
        return unit(signed * np.float32(1 / self.pixel) + np.float32(0.5))

    def colours(self, class_id: int, depth, tint=1.0) -> tuple[np.ndarray, np.ndarray]:
        """(unlit, gain), each [3, ...]: a surface under light s in [0, 1] is unlit + s · gain, haze included.

        `depth` is a number or an array [m, n or 1]; `tint` multiplies the reflectance.
        """
        look = self.look
        albedo = look.albedo[class_id] * tint
        clear = np.exp(np.float32(-look.density) * np.float32(depth))
        air = look.air - albedo * look.ambient
        return (planes(albedo * look.ambient) + planes(air) * (1 - clear), planes(albedo * look.key) * clear)

    def paint(self, box: Box, alpha: np.ndarray, colour: np.ndarray, class_id: int | None) -> None:
        """Blend `colour` [3, m or 1, n or 1] over the box by `alpha` [m, n]; label where alpha passes 0.5."""
        target = self.image[:, box.rows, box.columns]
        target += alpha * (colour - target)
        if class_id is not None:
            self.label[box.rows, box.columns][alpha > 0.5] = class_id

    def darken(self, box: Box, alpha: np.ndarray) -> None:
        """A cast shadow: the picture loses the share `alpha` [m, n] of its light, bluish."""
        strength = alpha * np.float32(0.25 + 0.75 * self.look.contrast)
        self.image[:, box.rows, box.columns] *= 1 - strength * planes(np.float32([1.0, 0.95, 0.85]))

    def facing(self, normal):
        """Light in [0, 1] on a surface that faces left (-1), the viewer (0) or right (1)."""
        half = np.float32(0.5 * self.look.contrast * self.look.light)
        return 0.5 + half * np.minimum(np.maximum(normal, np.float32(-1)), np.float32(1))


class Box:
    """A window of the canvas: pixel slices and their centres, x [1, n] and y [m, 1], in scene units."""

    def __init__(self, canvas: Canvas, left=0.0, right=2.0, top=0.0, bottom=1.0):
        scale = 1 / canvas.pixel
        first, last = int((left - canvas.x0) * scale - 1), int((right - canvas.x0) * scale + 2)
        upper, lower = int((top - canvas.y0) * scale - 1), int((bottom - canvas.y0) * scale + 2)
        first, upper = max(first, 0), max(upper, 0)
        last, lower = min(last, canvas.width), min(lower, canvas.height)
        self.rows, self.columns = slice(upper, max(upper, lower)), slice(first, max(first, last))
        self.x = canvas.x[:, self.columns]
        self.y = canvas.y[self.rows]
        self.empty = last <= first or lower <= upper

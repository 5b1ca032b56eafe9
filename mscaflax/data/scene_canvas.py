"""The canvas that scenes are painted on: coordinates, smooth noise, and blending with coverage."""

from __future__ import annotations

import numpy as np

from mscaflax.data.scene_elements import Layout
from mscaflax.data.scene_styles import Look

_TABLE = 64


def smoothstep(low, high, value):
    """0 below `low`, 1 above `high`, a smooth rise between."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _spline(at: np.ndarray) -> tuple[int, np.ndarray]:
    """Cubic B-spline weights of lattice points for coordinates `at` [n]: (first point, weights [n, points])."""
    cell = np.floor(at).astype(np.int64)
    f = (at - cell).astype(np.float32)
    first = int(cell.min()) - 1
    n = int(cell.max()) + 3 - first
    weights = np.zeros((len(at), n), np.float32)
    rows = np.arange(len(at))
    g = 1 - f
    f2, g2 = f * f, g * g
    column = cell - 1 - first
    weights[rows, column] = g2 * g / 6
    weights[rows, column + 1] = (4 - 6 * f2 + 3 * f2 * f) / 6
    weights[rows, column + 2] = (4 - 6 * g2 + 3 * g2 * g) / 6
    weights[rows, column + 3] = f2 * f / 6
    return first, weights


class Box:
    """A window of the canvas: pixel slices and their centres, x [1, n] and y [m, 1], in scene units."""

    def __init__(self, canvas: Canvas, left=0.0, right=2.0, top=0.0, bottom=1.0):
        w, h, pixel = canvas.width, canvas.height, canvas.pixel
        c0 = int(np.clip(np.floor((left - canvas.x0) / pixel - 1), 0, w))
        c1 = int(np.clip(np.ceil((right - canvas.x0) / pixel + 1), c0, w))
        r0 = int(np.clip(np.floor((top - canvas.y0) / pixel - 1), 0, h))
        r1 = int(np.clip(np.ceil((bottom - canvas.y0) / pixel + 1), r0, h))
        self.rows, self.columns = slice(r0, r1), slice(c0, c1)
        self.x = canvas.x[:, c0:c1]
        self.y = canvas.y[r0:r1]
        self.empty = r0 == r1 or c0 == c1


class Canvas:
    """Image and label map under construction, with the look and the coordinates of every pixel.

    The scene is 2 x 1 units; a canvas of another shape sees the largest centred part of its shape.
    """

    def __init__(self, layout: Layout, look: Look, size: tuple[int, int]):
        self.height, self.width = size
        self.look = look
        self.horizon = layout.horizon
        self.pixel = min(1 / self.height, 2 / self.width)
        self.x0 = 1 - self.width * self.pixel / 2
        self.y0 = 0.5 - self.height * self.pixel / 2
        self.x = (self.x0 + (np.arange(self.width, dtype=np.float32) + 0.5) * self.pixel)[None]
        self.y = (self.y0 + (np.arange(self.height, dtype=np.float32) + 0.5) * self.pixel)[:, None]
        self.image = np.empty((*size, 3), np.float32)
        self.label = np.zeros(size, np.uint8)
        rng = np.random.Generator(np.random.Philox(layout.seed))
        self._table = rng.random((_TABLE, _TABLE), np.float32) * 2 - 1

    def noise(self, x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
        """Smooth noise of about unit deviation and unit wavelength at the grid x [1, n] by y [m, 1]; returns [m, n]."""
        column, across = _spline(x[0] + seed % 61)
        row, down = _spline(y[:, 0] + seed % 47)
        grid = self._table.take(np.arange(row, row + down.shape[1]), 0, mode="wrap")
        grid = grid.take(np.arange(column, column + across.shape[1]), 1, mode="wrap")
        return (down @ (grid @ across.T)) * 3.4

    def noise_line(self, x: np.ndarray, seed: int) -> np.ndarray:
        """The same along a line: x [n] to [n]."""
        column, across = _spline(x)
        row = self._table[seed % _TABLE].take(np.arange(column, column + across.shape[1]), mode="wrap")
        return (across @ row) * 2.4

    def cover(self, signed: np.ndarray) -> np.ndarray:
        """Pixel coverage of a shape from the signed distance to its border (positive inside), in scene units."""
        return np.clip(signed * (1 / self.pixel) + 0.5, 0, 1)

    def colours(self, class_id: int, depth, tint=1.0) -> tuple[np.ndarray, np.ndarray]:
        """(unlit, gain): a surface under light s in [0, 1] is unlit + s · gain, haze included.

        `depth` is a number or [..., 1] per position; `tint` multiplies the reflectance.
        """
        look = self.look
        albedo = look.albedo[class_id] * tint
        air = 1 - np.exp(-look.density * np.float32(depth))
        return albedo * look.ambient * (1 - air) + look.air * air, albedo * look.key * (1 - air)

    def paint(self, box: Box, alpha: np.ndarray, colour: np.ndarray, class_id: int | None) -> None:
        """Blend `colour` (broadcast to [m, n, 3]) over the box by `alpha` [m, n]; label where alpha passes a half."""
        target = self.image[box.rows, box.columns]
        target += alpha[..., None] * (colour - target)
        if class_id is not None:
            self.label[box.rows, box.columns][alpha > 0.5] = class_id

    def darken(self, box: Box, alpha: np.ndarray) -> None:
        """A cast shadow: the picture loses the share `alpha` [m, n] of its light, bluish."""
        strength = alpha * (0.25 + 0.75 * self.look.contrast)
        self.image[box.rows, box.columns] *= 1 - strength[..., None] * np.float32([1.0, 0.95, 0.85])

    def facing(self, normal):
        """Light in [0, 1] on a surface that faces left (-1), the viewer (0) or right (1), softened by the weather."""
        return 0.5 + 0.5 * self.look.contrast * np.clip(normal * self.look.light, -1, 1)

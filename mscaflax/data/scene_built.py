"""Painters of the built parts of a scene: houses and street fronts in perspective."""

from __future__ import annotations

import numpy as np

from mscaflax.data.scene_canvas import Box, Canvas, smoothstep
from mscaflax.data.scene_elements import BUILDING, WINDOW, Facades, House


def _pulse(at: np.ndarray, width: float, footprint) -> np.ndarray:
    """Coverage of the repeated interval |at - k| < width/2, k integer, seen through a pixel of `footprint` cells."""
    offset = np.abs(at - np.floor(at + 0.5))
    return np.clip((width / 2 - offset) / np.maximum(footprint, 1e-4) + 0.5, 0, 1)


def _hash(column: np.ndarray, row: np.ndarray, seed: int) -> np.ndarray:
    """A number in [0, 1) for every cell."""
    mixed = np.sin(column * 12.9898 + row * 78.233 + seed % 97)
    return np.abs(mixed * 43.75) % 1.0


def _glass(c: Canvas, depth, column, row, seed, side_light) -> np.ndarray:
    """The colour of windows: sky-tinted glass by day, warm light by night, a little different from pane to pane."""
    look = c.look
    which = _hash(column, row, seed)[..., None]
    unlit, gain = c.colours(WINDOW, depth)
    day = 0.75 * (unlit + gain * side_light) + 0.22 * look.middle * (0.6 + 0.8 * which)
    night = look.window_lit * (0.72 + 0.36 * which)
    share = look.lights * smoothstep(-0.1, 0.35, which + look.lights - 0.6)
    return day + (night - day) * share


def paint_house(c: Canvas, e: House) -> None:
    """A house in slight oblique view: front, side wall, roof, and rows of windows on both walls."""
    look = c.look
    side = abs(e.side)
    to_right = e.side >= 0
    lit_front = c.facing(-0.35 if to_right else 0.35) * 0.95
    lit_side = c.facing(1.0 if to_right else -1.0) * 0.95
    left = e.x - (0 if to_right else side)
    right = e.x + e.width + (side if to_right else 0)
    top = e.base - e.height
    spread = 0.9 * e.height
    shadow = Box(c, left - spread, right + spread, e.base - 0.02, e.base + 0.10 * e.height)
    if not shadow.empty:
        lean = -spread * look.light * 0.5
        r = np.abs((shadow.x - (left + right) / 2 - lean) / ((right - left) / 2 + spread * 0.35)) ** 4
        r = r + ((shadow.y - e.base) / (0.07 * e.height + c.pixel)) ** 2
        c.darken(shadow, 0.38 * smoothstep(1.2, 0.3, r))
    box = Box(c, left - 0.03, right + 0.03, top - e.roof - 0.03, e.base)
    if box.empty:
        return
    x, y = box.x, box.y
    unlit, gain = c.colours(BUILDING, e.depth)
    walls = c.cover(e.base - y) * c.cover(y - top)
    # u runs along the wall in units of its length.
    u_side = (x - e.x - e.width) / max(side, 1e-3) if to_right else (e.x - x) / max(side, 1e-3)
    front = walls * c.cover(x - e.x) * c.cover(e.x + e.width - x)
    foot = 0.06 * (1 - np.clip((e.base - y) / e.height * 4, 0, 1))
    roof_tint = np.float32([0.78, 0.60, 0.56])
    if side > 0:
        flank = walls * c.cover(x - left) * c.cover(right - x)
        c.paint(box, flank, unlit + (lit_side - foot)[..., None] * gain, BUILDING)
        _wall_windows(c, box, u_side, (e.base - y) / e.height, max(1, round(e.columns * side / e.width)), e.rows,
                      side, e.height, e.depth, e.seed + 31, lit_side)  # fmt: skip
    c.paint(box, front, unlit + (lit_front - foot)[..., None] * gain, BUILDING)
    _wall_windows(c, box, (x - e.x) / e.width, (e.base - y) / e.height, e.columns, e.rows,
                  e.width, e.height, e.depth, e.seed, lit_front)  # fmt: skip
    r_unlit, r_gain = c.colours(BUILDING, e.depth, roof_tint)
    if e.roof > 0:
        middle = e.x + e.width / 2
        rise = (top - y) / e.roof  # 0 at the eaves, 1 at the ridge
        gable = np.minimum(e.width / 2 * (1 - rise) - np.abs(x - middle), top - y)
        if side > 0:
            near = middle + (e.width / 2 * (1 - rise)) * (1 if to_right else -1)
            far = near + e.side * (1 - 0.12 * rise) + (0.012 if to_right else -0.012)
            slab = np.minimum((x - near) * (1 if to_right else -1), (far - x) * (1 if to_right else -1))
            slab = np.minimum(slab, np.minimum(top + 0.006 - y, y - top + e.roof))
            tile = 0.05 * np.sin(rise * 22)
            c.paint(
                box,
                c.cover(slab),
                r_unlit + ((lit_side * 0.6 + 0.4) * (1 + tile))[..., None] * r_gain,
                BUILDING,
            )
        c.paint(box, c.cover(gable), unlit + lit_front * gain, BUILDING)
        eave = np.abs(np.abs(x - middle) - e.width / 2 * (1 - rise))
        edge = np.minimum(0.012 - eave, np.minimum(top + 0.012 - y, y - top + e.roof + 0.012))
        c.paint(box, c.cover(edge), r_unlit + lit_front * r_gain, BUILDING)
    else:
        cornice = np.minimum(np.minimum(x - left + 0.006, right - x + 0.006), 0.012 - np.abs(y - top))
        c.paint(box, c.cover(cornice), r_unlit + lit_front * r_gain, BUILDING)


def _wall_windows(c, box, u, v, columns, rows, width, height, depth, seed, lit) -> None:
    """Windows on a wall; u, v in [0, 1] along and up the wall."""
    at_u, at_v = u * columns - 0.5, v * rows - 0.56
    across = _pulse(at_u, 0.46, c.pixel * columns / width) * ((u > 0) & (u < 1))
    up = _pulse(at_v, 0.54, c.pixel * rows / height) * ((v > 0) & (v < 1))
    alpha = across * up
    colour = _glass(c, depth, np.floor(at_u + 0.5), np.floor(at_v + 0.5), seed, lit)
    c.paint(box, alpha, colour, WINDOW)


def paint_facades(c: Canvas, e: Facades) -> None:
    """The house fronts along one side of a street, far to near."""
    look = c.look
    sign = -1.0 if e.left else 1.0
    lit_wall = c.facing(-sign) * 0.95
    lit_end = c.facing(0.25 * sign) * 0.9
    for z0, z1, height, window, pitch, seed in sorted(e.blocks, key=lambda b: -b[0]):
        near, far = e.vx + sign * e.lateral / z0, e.vx + sign * e.lateral / z1
        top = e.vy + (e.camera - height) / z0
        bottom = e.vy + e.camera / z0
        outer = (near, 2.0) if sign > 0 else (0.0, near)
        warm = np.float32(1 + 0.10 * np.sin(seed * np.array([1.0, 1.7, 2.3])))
        # The end wall, seen above lower neighbours and in gaps.
        box = Box(c, *outer, top, bottom)
        if not box.empty:
            unlit, gain = c.colours(BUILDING, z0 * 0.10, warm * 0.94)
            alpha = c.cover(box.y - top) * c.cover(bottom - box.y) * c.cover(sign * (box.x - near))
            c.paint(box, alpha, unlit + lit_end * gain, BUILDING)
        box = Box(c, min(near, far), max(near, far), min(top, e.vy + (e.camera - height) / z1), bottom)
        if box.empty:
            continue
        offset = np.maximum(sign * (box.x - e.vx), 1e-3)
        z = e.lateral / offset
        up = e.camera - (box.y - e.vy) * z  # height of the point on the wall
        # Distances from the borders, in picture units: one unit up is 1/z.
        alpha = c.cover((height - up) / z) * c.cover(up / z) * c.cover(sign * (near - box.x)) * c.cover(
            sign * (box.x - far))  # fmt: skip
        unlit, gain = c.colours(BUILDING, (z * 0.10)[..., None], warm)
        storey = 0.75
        floors = max(1, int(height / storey))
        at_v = up / height * floors - 0.55
        at_u = (z - z0) / (z1 - z0) * max(1, round((z1 - z0) / pitch)) - 0.5
        cells = max(1, round((z1 - z0) / pitch)) / (z1 - z0)
        low = smoothstep(0.9, 0.0, up)
        band = 0.05 * _pulse(at_v + 0.5, 0.10, c.pixel * z * floors / height)
        light = lit_wall * (1 - 0.16 * low - band)
        colour = unlit * (1 - 0.12 * low)[..., None] + light[..., None] * gain
        roof = smoothstep(0.14, 0.10, height - up) * (height > up)
        colour = colour * (1 - 0.35 * roof[..., None] * np.float32([0.8, 1.0, 1.0]))
        c.paint(box, alpha, colour, BUILDING)
        across = _pulse(at_u, window, c.pixel * z * z / e.lateral * cells)
        pane = alpha * across * _pulse(at_v, 0.58, c.pixel * z * floors / height) * (up > 0.12)
        glass = _glass(c, (z * 0.10)[..., None], np.floor(at_u + 0.5), np.floor(at_v + 0.5), seed, lit_wall)
        c.paint(box, pane, glass, WINDOW)
    # Contact shadow at the foot of the walls.
    if look.contrast > 0:
        z0 = min(b[0] for b in e.blocks)
        near = e.vx + sign * e.lateral / z0
        box = Box(c, min(near, e.vx), max(near, e.vx), e.vy)
        if not box.empty:
            distance = e.lateral - sign * (box.x - e.vx) * e.camera / np.maximum(box.y - e.vy, 1e-3)
            strength = 0.35 if sign * look.light > 0 else 0.12
            c.darken(box, strength * smoothstep(0.5, 0.0, distance) * (distance > 0))


PAINTERS = {House: paint_house, Facades: paint_facades}

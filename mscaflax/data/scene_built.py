"""Painters of the built parts of a scene: houses and street fronts in perspective."""

from __future__ import annotations

import math

import numpy as np

from mscaflax.data.scene_canvas import Box, Canvas, planes, smoothstep, unit
from mscaflax.data.scene_elements import BUILDING, WINDOW, Facades, House

_ROOF = np.float32([0.72, 0.56, 0.53])
_STOREY = 0.52  # of a street front, in street units


def _pulse(offset: np.ndarray, width: float, footprint) -> np.ndarray:
    """Coverage of |offset| < width/2, in cells, seen through a pixel of `footprint` cells."""
    return unit((width / 2 - np.abs(offset)) / np.maximum(footprint, np.float32(1e-4)) + 0.5)


def _glass(c: Canvas, depth, column, row, seed: int, light) -> np.ndarray:
    """The colour of windows: some sky by day, warm light by night, varied from pane to pane."""
    look = c.look
    mixed = np.abs(np.sin(column * 12.9898 + row * 78.233 + seed % 97) * 43.75)
    which = mixed - np.floor(mixed)
    unlit, gain = c.colours(WINDOW, depth)
    day = 0.75 * (unlit + gain * light) + planes(0.2 * look.middle) * (0.6 + 0.8 * which)
    share = look.lights * smoothstep(-0.1, 0.35, which + (look.lights - 0.6))
    return day + (planes(look.window_lit) * (0.72 + 0.36 * which) - day) * share


def _windows(c: Canvas, box: Box, wall, u, v, size, footprint, depth, seed: int, light) -> None:
    """Windows on a wall of coverage `wall`: u, v count them along and up, `size` is their share of a cell."""
    column, row = np.floor(u + 0.5), np.floor(v + 0.5)
    at_u, at_v = u - column, v - row
    unlit, gain = c.colours(BUILDING, depth, 1.16)
    frame = wall * _pulse(at_u, size[0] * 1.32, footprint[0]) * _pulse(at_v, size[1] * 1.22, footprint[1])
    c.paint(box, 0.8 * frame, unlit + light * gain, None)
    pane = wall * _pulse(at_u, size[0], footprint[0]) * _pulse(at_v, size[1], footprint[1])
    c.paint(box, pane, _glass(c, depth, column, row, seed, light), WINDOW)


def paint_house(c: Canvas, e: House) -> None:
    """A house in slight oblique view: front, side wall, roof, and rows of windows on both walls."""
    sign = 1.0 if e.side >= 0 else -1.0
    side = abs(e.side)
    left = e.x - (side if sign < 0 else 0)
    right = e.x + e.width + (side if sign > 0 else 0)
    top = e.base - e.height
    _ground_shadow(c, left, right, e.base, e.height)
    box = Box(c, left - 0.03, right + 0.03, top - e.roof - 0.03, e.base)
    if box.empty:
        return
    x, y = box.x, box.y
    lit_front, lit_side = 0.82 * c.facing(-0.4 * sign), 0.82 * c.facing(1.0 * sign)
    unlit, gain = c.colours(BUILDING, e.depth)
    walls = c.cover(e.base - y) * c.cover(y - top)
    up = (e.base - y) / e.height
    foot = 0.92 + 0.08 * unit(up * 5)
    if side > 0:
        flank = walls * c.cover(x - left) * c.cover(right - x)
        c.paint(box, flank, (unlit + lit_side * gain) * foot, BUILDING)
        along = (x - e.x - e.width if sign > 0 else e.x - x) / side
        columns = max(1, round(e.columns * side / e.width))
        inside = flank * ((along > 0) & (along < 1))
        _house_windows(c, box, inside, along * columns, up * e.rows, side / columns, e, 31, lit_side)
    front = walls * c.cover(x - e.x) * c.cover(e.x + e.width - x)
    c.paint(box, front, (unlit + lit_front * gain) * foot, BUILDING)
    along = (x - e.x) / e.width * e.columns
    _house_windows(c, box, front, along, up * e.rows, e.width / e.columns, e, 0, lit_front)
    roof, lit_roof = c.colours(BUILDING, e.depth, _ROOF)
    if e.roof == 0:
        cornice = np.minimum(np.minimum(x - left, right - x) + 0.006, 0.012 - np.abs(y - top))
        c.paint(box, c.cover(cornice), roof + lit_front * lit_roof, BUILDING)
        return
    middle, half = e.x + e.width / 2, e.width / 2
    rise = (top - y) / e.roof  # 0 at the eaves, 1 at the ridge
    slant = half * (1 - rise)
    steep = e.roof / math.hypot(e.roof, half)
    gable = np.minimum((slant - np.abs(x - middle)) * steep, top - y)
    c.paint(box, c.cover(gable), unlit + lit_front * gain, BUILDING)
    if side > 0:
        start = middle + slant * sign
        end = start + (side * (1 - 0.1 * rise) + 0.015) * sign
        slab = np.minimum(np.minimum((x - start) * sign, (end - x) * sign) * steep, top + 0.008 - y)
        slab = np.minimum(slab, y - top + e.roof)
        tiles = 1 + 0.05 * np.sin(rise * 22)
        c.paint(box, c.cover(slab), (roof + (0.35 + 0.6 * lit_side) * lit_roof) * tiles, BUILDING)
    chimney = e.x + e.width * (0.3 if e.seed % 2 else 0.7)
    shaft = np.minimum(0.09 * e.width - np.abs(x - chimney), y - top + 0.95 * e.roof)
    shaft = np.minimum(shaft, top - 0.30 * e.roof - y)
    if e.seed % 3:
        c.paint(box, c.cover(shaft) * (1 - c.cover(gable)), unlit * 0.8 + 0.8 * lit_front * gain, BUILDING)
    eave = np.abs(np.abs(x - middle) - slant) * steep
    edge = np.minimum(0.009 - eave, np.minimum(top + 0.014 - y, y - top + e.roof + 0.012))
    c.paint(box, c.cover(edge), roof + lit_front * lit_roof, BUILDING)


def _house_windows(c: Canvas, box: Box, wall, u, v, cell: float, e: House, salt: int, light) -> None:
    size = (0.44, 0.50)
    footprint = (c.pixel / cell, c.pixel * e.rows / e.height)
    _windows(c, box, wall, u - 0.5, v - 0.55, size, footprint, e.depth, e.seed + salt, light)


def _ground_shadow(c: Canvas, left: float, right: float, base: float, height: float) -> None:
    spread = 0.9 * height
    box = Box(c, left - spread, right + spread, base - 0.02, base + 0.10 * height)
    if not box.empty:
        r = (box.x - (left + right) / 2 + 0.45 * spread * c.look.light) / ((right - left) / 2 + 0.35 * spread)
        r = (r * r) ** 2 + ((box.y - base) / (0.07 * height + c.pixel)) ** 2
        c.darken(box, 0.38 * smoothstep(1.3, 0.2, r))


def paint_facades(c: Canvas, e: Facades) -> None:
    """The house fronts along one side of a street, far to near."""
    sign = -1.0 if e.left else 1.0
    for block in sorted(e.blocks, key=lambda b: -b[0]):
        _paint_block(c, e, sign, *block)
    # Where wall and ground meet it is darker, and the shaded side of the street throws a shadow.
    nearest = e.vx + sign * e.lateral / min(b[0] for b in e.blocks)
    box = Box(c, min(nearest, e.vx), max(nearest, e.vx), e.vy)
    if not box.empty:
        inwards = e.lateral - sign * (box.x - e.vx) * e.camera / np.maximum(box.y - e.vy, 1e-3)
        strength = 0.36 if sign * c.look.light > 0 else 0.14
        c.darken(box, strength * smoothstep(0.45, 0.0, inwards) * (inwards > 0))


def _paint_block(c: Canvas, e: Facades, sign: float, z0, z1, height, window, pitch, seed: int) -> None:
    lit_wall, lit_end = 0.82 * c.facing(-sign), 0.8 * c.facing(0.25 * sign)
    near, far = e.vx + sign * e.lateral / z0, e.vx + sign * e.lateral / z1
    top, bottom = e.vy + (e.camera - height) / z0, e.vy + e.camera / z0
    # Neighbours differ a little in lightness and warmth.
    turn = np.sin(seed % 101 * np.float32([1.0, 1.7]))
    tint = np.float32([1.0, 1.0, 1.0]) + 0.09 * turn[0] + 0.05 * turn[1] * np.float32([1.0, 0.0, -1.0])
    # The wall that faces the viewer shows above lower neighbours and in gaps.
    box = Box(c, *((near, 2.0) if sign > 0 else (0.0, near)), top, bottom)
    if not box.empty:
        unlit, gain = c.colours(BUILDING, z0 * 0.10, tint * 0.94)
        alpha = c.cover(box.y - top) * c.cover(bottom - box.y) * c.cover(sign * (box.x - near))
        c.paint(box, alpha, unlit + lit_end * gain, BUILDING)
    box = Box(c, min(near, far), max(near, far), min(top, e.vy + (e.camera - height) / z1), bottom)
    if box.empty:
        return
    z = e.lateral / np.maximum(sign * (box.x - e.vx), 1e-3)
    up = e.camera - (box.y - e.vy) * z  # height on the wall
    near_far = c.cover(sign * (near - box.x)) * c.cover(sign * (box.x - far))
    wall = c.cover(np.minimum(height - up, up) / z) * near_far
    depth = z * 0.10
    unlit, gain = c.colours(BUILDING, depth, tint)
    floors = max(1, round(height / _STOREY))
    v = up * (floors / height)
    ledge = _pulse(v - np.floor(v + 0.5), 0.07, c.pixel * z * floors / height) * (v > 0.5)
    shade = 1 - 0.14 * unit(1 - up * 1.5) + 0.07 * ledge - 0.30 * smoothstep(0.09, 0.05, height - up)
    c.paint(box, wall, (unlit + lit_wall * gain) * shade, BUILDING)
    columns = max(1, round((z1 - z0) / pitch))
    u = (z - z0) * (columns / (z1 - z0))
    footprint = (c.pixel * z * z * (columns / (z1 - z0) / e.lateral), c.pixel * z * (floors / height))
    inside = wall * ((v > 0.02) & (v < floors - 0.02))
    _windows(c, box, inside, u - 0.5, v - 0.52, (window, 0.52), footprint, depth, seed, lit_wall)


PAINTERS = {House: paint_house, Facades: paint_facades}

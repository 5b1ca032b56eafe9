"""Painters of trees and woods."""

from __future__ import annotations

import math

import numpy as np

from mscaflax.data.scene_canvas import Box, Canvas, smoothstep, unit
from mscaflax.data.scene_elements import TREE, Tree, Treeline
from mscaflax.data.scene_paint import wave_profile

# Half width, half height and middle height of a crown, in heights of the tree.
_CROWNS = {"round": (0.34, 0.31, 0.66), "poplar": (0.13, 0.43, 0.56), "bush": (0.56, 0.40, 0.36)}
_BARK = np.float32([0.36, 0.28, 0.23])


def paint_treeline(c: Canvas, e: Treeline) -> None:
    """A wood in the distance, crowns side by side."""
    x = c.x[0]
    ground, _ = wave_profile(e.level, e.waves, x)
    # Crowns at jittered steps; the height of a crown is that of its cell.
    cell = x / e.width + 0.35 * c.noise_line(x / e.width * 0.7, e.seed)
    k = np.floor(cell)
    local = (cell - k) * 2 - 1
    size = 0.75 + 0.25 * np.sin(k * 12.9898 + e.seed % 89) + 0.3 * c.noise_line(x * 3, e.seed + 1)
    crown = 1 - np.abs(local) if e.conifer else np.sqrt(np.maximum(1 - local * local * 0.9, 0))
    profile = ground - e.height * np.maximum(size, 0.15) * (0.45 + 0.55 * crown)
    box = Box(c, top=float(profile.min()), bottom=float(ground.max()) + 0.02)
    if box.empty:
        return
    alpha = c.cover(box.y - profile) * c.cover(ground + 0.012 - box.y)
    up = unit((ground - box.y) / e.height)
    light = 0.12 + (0.5 * c.facing(local * 0.8) + 0.25 * c.facing(local)) * up
    light += 0.06 * c.noise(box.x * 40, box.y * 60, e.seed)
    unlit, gain = c.colours(TREE, e.depth)
    c.paint(box, alpha, unlit * (0.8 + 0.2 * up) + light * gain, TREE)


def _shadow(c: Canvas, x: float, base: float, half: float) -> None:
    offset = 0.9 * half * c.look.light
    box = Box(c, x - 2.6 * half, x + 2.6 * half, base - half * 0.5, base + half * 0.5)
    if not box.empty:
        r = ((box.x - x + offset) / (1.5 * half)) ** 2 + ((box.y - base) / (0.24 * half + c.pixel)) ** 2
        c.darken(box, 0.38 * smoothstep(1.5, 0.1, r))


def paint_tree(c: Canvas, e: Tree) -> None:
    """One tree with its shadow on the ground."""
    h = e.height
    _shadow(c, e.x, e.base, h * {"poplar": 0.12, "bush": 0.42, "cactus": 0.14}.get(e.kind, 0.22))
    reach = h * {"poplar": 0.2, "bush": 0.75, "palm": 0.6, "cactus": 0.3}.get(e.kind, 0.46)
    box = Box(c, e.x - reach, e.x + reach, e.base - h * 1.1, e.base + 0.02 * h)
    if box.empty:
        return
    x, y = (box.x - e.x) / h, (e.base - box.y) / h
    rng = np.random.Generator(np.random.Philox(e.seed))
    unlit, gain = c.colours(TREE, e.depth)
    leaf = c.leaves(box)
    if e.kind in ("round", "poplar", "conifer"):
        bark = c.look.albedo[TREE] * 0.25 + _BARK * 0.75
        wood, lit_wood = c.colours(TREE, e.depth, bark / c.look.albedo[TREE])
        trunk = c.cover((0.03 + 0.02 * np.maximum(0.2 - y, 0) - np.abs(x)) * h)
        trunk = trunk * c.cover(y * h) * c.cover((0.45 - y) * h)
        c.paint(box, trunk, wood * 0.9 + lit_wood * 0.9 * c.facing(x * 25), TREE)
    if e.kind == "conifer":
        inside, normal, up = _conifer(x, y, leaf, rng)
    elif e.kind == "palm":
        inside, normal, up = _palm(x, y, rng)
    elif e.kind == "cactus":
        inside, normal, up = _cactus(x, y, rng)
    else:
        inside, normal, up = _crown(x, y, leaf, rng, *_CROWNS[e.kind])
    up = unit(up)
    light = (0.12 + 0.85 * up) * c.facing(normal) + 0.18 * up
    light *= 1 + np.float32(0.06 + 0.13 * c.look.grain) * leaf
    c.paint(box, c.cover(inside * h), unlit * (0.62 + 0.38 * up) + 1.1 * light * gain, TREE)


def _crown(x, y, leaf, rng, half_width, half_height, middle):
    """(signed distance, sideways normal, how much it faces up) of a leafy crown of lobes, in tree heights."""
    n = 8
    turn = float(rng.uniform(0, 6.28))
    u, v = x / half_width, (y - middle) / half_height
    inside = bump_x = bump_y = None
    for k, size in enumerate(rng.uniform(0.40, 0.56, n).tolist()):
        r, angle = 0.66 * math.sqrt((k + 0.5) / n), 2.4 * k + turn
        dx, dy = u - r * math.cos(angle), v - r * math.sin(angle)
        lobe = size - np.sqrt(dx * dx + dy * dy)
        if inside is None:
            inside, bump_x, bump_y = lobe, np.broadcast_to(dx, lobe.shape), np.broadcast_to(dy, lobe.shape)
        else:
            nearer = lobe > inside
            bump_x, bump_y = np.where(nearer, dx, bump_x), np.where(nearer, dy, bump_y)
            inside = np.maximum(inside, lobe)
    inside = (inside + 0.035 * leaf) * min(half_width, half_height)
    # A bush stands on the ground, cut off by it.
    inside = np.minimum(inside, y)
    return inside, 0.75 * u + 0.75 * bump_x, 0.5 + 0.34 * v + 0.5 * bump_y


def _conifer(x, y, leaf, rng):
    tiers = 5 + int(rng.integers(3))
    t = unit((y - 0.1) / 0.9)
    step = (1 - t) * tiers + 0.25 * np.abs(x) / 0.3 * tiers * 0.25
    saw = step - np.floor(step)
    half = 0.29 * (1 - t) * (0.66 + 0.36 * saw) + 0.008
    inside = np.minimum((half - np.abs(x)) * 0.8 + 0.006 * leaf, np.minimum(y - 0.09, 1 - y))
    normal = x / np.maximum(half, 0.02) * 0.95
    return inside, normal, 0.92 - 0.6 * saw


def _capsule(x, y, ax, ay, bx, by, radius):
    vx, vy = bx - ax, by - ay
    t = unit(((x - ax) * vx + (y - ay) * vy) / (vx * vx + vy * vy))
    dx, dy = x - ax - t * vx, y - ay - t * vy
    return radius - np.sqrt(dx * dx + dy * dy), dx / radius


def _cactus(x, y, rng):
    side = 1.0 if rng.random() < 0.5 else -1.0
    a, b = rng.uniform(0.25, 0.42), rng.uniform(0.42, 0.58)
    parts = (
        (0, 0, 0, 0.91, 0.085),
        (0, a, 0.2 * side, a + 0.05, 0.055),
        (0.2 * side, a + 0.05, 0.2 * side, a + 0.32, 0.055),
        (0, b, -0.19 * side, b + 0.03, 0.05),
        (-0.19 * side, b + 0.03, -0.19 * side, b + 0.25, 0.05),
    )
    found = [_capsule(x, y, *part) for part in parts]
    inside, normal = found[0]
    for other, slope in found[1:]:
        normal = np.where(other > inside, slope, normal)
        inside = np.maximum(inside, other)
    ribs = 0.08 * np.cos(normal * 9)
    return np.minimum(inside, y), normal, 0.7 + ribs


def _palm(x, y, rng):
    lean = float(rng.uniform(-0.16, 0.16))
    inside, normal = _capsule(x - 1.5 * lean * unit(y) ** 2, y, 0, 0, 0, 0.76, 0.028)
    up = np.full_like(inside, 0.35)
    x, y = x - lean * 0.9, y - 0.78
    for k in range(9):
        a = (k + float(rng.uniform(-0.25, 0.25))) / 8 * np.pi * 1.1 - 0.16
        dx, dy = float(np.cos(a)), float(np.sin(a))
        u = x * dx + y * dy
        # A frond bends down as it leaves the trunk.
        v = y * dx - x * dy + np.maximum(u, 0) ** 2 * (1.4 if dx >= 0 else -1.4) * (0.35 + abs(dx))
        frond = np.minimum(
            0.055 * unit(u * 9 + 0.3) * unit(3 - u / 0.15) - np.abs(v), np.minimum(u, 0.44 - u)
        )
        better = frond > inside
        inside = np.where(better, frond, inside)
        up = np.where(better, 0.75 + v * 5 * (1 if dx >= 0 else -1), up)
        normal = np.where(better, 0.6 * dx, normal)
    return inside, normal, up


PAINTERS = {Tree: paint_tree, Treeline: paint_treeline}

"""Scene layouts: five kinds of place, each a random arrangement of the parts in `scene_elements`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mscaflax.data.scene_elements import (
    GRASS,
    SAND,
    SNOW,
    Element,
    Facades,
    Layout,
    Path,
    Tree,
    Treeline,
    Water,
)
from mscaflax.data.scene_parts import Draw, ground, height_at, mesas, ridge, sky, trees, village, waves

KINDS = ("coast", "mountain lake", "street", "countryside", "desert")


def _sea(d: Draw, top: float) -> Water:
    return Water(round(top, 4), 0.0, 0.0, 0.0, 0.0, d.seed())


def _on(profile, level: float, found: list[Tree], depth: float) -> list[Tree]:
    """Trees whose feet were drawn relative to a profile, put on it."""
    return [replace(t, base=round(height_at(level, profile, t.x) + t.base, 4), depth=depth) for t in found]


def _coast(d: Draw) -> tuple[float, list[Element]]:
    horizon = d(0.40, 0.48)
    parts = sky(d, horizon - 0.10, (2, 4))
    if d.chance(0.8):
        steep = (0.18, 0.5)
        parts.append(ridge(d, horizon + 0.008, d(0.10, 0.20), d(1.0, 1.5), d.chance(0.4), steep, 0.08))
    parts.append(_sea(d, horizon))
    if d.chance(0.8):
        # A headland rises to one side, with houses and trees, and sinks into the sea on the other.
        left = d.chance(0.5)
        slope = d(0.06, 0.10)
        profile = ((slope, 1.5, 4.4 if left else 1.54), (round(slope * 0.15, 4), d(4, 6), d(0, 6.28)))
        level = round(horizon + d(0.04, 0.06), 4)
        span = (0.05, 0.75) if left else (1.15, 1.85)
        parts.append(ground(d, GRASS, level, profile, 0.7, 0.3, shore=False))
        wood = _on(
            profile,
            level,
            trees(d, d.count(3, 6), 0.015, 0.05, 0.17, ("round", "conifer", "poplar"), (span,)),
            0.4,
        )
        parts += wood
        parts += village(d, d.count(1, 3), d(0.10, 0.14), 0.4, span[0], span[1] - 0.12,
                         lambda x: height_at(level, profile, x) + 0.05)  # fmt: skip
        parts.append(_sea(d, level + d(0.07, 0.09)))
    beach, dunes = d(0.70, 0.78), waves(d, 0.045)
    parts.append(ground(d, SAND, beach, dunes, 0.3, 0.0, 0.5, shore=True))
    top = beach + 0.08
    if d.chance(0.6):
        top = round(beach + d(0.13, 0.17), 4)
        parts.append(ground(d, GRASS, top, waves(d, 0.05, 3.0), 0.1, 0.0, 0.6))
    kinds = d.pick(("palm",), ("palm", "bush"), ("conifer", "bush"), ("round", "bush"))
    parts += trees(d, d.count(2, 4), top + 0.03, 0.97, 0.44, kinds)
    return horizon, parts


def _lake(d: Draw) -> tuple[float, list[Element]]:
    horizon = d(0.46, 0.54)
    parts = sky(d, 0.24, (1, 3))
    parts.append(ridge(d, horizon, d(0.32, 0.40), 1.3, True))
    parts.append(ridge(d, horizon + 0.01, d(0.15, 0.24), 0.8, d.chance(0.3), (0.35, 0.7)))
    shore, near_bank = horizon + d(0.01, 0.03), waves(d, 0.016)
    parts.append(ground(d, d.pick(GRASS, GRASS, SNOW), shore, near_bank, 0.7, 0.5, 0.6))
    wood = Treeline(
        round(shore + 0.01, 4), near_bank, d(0.045, 0.075), d(0.035, 0.05), d.chance(0.75), 0.6, d.seed()
    )
    parts.append(wood)
    if d.chance(0.65):
        parts += village(d, d.count(1, 2), d(0.10, 0.13), 0.4, 0.2, 1.7, lambda x: shore + 0.035)
    parts.append(_sea(d, shore + 0.072))
    near, bank, profile = d.pick(GRASS, GRASS, SNOW), d(0.82, 0.88), waves(d, 0.05)
    if d.chance(0.55):
        parts.append(ground(d, SAND, bank - 0.05, profile, 0.1, 0.0, 0.4, shore=True))
    parts.append(ground(d, near, bank, profile, 0.1, 0.0, 0.8))
    kinds = d.pick(("conifer",), ("conifer", "conifer", "bush"), ("conifer", "round"))
    parts += _on(profile, bank, trees(d, d.count(3, 6), 0.03, 0.11, 0.46, kinds), 0.15)
    return horizon, parts


def _street(d: Draw) -> tuple[float, list[Element]]:
    vx, vy = d(0.8, 1.2), d(0.54, 0.62)
    camera, road = d(0.42, 0.52), d(0.50, 0.70)
    lateral = round(road + d(0.40, 0.60), 4)
    parts = sky(d, 0.30, (2, 3), vx - 0.36, vx + 0.36)
    if d.chance(0.85):
        parts.append(ridge(d, vy + 0.02, d(0.16, 0.28), 1.3, d.chance(0.7)))
    parts.append(Treeline(round(vy + 0.02, 4), (), d(0.05, 0.08), 0.05, d.chance(0.3), 0.7, d.seed()))
    parts.append(ground(d, d.pick(GRASS, GRASS, GRASS, SNOW, SAND), vy + 0.012, (), 0.8, 0.0, 0.0))
    width = round(road / camera * (1 - vy), 4)
    parts.append(Path(vx, vy, vx, width, 0.0, 0.0, d.chance(0.75), d.seed()))
    for left in (True, False):
        blocks, z = [], d(0.45, 0.9)
        while z < 10:
            length = d(0.7, 1.5) * (1 + 0.12 * z)
            block = (z, z + length, d(0.95, 2.1), d(0.40, 0.52), d(0.24, 0.32))
            blocks.append((*(round(v, 4) for v in block), d.seed()))
            z += length + (d(0.2, 0.6) if d.chance(0.35) else 0.02)
        parts.append(Facades(vx, vy, lateral, camera, left, tuple(blocks)))
    kind, z, row = d.pick("round", "round", "poplar", "conifer"), d(1.2, 1.6), []
    while z < 8:
        for sign in (-1, 1):
            if d.chance(0.7):
                x, size = vx + sign * (road + 0.18) / z, d(0.75, 1.0) / z
                row.append(
                    Tree(
                        round(x, 4),
                        round(vy + camera / z, 4),
                        round(size, 4),
                        kind,
                        round(z * 0.09, 4),
                        d.seed(),
                    )
                )
        z *= 1.5
    return vy, parts + sorted(row, key=lambda tree: tree.base)


def _country(d: Draw) -> tuple[float, list[Element]]:
    horizon = d(0.40, 0.48)
    parts = sky(d, horizon - 0.12, (2, 4))
    if d.chance(0.8):
        parts.append(ridge(d, horizon + 0.03, d(0.14, 0.26), 1.3, d.chance(0.6), (0.3, 0.7), 0.12))
    first, far = horizon + 0.015, waves(d, 0.03)
    parts.append(ground(d, GRASS, first, far, 0.9, 0.6, 1.4))
    line, shape = round(first + 0.045, 4), waves(d, 0.02)
    parts.append(Treeline(line, shape, d(0.04, 0.065), d(0.05, 0.08), d.chance(0.3), 0.7, d.seed()))
    parts.append(ground(d, GRASS, line + 0.005, shape, 0.7, 0.5, 1.2))
    second, middle = first + d(0.09, 0.12), waves(d, 0.04)
    parts.append(ground(d, GRASS, second, middle, 0.5, 0.25, 1.2))
    parts += _on(
        middle, second, trees(d, d.count(2, 5), 0.015, 0.05, 0.21, ("round", "poplar", "round")), 0.4
    )
    parts += village(d, d.count(1, 3), d(0.12, 0.17), 0.35, 0.1, 1.7,
                     lambda x: height_at(second, middle, x) + 0.06)  # fmt: skip
    feature, top = d.pick("road", "road", "pond", "snow"), second + 0.11
    parts.append(ground(d, SNOW if feature == "snow" else GRASS, top, waves(d, 0.025), 0.3, 0.0, 1.0))
    spans = ((0.0, 2.0),)
    if feature == "pond":
        x = d(0.6, 1.4)
        parts.append(Water(round(top + 0.02, 4), x, d(0.80, 0.84), d(0.42, 0.60), d(0.075, 0.10), d.seed()))
        spans = ((0.0, 0.25), (1.75, 2.0))
    elif feature == "road" or d.chance(0.5):
        x, end = d(0.6, 1.4), d(0.5, 1.5)
        parts.append(
            Path(x, round(top - 0.02, 4), end, d(0.15, 0.22), d(0.1, 0.3), d(0, 6.28), False, d.seed())
        )
        spans = ((0.0, max(0.1, end - 0.45)), (min(1.9, end + 0.45), 2.0))
    parts += trees(d, d.count(1, 4), top + 0.08, 0.97, 0.46, ("round", "round", "poplar", "bush"), spans)
    return horizon, parts


def _desert(d: Draw) -> tuple[float, list[Element]]:
    horizon = d(0.44, 0.52)
    parts = sky(d, horizon - 0.14, (1, 3))
    if d.chance(0.5):
        parts.append(mesas(d, horizon + 0.02, d(0.12, 0.20), 1.1))
    else:
        parts.append(ridge(d, horizon + 0.01, d(0.12, 0.26), 1.2, d.chance(0.4), (0.3, 0.9), 0.14))
    first = horizon + 0.03
    parts.append(ground(d, SAND, first, waves(d, 0.03, 5.0), 0.9, 0.6, 1.6, 0.8))
    if d.chance(0.6):
        parts += village(d, d.count(1, 3), d(0.12, 0.17), 0.45, 0.1, 1.7, lambda x: first + 0.07, True)
    second = first + d(0.08, 0.12)
    parts.append(ground(d, SAND, second, waves(d, 0.06, 3.6), 0.5, 0.2, 1.3, 0.85))
    spans = ((0.0, 2.0),)
    if d.chance(0.45):
        x, y, wide = d(0.5, 1.5), round(second + d(0.12, 0.15), 4), d(0.40, 0.58)
        parts += trees(d, d.count(1, 3), y - 0.085, y - 0.07, 0.34, ("palm",), ((x - wide, x + wide),))
        parts.append(Water(round(y - 0.075, 4), x, y, wide, d(0.05, 0.07), d.seed()))
    elif d.chance(0.75):
        x, end = d(0.7, 1.3), d(0.5, 1.5)
        marked = d.chance(0.5)
        parts.append(
            Path(x, round(second + 0.02, 4), end, d(0.16, 0.26), d(0.05, 0.25), d(0, 6.28), marked, d.seed())
        )
        spans = ((0.0, max(0.1, end - 0.45)), (min(1.9, end + 0.45), 2.0))
    if d.chance(0.45):
        parts.append(ground(d, GRASS, d(0.90, 0.94), waves(d, 0.04, 4.0), 0.05, 0.0, 0.8))
    kinds = d.pick(("cactus",), ("cactus", "cactus", "bush"), ("palm", "bush"))
    parts += trees(d, d.count(2, 4), max(second + 0.12, 0.78), 0.97, 0.36, kinds, spans)
    return horizon, parts


_MAKERS = dict(zip(KINDS, (_coast, _lake, _street, _country, _desert), strict=True))


def sample_layout(seed: int, index: int, kind: str | None = None) -> Layout:
    """Layout number `index` of the stream `seed`; a pure function of its arguments.

    Args:
      seed: non-negative integer, the stream.
      index: non-negative integer.
      kind: one of KINDS; drawn when None.
    """
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([0x1A, seed, index])))
    drawn = KINDS[int(rng.integers(len(KINDS)))]
    kind = kind or drawn
    d = Draw(rng)
    horizon, parts = _MAKERS[kind](d)
    return Layout(kind, horizon, tuple(parts), d.seed())

"""Scene layouts: five types of place, each a random arrangement of the parts in `scene_elements`."""

from __future__ import annotations

import numpy as np

from mscaflax.data.scene_elements import (
    GRASS,
    SAND,
    SNOW,
    Cloud,
    Disc,
    Element,
    Facades,
    House,
    Layout,
    Path,
    Ridge,
    Terrain,
    Tree,
    Treeline,
    Water,
)

KINDS = ("coast", "mountain lake", "street", "countryside", "desert")


class _Draw:
    """Rounded draws, so that a layout is made of short decimal numbers."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng

    def __call__(self, low: float, high: float) -> float:
        return round(float(self.rng.uniform(low, high)), 4)

    def seed(self) -> int:
        return int(self.rng.integers(1 << 20))

    def count(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def pick(self, *options):
        return options[int(self.rng.integers(len(options)))]


def _sky(
    d: _Draw, horizon: float, low: float, clouds: tuple[int, int], left=0.12, right=1.88
) -> list[Element]:
    """Sun or moon and clouds between the top and the height `low`; they do not cover each other."""
    parts: list[Element] = []
    radius = d(0.052, 0.085)
    sun = Disc(d(left + radius, right - radius), d(0.12, max(0.14, low - radius - 0.02)), radius)
    parts.append(sun)
    for _ in range(d.count(*clouds)):
        for _ in range(8):
            y = d(0.10, max(0.16, low - 0.04))
            scale = d(0.7, 1.25) * (0.45 + 0.75 * (1 - y / max(horizon, 0.3)))
            x, half = d(0.0, 2.0), 0.26 * scale
            if (
                abs(x - sun.x) > half + sun.radius + 0.02
                or not -0.01 < sun.y - y + 0.2 * scale < 0.36 * scale
            ):
                break
        else:
            continue
        n = d.count(5, 8)
        puffs = []
        for k in range(n):
            s = (k + 0.5) / n * 2 - 1
            lift = (1 - s * s) * d(0.5, 1.1)
            puffs.append((
                round(x + s * half, 4), round(y - 0.075 * scale * lift, 4),
                round(scale * (0.075 + 0.05 * (1 - s * s)) * d(0.8, 1.2), 4),
                round(scale * (0.045 + 0.055 * lift), 4)))  # fmt: skip
        parts.append(Cloud(round(y + 0.012, 4), tuple(puffs), d.seed()))
    return parts


def _ridge(d: _Draw, base: float, height: float, depth: float, snow: bool, rough=0.10, peaks=None) -> Ridge:
    n = peaks or d.count(3, 5)
    places = np.linspace(0, 2, n, endpoint=False) + 1 / n
    tents = []
    for x in places:
        h = height * d(0.55, 1.0)
        tents.append(
            (round(float(x) + d(-0.6, 0.6) / n, 4), round(base - h, 4), d(0.55, 1.15), d(0.55, 1.15))
        )
    line = round(base - height * d(0.42, 0.58), 4) if snow else 0.0
    return Ridge(tuple(tents), base, rough, depth, line, d.seed())


def _waves(d: _Draw, amplitude: float, slow=2.2) -> tuple[tuple[float, float, float], ...]:
    return ((round(amplitude * d(0.6, 1.0), 4), d(slow * 0.7, slow * 1.2), d(0, 6.28)),
            (round(amplitude * d(0.15, 0.35), 4), d(slow * 2, slow * 3), d(0, 6.28)))  # fmt: skip


def _height(level: float, waves, x: float) -> float:
    return level + sum(a * float(np.sin(f * x + p)) for a, f, p in waves)


def _trees(
    d: _Draw, n: int, top: float, bottom: float, size: float, kinds, left=0.0, right=2.0, avoid=()
) -> list[Tree]:
    """Trees on the ground between two heights, smaller when farther, sorted far to near."""
    trees = []
    for _ in range(n):
        t = d(0, 1)
        for _ in range(6):
            x = d(left, right)
            if all(not low < x < high for low, high in avoid):
                trees.append(Tree(x, round(top + (bottom - top) * t, 4), round(size * (0.45 + 0.75 * t) * d(0.8, 1.2), 4),
                                  d.pick(*kinds), round(0.8 - 0.6 * t, 4), d.seed()))  # fmt: skip
                break
    return sorted(trees, key=lambda tree: tree.base)


def _house(d: _Draw, x: float, base: float, scale: float, depth: float, flat=False) -> House:
    width = round(scale * d(0.8, 1.2), 4)
    height = round(scale * (d(0.9, 1.7) if flat else d(0.55, 0.8)), 4)
    side = round(scale * d(0.5, 1.1) * d.pick(-1, 1), 4)
    rows = max(1, round(height / scale / 0.42)) if flat else d.pick(1, 2)
    return House(x, base, width, height, side, 0.0 if flat else round(scale * d(0.42, 0.62), 4),
                 d.count(2, 3), rows, depth, d.seed())  # fmt: skip


def _coast(d: _Draw) -> tuple[float, list[Element]]:
    horizon = d(0.40, 0.50)
    parts = _sky(d, horizon, horizon - 0.06, (2, 4))
    if d.chance(0.75):
        parts.append(_ridge(d, horizon + 0.01, d(0.14, 0.26), d(1.0, 1.6), d.chance(0.4), 0.05))
    parts.append(Water(horizon, 0, 0, 0, 0, d.seed()))
    # A headland on one side, with trees and houses.
    side = d.pick(-1, 1)
    slope = d(0.05, 0.09)
    waves = ((slope, 1.5, 0.07 if side < 0 else 3.21 - 1.5 * 0), (round(slope * 0.2, 4), d(4, 6), d(0, 6.28)))
    head = round(horizon + slope + d(0.03, 0.06), 4)
    land = Terrain(GRASS, head, tuple((a if side < 0 else a, f, p if side < 0 else p) for a, f, p in waves),
                   0.7, 0.3, 0.8, 0.0, d.seed())  # fmt: skip
    if d.chance(0.7):
        parts.append(land)
        xs = (0.05, 0.75) if _height(head, waves, 0.3) < _height(head, waves, 1.7) else (1.25, 1.95)
        for _ in range(d.count(1, 3)):
            x = d(xs[0], xs[1] - 0.2)
            parts.append(_house(d, x, round(_height(head, waves, x) + 0.035, 4), d(0.10, 0.15), 0.4))
        for t in _trees(d, d.count(3, 6), 0, 0.03, 0.16, ("round", "conifer", "poplar"), *xs):
            parts.append(
                Tree(t.x, round(_height(head, waves, t.x) + 0.02 + t.base, 4), t.height, t.kind, 0.4, t.seed)
            )
        parts.append(Water(round(head + slope + 0.02, 4), 0, 0, 0, 0, d.seed()))
    beach = round(d(0.72, 0.80), 4)
    sand = _waves(d, 0.05)
    parts.append(Terrain(SAND, beach, sand, 0.3, 0.0, 0.5, 0.0, d.seed()))
    if d.chance(0.6):
        parts.append(
            Terrain(
                GRASS, round(beach + d(0.12, 0.16), 4), _waves(d, 0.06, 3.0), 0.1, 0.0, 0.6, 0.0, d.seed()
            )
        )
    kinds = d.pick(("palm",), ("palm", "bush"), ("conifer", "bush"), ("round", "bush"))
    parts += _trees(d, d.count(2, 4), beach + 0.06, 0.95, 0.42, kinds)
    return horizon, parts


def _lake(d: _Draw) -> tuple[float, list[Element]]:
    horizon = d(0.48, 0.56)
    parts = _sky(d, horizon, 0.30, (1, 3))
    parts.append(_ridge(d, horizon, d(0.36, 0.46), 1.5, True))
    parts.append(_ridge(d, round(horizon + 0.01, 4), d(0.18, 0.28), 0.9, d.chance(0.4)))
    shore = round(horizon + d(0.01, 0.03), 4)
    parts.append(Terrain(d.pick(GRASS, GRASS, SNOW), shore, _waves(d, 0.018), 0.7, 0.5, 0.6, 0.0, d.seed()))
    parts.append(
        Treeline(
            round(shore + 0.01, 4),
            _waves(d, 0.015),
            d(0.05, 0.09),
            d(0.035, 0.05),
            d.chance(0.75),
            0.6,
            d.seed(),
        )
    )
    if d.chance(0.5):
        parts.append(_house(d, d(0.3, 1.6), round(shore + 0.035, 4), d(0.10, 0.14), 0.4))
    parts.append(Water(round(shore + 0.035, 4), 0, 0, 0, 0, d.seed()))
    near = d.pick(GRASS, GRASS, SNOW)
    bank = d(0.83, 0.90)
    waves = _waves(d, 0.05)
    if d.chance(0.5):
        parts.append(Terrain(SAND, round(bank - 0.045, 4), waves, 0.1, 0.0, 0.4, 0.0, d.seed()))
    parts.append(Terrain(near, bank, waves, 0.1, 0.0, 0.8, 0.0, d.seed()))
    kinds = d.pick(("conifer",), ("conifer", "bush"), ("conifer", "round"))
    for t in _trees(d, d.count(3, 6), 0.03, 0.12, 0.46, kinds):
        parts.append(Tree(t.x, round(_height(bank, waves, t.x) + t.base, 4), t.height, t.kind, 0.15, t.seed))
    return horizon, parts


def _street(d: _Draw) -> tuple[float, list[Element]]:
    vy = d(0.52, 0.60)
    vx = d(0.75, 1.25)
    parts = _sky(d, vy, 0.34, (1, 3), vx - 0.42, vx + 0.42)
    if d.chance(0.8):
        parts.append(_ridge(d, round(vy + 0.02, 4), d(0.16, 0.30), 1.3, d.chance(0.6)))
    parts.append(
        Treeline(round(vy + 0.02, 4), _waves(d, 0.005), d(0.05, 0.08), 0.05, d.chance(0.3), 0.7, d.seed())
    )
    ground = d.pick(GRASS, GRASS, GRASS, SNOW, SAND)
    parts.append(Terrain(ground, round(vy + 0.012, 4), (), 0.8, 0.0, 0.0, 0.0, d.seed()))
    camera = d(0.42, 0.55)
    road = d(0.42, 0.60)
    parts.append(Path(vx, vy, vx, round(road / camera * (1 - vy), 4), 0.0, 0.0, d.chance(0.75), d.seed()))
    lateral = round(road + d(0.28, 0.55), 4)
    for left in (True, False):
        blocks, z = [], d(0.55, 0.9)
        while z < 9:
            length = d(0.9, 1.9)
            blocks.append((z, round(z + length, 4), d(1.0, 2.4), d(0.36, 0.5), d(0.36, 0.5), d.seed()))
            z = round(z + length + (d(0.25, 0.8) if d.chance(0.35) else 0.02), 4)
        parts.append(Facades(vx, vy, lateral, camera, left, tuple(blocks)))
    kind = d.pick("round", "round", "poplar", "conifer")
    z, row = d(1.1, 1.5), []
    while z < 7:
        for sign in (-1, 1):
            if d.chance(0.7):
                x = vx + sign * (road + 0.13) / z
                row.append(
                    Tree(
                        round(x, 4),
                        round(vy + camera / z, 4),
                        round(d(0.8, 1.1) / z, 4),
                        kind,
                        round(z * 0.09, 4),
                        d.seed(),
                    )
                )
        z = round(z * 1.55, 4)
    parts += sorted(row, key=lambda tree: tree.base)
    return vy, parts


def _country(d: _Draw) -> tuple[float, list[Element]]:
    horizon = d(0.42, 0.50)
    parts = _sky(d, horizon, horizon - 0.10, (2, 4))
    if d.chance(0.7):
        parts.append(_ridge(d, round(horizon + 0.02, 4), d(0.14, 0.30), 1.5, d.chance(0.6), 0.07))
    first = round(horizon + 0.01, 4)
    parts.append(Terrain(GRASS, first, _waves(d, 0.035), 0.9, 0.6, 1.4, 0.0, d.seed()))
    parts.append(
        Treeline(
            round(first + 0.03, 4),
            _waves(d, 0.02),
            d(0.04, 0.07),
            d(0.05, 0.08),
            d.chance(0.3),
            0.7,
            d.seed(),
        )
    )
    second, waves = round(first + d(0.07, 0.11), 4), _waves(d, 0.04)
    parts.append(Terrain(GRASS, second, waves, 0.5, 0.25, 1.2, 0.0, d.seed()))
    for _ in range(d.count(1, 3)):
        x = d(0.1, 1.7)
        parts.append(_house(d, x, round(_height(second, waves, x) + d(0.03, 0.06), 4), d(0.11, 0.17), 0.35))
    for t in _trees(d, d.count(3, 7), 0.02, 0.08, 0.20, ("round", "poplar", "round")):
        parts.append(Tree(t.x, round(_height(second, waves, t.x) + t.base, 4), t.height, t.kind, 0.4, t.seed))
    feature = d.pick("road", "road", "pond", "snow")
    top = round(second + 0.10, 4)
    if feature == "snow":
        parts.append(Terrain(SNOW, top, _waves(d, 0.03), 0.3, 0.0, 1.0, 0.0, d.seed()))
    else:
        parts.append(Terrain(GRASS, top, _waves(d, 0.03), 0.3, 0.0, 1.0, 0.0, d.seed()))
    avoid = ()
    if feature == "pond":
        x = d(0.5, 1.5)
        parts.append(Water(round(top + 0.03, 4), x, d(0.78, 0.84), d(0.40, 0.60), d(0.07, 0.10), d.seed()))
        avoid = ((x - 0.5, x + 0.5),)
    if feature == "road" or d.chance(0.5):
        x = d(0.6, 1.4)
        parts.append(
            Path(
                x, round(top - 0.02, 4), d(0.5, 1.5), d(0.14, 0.22), d(0.1, 0.3), d(0, 6.28), False, d.seed()
            )
        )
        avoid += ((0.55, 1.45),)
    parts += _trees(
        d, d.count(1, 4), top + 0.10, 0.98, 0.44, ("round", "bush", "round", "poplar"), avoid=avoid
    )
    return horizon, parts


def _desert(d: _Draw) -> tuple[float, list[Element]]:
    horizon = d(0.46, 0.54)
    parts = _sky(d, horizon, horizon - 0.12, (1, 3))
    parts.append(_ridge(d, round(horizon + 0.01, 4), d(0.16, 0.32), 1.4, d.chance(0.2), 0.06))
    first = round(horizon + 0.03, 4)
    parts.append(Terrain(SAND, first, _waves(d, 0.03, 4.0), 0.9, 0.6, 1.1, 0.7, d.seed()))
    if d.chance(0.5):
        for _ in range(d.count(1, 3)):
            parts.append(
                _house(d, d(0.1, 1.7), round(first + d(0.06, 0.09), 4), d(0.10, 0.16), 0.45, flat=True)
            )
    second = round(first + d(0.08, 0.13), 4)
    parts.append(Terrain(SAND, second, _waves(d, 0.05, 3.0), 0.5, 0.2, 1.1, 0.8, d.seed()))
    if d.chance(0.5):
        x = d(0.5, 1.5)
        y = round(second + d(0.12, 0.16), 4)
        parts.append(Water(round(second + 0.04, 4), x, y, d(0.35, 0.55), d(0.045, 0.07), d.seed()))
        parts += _trees(d, d.count(2, 4), y - 0.06, y - 0.03, 0.34, ("palm",), x - 0.5, x + 0.5)
    elif d.chance(0.7):
        parts.append(Path(d(0.7, 1.3), round(second + 0.02, 4), d(0.4, 1.6), d(0.16, 0.26), d(0.05, 0.25), d(0, 6.28),
                          d.chance(0.5), d.seed()))  # fmt: skip
    if d.chance(0.45):
        parts.append(Terrain(GRASS, d(0.90, 0.94), _waves(d, 0.04, 4.0), 0.05, 0.0, 0.8, 0.0, d.seed()))
    kinds = d.pick(("cactus",), ("cactus", "bush"), ("palm", "bush"))
    parts += _trees(d, d.count(2, 5), second + 0.10, 0.97, 0.34, kinds)
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
    d = _Draw(rng)
    horizon, parts = _MAKERS[kind](d)
    return Layout(kind, horizon, tuple(parts), d.seed())

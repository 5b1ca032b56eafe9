"""Random parts of layouts that several kinds of place share: skies, ridges, rows of trees, houses."""

from __future__ import annotations

import numpy as np

from mscaflax.data.scene_elements import Cloud, Disc, Element, House, Ridge, Terrain, Tree

Waves = tuple[tuple[float, float, float], ...]


class Draw:
    """Draws from one generator, rounded, so that a layout is made of short decimal numbers."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng

    def __call__(self, low: float, high: float) -> float:
        return round(float(self.rng.uniform(low, high)), 4)

    def seed(self) -> int:
        return int(self.rng.integers(1 << 20))

    def count(self, low: int, high: int) -> int:
        """An integer from low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def pick(self, *options):
        return options[int(self.rng.integers(len(options)))]


def sky(d: Draw, low: float, clouds: tuple[int, int], left=0.05, right=1.95) -> list[Element]:
    """Sun or moon between `left` and `right`, and clouds, above the height `low`, clear of each other."""
    radius = d(0.055, 0.085)
    sun = Disc(d(left + radius, right - radius), d(0.10, max(0.12, low - radius)), radius)
    parts: list[Element] = [sun]
    placed: list[tuple[float, float]] = []
    for _ in range(d.count(*clouds)):
        for _ in range(12):
            y = d(0.10, max(0.14, low))
            # Far clouds are low and small.
            scale = round(d(0.8, 1.2) * (0.55 + 0.6 * (1 - y / max(low + 0.1, 0.3))), 4)
            x, half = d(0.0, 2.0), 0.26 * scale
            clear = (
                abs(x - sun.x) > half * 1.25 + radius or not y - 0.2 * scale < sun.y + radius < y + 2 * radius
            )
            if clear and all(abs(x - a) + 2.5 * abs(y - b) > 0.42 for a, b in placed):
                break
        else:
            continue
        placed.append((x, y))
        n = d.count(5, 8)
        puffs = []
        for k in range(n):
            s = (k + 0.5) / n * 2 - 1
            arch = 1 - s * s
            lift = arch * d(0.5, 1.1)
            puff = (
                x + s * half,
                y - 0.075 * scale * lift,
                scale * (0.075 + 0.05 * arch) * d(0.8, 1.2),
                scale * (0.045 + 0.055 * lift),
            )
            puffs.append(tuple(round(v, 4) for v in puff))
        parts.append(Cloud(round(y + 0.012, 4), tuple(puffs), d.seed()))
    return parts


def ridge(
    d: Draw, base: float, height: float, depth: float, snow: bool, steep=(0.5, 0.95), rough=0.16
) -> Ridge:
    """Mountains of up to `height` over `base`: a few tops, each with shoulders."""
    n = d.count(3, 4)
    tents = []
    for k in range(n):
        x = (k + 0.5 + d(-0.35, 0.35)) * 2 / n
        rise = height * d(0.6, 1.0)
        tents.append((x, base - rise, d(*steep), d(*steep)))
        for sign in (-1, 1):
            if d.chance(0.75):
                lower = rise * d(0.5, 0.85)
                away = (rise - lower) / steep[0] * d(0.75, 1.1) + 0.03
                tents.append((x + sign * away, base - lower, d(*steep), d(*steep)))
    line = base - height * d(0.42, 0.60) if snow else 0.0
    peaks = tuple(tuple(round(v, 4) for v in tent) for tent in tents)
    return Ridge(peaks, round(base, 4), rough, depth, round(line, 4), 0.0, d.seed())


def mesas(d: Draw, base: float, height: float, depth: float) -> Ridge:
    """Table mountains: a few wide ones, cut off at one height, some with a lower neighbour."""
    n = d.count(2, 4)
    tents = []
    for k in range(n):
        x, steep = (k + 0.5 + d(-0.35, 0.35)) * 2 / n, d(1.4, 2.6)
        tents.append((x, base - height * d(1.2, 2.0), steep, d(1.4, 2.6)))
        tents.append((x + d(-0.4, 0.4), base - height * d(0.3, 0.9), d(0.4, 1.0), d(0.4, 1.0)))
    peaks = tuple(tuple(round(v, 4) for v in tent) for tent in tents)
    return Ridge(peaks, round(base, 4), 0.07, depth, 0.0, round(base - height, 4), d.seed())


def waves(d: Draw, amplitude: float, slow=2.2) -> Waves:
    """A slow and a fast wave, together at most 1.35 times `amplitude` high."""
    return (
        (round(amplitude * d(0.6, 1.0), 4), d(slow * 0.7, slow * 1.2), d(0, 6.28)),
        (round(amplitude * d(0.15, 0.35), 4), d(slow * 2, slow * 3), d(0, 6.28)),
    )


def height_at(level: float, profile: Waves, x: float) -> float:
    """The y of a terrain's profile at x."""
    return level + sum(a * float(np.sin(f * x + p)) for a, f, p in profile)


def ground(
    d: Draw,
    class_id: int,
    level: float,
    profile: Waves,
    far: float,
    near: float,
    relief=0.9,
    crest=0.0,
    shore=False,
) -> Terrain:
    """A Terrain with a drawn texture."""
    return Terrain(class_id, round(level, 4), profile, far, near, relief, crest, shore, d.seed())


def trees(d: Draw, n: int, top: float, bottom: float, size: float, kinds, spans=((0.0, 2.0),)) -> list[Tree]:
    """Up to n trees, far to near, apart from each other; feet between two heights, smaller when farther."""
    found: list[Tree] = []
    for _ in range(n):
        for _ in range(8):
            t, (left, right) = d(0, 1), d.pick(*spans)
            x, kind = d(left, right), d.pick(*kinds)
            height = size * (0.5 + 0.7 * t) * d(0.85, 1.2) * (0.42 if kind == "bush" else 1.0)
            if all(abs(x - other.x) > 0.55 * max(height, other.height) for other in found):
                base = round(top + (bottom - top) * t, 4)
                found.append(Tree(x, base, round(height, 4), kind, round(0.6 - 0.5 * t, 4), d.seed()))
                break
    return sorted(found, key=lambda tree: tree.base)


def house(d: Draw, x: float, base: float, scale: float, depth: float, flat=False) -> House:
    """A house about `scale` wide and high; flat roofs make taller blocks."""
    height = scale * (d(0.5, 0.95) if flat else d(0.55, 0.8))
    rows = max(1, round(height / scale / 0.42)) if flat else d.pick(1, 2)
    roof = 0.0 if flat else round(scale * d(0.42, 0.62), 4)
    side = round(scale * d(0.6, 1.1) * d.pick(-1, 1), 4)
    return House(
        x,
        round(base, 4),
        round(scale * d(0.8, 1.1), 4),
        round(height, 4),
        side,
        roof,
        d.count(2, 3),
        rows,
        depth,
        d.seed(),
    )


def village(
    d: Draw, n: int, scale: float, depth: float, left: float, right: float, base_at, flat=False
) -> list[House]:
    """Up to n houses between two x, apart from each other; `base_at(x)` is the ground. Far to near."""
    found: list[House] = []
    for _ in range(n):
        for _ in range(8):
            x = d(left, right)
            if all(abs(x - other.x) > 2.4 * scale for other in found):
                found.append(house(d, x, base_at(x) + d(0.0, 0.03), scale * d(0.85, 1.15), depth, flat))
                break
    return sorted(found, key=lambda one: one.base)

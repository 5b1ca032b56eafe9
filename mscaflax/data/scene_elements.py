"""The parts a scene layout is made of.

Coordinates: x from 0 (left) to 2 (right), y from 0 (top) to 1 (bottom), so that one unit is the height of
the 2:1 frame in both directions. Depths are relative: 0 is at the viewer's feet, at 1 the air begins to
swallow colours. Every part holds plain numbers and tuples only; nothing here knows about styles or pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

CLASS_NAMES = (
    "sky",
    "sun",
    "cloud",
    "mountain",
    "grass",
    "tree",
    "water",
    "sand",
    "road",
    "building",
    "window",
    "snow",
)
PALETTE = (
    (150, 200, 236),
    (250, 211, 88),
    (236, 238, 244),
    (140, 128, 150),
    (146, 188, 96),
    (58, 120, 74),
    (62, 128, 186),
    (232, 206, 152),
    (108, 106, 112),
    (196, 110, 86),
    (62, 70, 104),
    (214, 244, 250),
)
SKY, SUN, CLOUD, MOUNTAIN, GRASS, TREE, WATER, SAND, ROAD, BUILDING, WINDOW, SNOW = range(12)


@dataclass(frozen=True)
class Disc:
    """Sun by day, moon by night: centre and radius."""

    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Cloud:
    """A cumulus with a flat base: puffs of (x, y, x radius, y radius) over the base height."""

    base: float
    puffs: tuple[tuple[float, float, float, float], ...]
    seed: int


@dataclass(frozen=True)
class Ridge:
    """A range of mountains: tents of (x, y of the top, left slope, right slope), roughened.

    Above `snow_line` (a height y) the rock is snow; 0 means bare rock. No rock rises above `table`, a height
    y too: tents that would are mesas with layered walls; 0 means none are.
    """

    peaks: tuple[tuple[float, float, float, float], ...]
    base: float
    rough: float
    depth: float
    snow_line: float
    table: float
    seed: int


@dataclass(frozen=True)
class Terrain:
    """Ground below a soft profile: y = level + Σ amplitude · sin(frequency · x + phase).

    `waves` are the (amplitude, frequency, phase) triples; `near` and `far` the depths at the bottom and at
    the profile; `relief` scales how strongly slopes catch the light; `crest` makes the profile pointed, as
    dunes are. A `shore` meets water above it.
    """

    class_id: int
    level: float
    waves: tuple[tuple[float, float, float], ...]
    far: float
    near: float
    relief: float
    crest: float
    shore: bool
    seed: int


@dataclass(frozen=True)
class Treeline:
    """A distant wood: crowns of `width`, rising `height` above the profile of a Terrain."""

    level: float
    waves: tuple[tuple[float, float, float], ...]
    height: float
    width: float
    conifer: bool
    depth: float
    seed: int


@dataclass(frozen=True)
class Water:
    """Water below y = top (mirror line); with radii > 0 only inside the ellipse around (x, y)."""

    top: float
    x: float
    y: float
    radius_x: float
    radius_y: float
    seed: int


@dataclass(frozen=True)
class Path:
    """A road from (x_top, y_top) to x_bottom at y = 1, `width` to each side there; it winds by `bend`."""

    x_top: float
    y_top: float
    x_bottom: float
    width: float
    bend: float
    phase: float
    marked: bool
    seed: int


@dataclass(frozen=True)
class Tree:
    """A tree that stands on (x, base). Kinds: round, conifer, poplar, palm, cactus, bush."""

    x: float
    base: float
    height: float
    kind: str
    depth: float
    seed: int


@dataclass(frozen=True)
class House:
    """A house: front wall from x to x + width, side wall of length `side` to its right, or left if negative.

    `columns` and `rows` count the windows of the front; a roof of height 0 is flat.
    """

    x: float
    base: float
    width: float
    height: float
    side: float
    roof: float
    columns: int
    rows: int
    depth: float
    seed: int


@dataclass(frozen=True)
class Facades:
    """One side of a street in perspective.

    A point at lateral distance X, height H and distance z, in street units with the eye at height `camera`,
    is seen at x = vx ± X/z, y = vy + (camera - H)/z. `blocks` are (z near, z far, height, window width as a
    share of the pitch, window pitch, seed).
    """

    vx: float
    vy: float
    lateral: float
    camera: float
    left: bool
    blocks: tuple[tuple[float, float, float, float, float, int], ...]


Element = Disc | Cloud | Ridge | Terrain | Treeline | Water | Path | Tree | House | Facades


@dataclass(frozen=True)
class Layout:
    """What is where, without any appearance.

    `elements` are painted in order, far to near; `horizon` is the y of the eye level; `seed` fixes the
    texture.
    """

    kind: str
    horizon: float
    elements: tuple[Element, ...]
    seed: int

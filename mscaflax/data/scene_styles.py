"""Scene styles: how everything in a scene looks, without saying what is where.

A `Style` is a handful of plain numbers; `look_of` turns it into the colours of light and materials that the
painters use. Every choice holds for the whole picture, so any part of it tells the style.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mscaflax.data.scene_elements import CLASS_NAMES, GRASS, TREE


@dataclass(frozen=True)
class Style:
    """A style vector.

    Attributes:
      time: time of day in [0, 1): 0 midnight, 0.25 sunrise, 0.5 noon, 0.75 sunset.
      season: in [0, 4): spring from 0, summer from 1, autumn from 2, winter from 3, without breaks.
      wood: which of the season's two kinds of trees, 0 to 1.
      overcast: 0 (clear) to 1 (closed clouds).
      haze: 0 (clear air) to 1 (fog).
      shifts: 12 RGB triples in [-1, 1], added to the base colour (reflectance) of each class.
      light: where the light comes from, -1 (left) to 1 (right).
      frequency: texture frequency, 0.6 (broad) to 1.7 (fine).
      grain: texture contrast, 0 to 1.
    """

    time: float
    season: float
    wood: float
    overcast: float
    haze: float
    shifts: tuple[tuple[float, float, float], ...]
    light: float
    frequency: float
    grain: float


@dataclass(frozen=True)
class Look:
    """Colours derived from a style: float32 RGB [3] in about [0, 1] unless noted."""

    zenith: np.ndarray
    middle: np.ndarray
    horizon: np.ndarray
    disc: np.ndarray
    glow: np.ndarray
    key: np.ndarray  # direct light
    ambient: np.ndarray
    cloud_lit: np.ndarray
    cloud_shade: np.ndarray
    cloud_opacity: float
    air: np.ndarray  # what distance fades to
    density: float
    albedo: np.ndarray  # [12, 3]
    window_lit: np.ndarray
    lights: float  # how far windows are lit, 0 to 1
    light: float
    contrast: float
    frequency: float
    grain: float


# One row per hour: zenith, middle, horizon, disc, glow, key, ambient, cloud lit, cloud shade (8-bit sRGB).
_HOURS = (
    (0.00, "0f1a38 1a2b52 334a74 eef0e2 465c88 53658a 323d5c 5c6e92 26325a"),
    (0.19, "22386a 4a6494 a89cae f4ecd8 94889c 6f7894 4b5678 9a9ab4 4a527c"),
    (0.25, "6f8fc4 b3b5cc f8caa6 fff0cf ffbe8a e8ac8c 787e9c ffdcc4 a096b0"),
    (0.33, "62a0da a0cae8 efe6cc fff6dc ffe9b8 ffe4bc 8590a4 fff4e4 b4bccc"),
    (0.50, "3f86cf 79b4e4 cbe4f2 fffbe6 fff6d8 fff6e4 8b9bb0 ffffff c3d0e0"),
    (0.64, "5590c8 9dc0da f3e2b8 fff3c8 ffdf9c ffe2a6 848c9c fff0d4 bcb7b8"),
    (0.72, "7296c0 d2b89e fbc880 ffe9a8 ffb95c f8ba76 77768a ffd9a0 ac9094"),
    (0.77, "4a5694 a87898 f5a074 ffd59a ff935c d68e6a 62608a f9b08c 74648e"),
    (0.83, "203a6a 4a6494 b8a0a8 f6e6d2 a08a98 747a94 4a567a 9696b0 48527c"),
    (1.00, "0f1a38 1a2b52 334a74 eef0e2 465c88 53658a 323d5c 5c6e92 26325a"),
)
_HOUR_AT = np.array([row[0] for row in _HOURS])
_LIGHTS_AT = np.array([1.0, 0.85, 0.4, 0.0, 0.0, 0.0, 0.35, 0.7, 0.95, 1.0])


def _rgb(code: str) -> np.ndarray:
    return np.array([int(code[i : i + 2], 16) for i in (0, 2, 4)], np.float32) / 255


_HOUR_COLOURS = np.stack([np.stack([_rgb(c) for c in row[1].split()]) for row in _HOURS])  # [hours, 9, 3]

# Reflectance of each class in a neutral light; grass and tree follow the seasons instead.
_BASE = np.stack([_rgb(c) for c in (
    "8ab4dc", "fff4d0", "f4f4f6", "7c7a86", "7aa650", "4a7a4a",
    "3d7f9c", "dcc290", "807e80", "c8a284", "46566c", "dfe5ec")])  # fmt: skip
_GRASS = np.stack([_rgb(c) for c in ("8fba5c", "749f50", "bda25c", "bcbfac")])
# Two kinds of wood for each season; the style says how much it is of the second.
_TREE = np.stack([[_rgb(c) for c in row] for row in (
    ("86ac60", "d8a0ac"), ("44784a", "64803c"), ("c4703c", "cfa048"), ("b2bebc", "ac9888"))])  # fmt: skip

# Families of colours that a place may have; a style takes one of each and strays a little from it.
_FAMILIES = {
    "mountain": "7c7a86 6f7f94 8d7468 94705e 667a74 857a94",
    "water": "3d7f9c 2f6f8c 3f9490 3a6090 5b8a86 486f86",
    "sand": "dcc290 e6d2ac d8ae88 c99e78 d8bca4 d0c8b4",
    "road": "807e80 8e867c 6c7078 9a8874 a4988c 74747c",
    "building": "c8a284 dcc8a4 b87860 94a2aa d8d0c4 a8b096 c6948a 8c8278 d2b47c a4a0a8",
    "window": "46566c 3c5058 5a5a60 4a6484 4c4c5c 3e6a70",
}


# Night, dawn, morning, noon, afternoon, golden hour and sunset, dusk; and how often each is drawn.
_SPANS = ((-0.13, 0.16), (0.18, 0.24), (0.24, 0.33), (0.33, 0.6), (0.6, 0.69), (0.69, 0.79), (0.79, 0.86))
_SHARES = (0.13, 0.06, 0.14, 0.26, 0.13, 0.20, 0.08)


def sample_style(seed: int, index: int) -> Style:
    """Style number `index` of the stream `seed`; a pure function of the two.

    Args:
      seed: non-negative integer, the stream.
      index: non-negative integer.
    """
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([0x57, seed, index])))
    # Nights and twilights look much alike, so that days get the larger share.
    low, high = _SPANS[int(rng.choice(len(_SPANS), p=_SHARES))]
    time = float(rng.uniform(low, high)) % 1.0
    overcast = float(rng.beta(0.6, 1.3))
    haze = float(rng.beta(1.0, 2.6))
    shifts = np.zeros((len(CLASS_NAMES), 3))
    for name, family in _FAMILIES.items():
        k = CLASS_NAMES.index(name)
        codes = family.split()
        shifts[k] = _rgb(codes[int(rng.integers(len(codes)))]) - _BASE[k]
        shifts[k] += rng.normal(0, 0.02, 3) + rng.normal(0, 0.03)
    for k in (GRASS, TREE):
        shifts[k] = rng.normal(0, 0.03, 3) + rng.normal(0, 0.03)
    shifts[:3] = rng.normal(0, 0.025, (3, 3))
    shifts[-1] = rng.normal(0, 0.02, 3)
    return Style(
        time=time,
        season=float(rng.uniform(0, 4)),
        wood=float(rng.beta(0.5, 1.0)),
        overcast=overcast,
        haze=haze,
        shifts=tuple(tuple(round(float(v), 4) for v in row) for row in shifts),
        light=float(rng.choice((-1.0, 1.0)) * rng.uniform(0.45, 1.0)),
        frequency=float(np.exp(rng.uniform(np.log(0.6), np.log(1.7)))),
        grain=float(rng.uniform(0.25, 1.0)),
    )


def _mix(a, b, t):
    return a + (b - a) * t


def _gray(rgb: np.ndarray) -> np.ndarray:
    return np.repeat((rgb @ np.array([0.30, 0.59, 0.11], np.float32))[..., None], 3, -1)


def _seasonal(colours: np.ndarray, season: float) -> np.ndarray:
    """Colour of a season in [0, 4), each holding for half its length before it turns into the next."""
    k = int(season) % 4
    t = np.clip((season - int(season) - 0.5) * 2, 0, 1)
    return _mix(colours[k], colours[(k + 1) % 4], t * t * (3 - 2 * t))


def look_of(style: Style) -> Look:
    """The light and the materials that a style means."""
    t = style.time % 1.0
    k = int(np.searchsorted(_HOUR_AT, t, side="right")) - 1
    f = np.float32((t - _HOUR_AT[k]) / (_HOUR_AT[k + 1] - _HOUR_AT[k]))
    hour = _mix(_HOUR_COLOURS[k], _HOUR_COLOURS[k + 1], f)
    shifts = np.asarray(style.shifts, np.float32)
    zenith, middle, horizon, disc, glow, key, ambient, lit, shade = hour
    cover = np.float32(style.overcast**1.3)
    tint = np.float32([0.97, 1.0, 1.04])
    dull = 0.86 * cover

    def grey(colour, level=1.0):
        return _mix(colour, _gray(colour) * tint * level, dull)

    zenith, middle = grey(_mix(zenith, middle, 0.6 * cover), 0.98), grey(_mix(middle, horizon, 0.4 * cover))
    horizon = grey(horizon)
    # Where it is dark a shift of colour must be small, or it would be all the colour there is.
    air_shift, cloud_shift = shifts[0] * 1.3 * middle.mean(), shifts[2] * lit.mean()
    zenith, middle, horizon = zenith + air_shift, middle + air_shift, horizon + air_shift * 0.7
    key_out = grey(key) * (1 - 0.72 * cover)
    ambient = grey(ambient) + 0.34 * cover * _gray(key)
    air = _mix(_mix(horizon, middle, 0.35), _gray(horizon), 0.25 + 0.3 * cover)
    albedo = _BASE + shifts
    albedo[GRASS] = _seasonal(_GRASS, style.season) + shifts[GRASS]
    albedo[TREE] = (
        _seasonal(_mix(_TREE[:, 0], _TREE[:, 1], np.float32(style.wood)), style.season) + shifts[TREE]
    )
    night = float(np.interp(t, _HOUR_AT, _LIGHTS_AT))
    lights = float(np.clip(night + 0.25 * cover, 0, 1))
    return Look(
        zenith=zenith,
        middle=middle,
        horizon=horizon,
        disc=_mix(disc + shifts[1], middle + 0.25, 0.45 * cover),
        glow=glow * (1 - 0.75 * cover),
        key=key_out,
        ambient=ambient,
        cloud_lit=_mix(lit + cloud_shift, _gray(_mix(lit, shade, 0.45)) * tint, dull),
        cloud_shade=_mix(shade + cloud_shift, _gray(shade) * tint * 0.86, dull),
        cloud_opacity=float(0.9 + 0.1 * cover),
        air=air,
        density=float(0.10 + 0.75 * style.haze**1.4 + 0.12 * cover),
        albedo=np.clip(albedo, 0.03, 1),
        window_lit=np.float32([1.0, 0.80, 0.46]) + shifts[10] * 0.4,
        lights=lights,
        light=style.light,
        contrast=float(1 - 0.6 * cover),
        frequency=style.frequency,
        grain=style.grain,
    )

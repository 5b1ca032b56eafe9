"""Painters of sky, clouds, mountains, ground, water and roads."""

from __future__ import annotations

import numpy as np

from mscaflax.data.scene_canvas import Box, Canvas, planes, smoothstep, unit
from mscaflax.data.scene_elements import (
    CLOUD,
    MOUNTAIN,
    ROAD,
    SAND,
    SNOW,
    SUN,
    WATER,
    Cloud,
    Disc,
    Element,
    Path,
    Ridge,
    Terrain,
    Water,
)


def wave_profile(level: float, waves, x: np.ndarray, crest: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Height and slope of level + Σ a·sin(f·x + p) at x; `crest` in [0, 1] turns the tops into points."""
    y, slope = np.full_like(x, level), np.zeros_like(x)
    for amplitude, frequency, phase in waves:
        angle = frequency * x + phase
        y += amplitude * (1 - crest) * np.sin(angle)
        slope += amplitude * frequency * (1 - crest) * np.cos(angle)
        if crest:
            # |sin| of half the angle has corners at its zeros, which point up on the screen.
            half = np.sin(angle / 2)
            y += amplitude * crest * (2 * np.abs(half) - 1)
            slope += amplitude * frequency * crest * np.cos(angle / 2) * np.sign(half)
    return y, slope


def floors(elements: tuple[Element, ...]) -> list[float]:
    """For each element the height y below which later ground or water hides everything."""
    found, floor = [], 1.0
    for e in reversed(elements):
        found.append(floor)
        if isinstance(e, Terrain):
            floor = min(floor, e.level + sum(abs(wave[0]) for wave in e.waves) + (0.03 if e.shore else 0.0))
        elif isinstance(e, Water) and e.radius_x == 0:
            floor = min(floor, e.top)
    return found[::-1]


def paint_sky(c: Canvas) -> None:
    """The gradient from zenith to horizon, over the whole canvas."""
    look = c.look
    t = unit(c.y / max(c.horizon, 0.2))
    zenith, middle, horizon = planes(look.zenith), planes(look.middle), planes(look.horizon)
    upper = zenith + (middle - zenith) * smoothstep(0, 0.75, t)
    c.image[:] = upper + (horizon - upper) * smoothstep(0.35, 1.05, t)


def paint_disc(c: Canvas, e: Disc) -> None:
    """Sun or moon with its glow in the air around it."""
    look = c.look
    box = Box(c, bottom=c.horizon + 0.02)
    if not box.empty:
        distance = np.sqrt((box.x - e.x) ** 2 + (box.y - e.y) ** 2)
        halo = 0.50 * np.exp(distance * (-1 / 0.09)) + 0.38 * np.exp(distance * (-1 / 0.42))
        target = c.image[:, box.rows, box.columns]
        target += halo * (planes(look.glow) - 0.75 * target)
    box = Box(c, e.x - e.radius, e.x + e.radius, e.y - e.radius, e.y + e.radius)
    if box.empty:
        return
    d = np.sqrt((box.x - e.x) ** 2 + (box.y - e.y) ** 2)
    # Seas of the moon; by day the disc is even.
    seas = c.noise((box.x - e.x) * (2.4 / e.radius), (box.y - e.y) * (2.4 / e.radius), 17)
    c.paint(
        box, c.cover(e.radius - d), planes(look.disc) * (1 - 0.07 * look.lights * np.maximum(seas, 0)), SUN
    )


def paint_cloud(c: Canvas, e: Cloud) -> None:
    """A cumulus: metaballs over a flat base, ragged by noise, lit from the side of the light."""
    look = c.look
    x, y, rx, ry = (np.float32([p[k] for p in e.puffs])[:, None, None] for k in range(4))
    left, right = float((x - 1.3 * rx).min()), float((x + 1.3 * rx).max())
    box = Box(c, left, right, float((y - 1.3 * ry).min()), e.base + 0.02)
    if box.empty:
        return
    dx, dy = (box.x - x) / rx, (box.y - y) / ry
    bump = np.maximum(1 - (dx * dx + dy * dy) * (1 / 1.8), 0)
    bump *= bump
    body = bump.sum(0)
    rough = 0.6 * c.noise(box.x * 16, box.y * 20, e.seed) + 0.4 * c.noise(box.x * 34, box.y * 40, e.seed + 5)
    body += 0.085 * rough
    alpha = smoothstep(0.14, 0.42, body) * smoothstep(-0.012, 0.030, e.base - box.y - 0.006 * rough)
    up = (e.base - box.y) / max(e.base - float((y - ry).min()), 1e-3)
    side = (bump * dx).sum(0) / (body + 0.35)
    lit = 0.25 + 0.62 * up + 0.5 * look.light * look.contrast * side + 0.12 * rough
    lit = smoothstep(-0.05, 1.0, lit - 0.25 * np.minimum(body, 1.5) * (1 - up))
    shade = planes(look.cloud_shade)
    c.paint(box, alpha, shade + (planes(look.cloud_lit) - shade) * lit, CLOUD)


def _tents(e: Ridge, x: np.ndarray) -> np.ndarray:
    """Heights [peaks, n] of the tents of a ridge at x [n]; their minimum is the outline."""
    apex, top, left, right = (np.float32([p[k] for p in e.peaks])[:, None] for k in range(4))
    return top + np.maximum((apex - x) * left, (x - apex) * right)


def paint_ridge(c: Canvas, e: Ridge) -> None:
    """Mountains: every top has a lit and a shaded flank, parted by a wandering edge."""
    x = c.x[0]
    detail = sum(c.noise_line(x * f, e.seed + f, crisp=True) * (e.rough / f) for f in (6, 13, 29, 61))
    profile = np.minimum(np.maximum(_tents(e, x).min(0), e.table), e.base) + detail
    box = Box(c, top=float(profile.min()), bottom=e.base + 0.03)
    if box.empty:
        return
    depth = box.y - profile
    alpha = c.cover(depth)
    depth = np.maximum(depth, 0)
    broad = c.noise(box.x * 7, box.y * 9, e.seed)
    wander = 0.6 * broad + 0.4 * c.noise(box.x * 19, box.y * 15, e.seed + 3)
    # A point's flank is that of the outline above it, looked up sideways: its edge wanders downhill.
    lookup = np.linspace(-0.4, 2.4, 561, dtype=np.float32)
    apex = np.float32([p[0] for p in e.peaks])
    tents = _tents(e, lookup)
    flank = np.sign(lookup - apex[tents.argmin(0)])
    if e.table:
        # On top of a mesa and along its front there are no flanks.
        flank *= smoothstep(e.table - 0.05, e.table + 0.06, tents.min(0))
    flank = np.convolve(flank, np.ones(5) / 5, "same").astype(np.float32)
    sideways = box.x + wander * np.minimum(0.012 + depth * 0.4, 0.08)
    normal = 0.7 * flank.take(((sideways + 0.4) * 200).astype(np.int32), mode="clip") + 0.38 * wander
    if e.table:
        normal += 0.35 * c.noise(box.x * 26, box.y * 5, e.seed + 6)
    light = c.facing(normal) * 0.95
    if e.table:
        light *= 1 + 0.07 * np.sin((box.y - e.table) * 130 + 1.5 * broad)
    # Valleys fill with air.
    haze = e.depth * (1 + unit((box.y - e.base + 0.25) * 2.4))
    unlit, gain = c.colours(MOUNTAIN, haze)
    c.paint(box, alpha, unlit + light * gain, MOUNTAIN)
    if e.snow_line > 0:
        streak = np.abs(c.noise(box.x * 23, box.y * 6, e.seed + 9))
        edge = e.snow_line - box.y + 0.022 * broad + 0.03 * streak
        snow = alpha * unit(edge * (1 / max(c.pixel * 1.5, 0.004)) + 0.5)
        unlit, gain = c.colours(SNOW, haze)
        c.paint(box, snow, unlit + light * gain, SNOW)


def paint_terrain(c: Canvas, e: Terrain) -> None:
    """Grass, sand or snow below a soft profile, textured in perspective."""
    look = c.look
    profile, slope = wave_profile(e.level, e.waves, c.x[0], e.crest)
    if e.shore:
        profile = profile + 0.006 * c.noise_line(c.x[0] * 9, e.seed)
        _foam(c, e, profile)
    box = Box(c, top=float(profile.min()), bottom=c.floor)
    if box.empty:
        return
    down = box.y - profile
    alpha = c.cover(down)
    reach = np.maximum(down, 0)
    fade = np.exp(reach * -5)
    # Texture: rows are spaced as the ground is, wide near the viewer and dense at the horizon.
    ground = np.log(np.maximum(box.y - c.horizon + 0.12, 0.02))
    f = look.frequency
    broad = c.noise(box.x * 2.6, ground * 6, e.seed)
    if e.class_id == SAND:
        bend = c.noise(box.x * 4, ground * 6, e.seed + 2)
        fine = np.sin(ground * (44 * f) + 2.2 * broad + 2.5 * bend)
    else:
        fine = 0.5 * c.noise(box.x * (24 * f), ground * (40 * f), e.seed + 11)
        fine += 0.5 * c.noise(box.x * (52 * f), ground * (60 * f), e.seed + 23)
    if e.crest:
        # The edge between the lit and the shaded side of a dune runs down its front aslant.
        lookup = np.linspace(-2, 4, 601, dtype=np.float32)
        slopes = wave_profile(e.level, e.waves, lookup, e.crest)[1]
        aslant = box.x + reach * (2.2 if e.seed % 2 else -2.2) + (0.12 * broad) * reach
        slope = slopes.take(((aslant + 2) * 100).astype(np.int32), mode="clip")
    light = c.facing(e.relief * slope * fade + 0.12 * broad) * 0.9
    light += 0.09 * look.grain * fine * (1 - 0.7 * fade) + 0.08 * fade
    share = np.maximum(1 - reach * (1.6 / max(1 - e.level, 0.1)), 0)
    unlit, gain = c.colours(e.class_id, e.near + (e.far - e.near) * share * share)
    if e.shore:
        light -= 0.22 * np.exp(reach * -28)  # wet
    shade = 1 + 0.06 * broad + 0.06 * look.grain * fine
    c.paint(box, alpha, unlit * shade + light * gain, e.class_id)


def _foam(c: Canvas, e: Terrain, profile: np.ndarray) -> None:
    """The white of the last wave, just above a shore; it stays water in the label map."""
    box = Box(c, top=float(profile.min()) - 0.05, bottom=float(profile.max()) + 0.01)
    if box.empty:
        return
    ragged = 0.006 * c.noise(box.x * 8, box.y * 30, e.seed + 4)
    above = profile - box.y
    alpha = np.exp(-(((above + ragged - 0.008) * (1 / 0.007)) ** 2)) + 0.5 * np.exp(
        -(((above - 0.030 + 1.4 * ragged) * (1 / 0.005)) ** 2)
    )
    unlit, gain = c.colours(SNOW, 0.2)
    c.paint(box, 0.6 * np.minimum(alpha, 1), unlit + 0.8 * gain, None)


def paint_water(c: Canvas, e: Water) -> None:
    """Water that mirrors what is painted above it, rippled, its own colour growing towards the viewer."""
    look = c.look
    if e.radius_x > 0:
        rx, ry = e.radius_x * 1.25, e.radius_y * 1.25
        box = Box(c, e.x - rx, e.x + rx, e.y - ry, e.y + ry)
    else:
        box = Box(c, top=e.top, bottom=c.floor)
    if box.empty:
        return
    near = np.maximum(box.y - e.top, 0)
    if e.radius_x > 0:
        dx, dy = (box.x - e.x) / e.radius_x, (box.y - e.y) / e.radius_y
        wobble = 1 + 0.08 * c.noise(box.x * 4, box.y * 9, e.seed)
        alpha = c.cover((wobble - np.sqrt(dx * dx + dy * dy)) * e.radius_y)
    else:
        alpha = np.broadcast_to(c.cover(box.y - e.top), (box.y.shape[0], box.x.shape[1]))
    f = look.frequency
    ground = np.log(near + 0.05)
    ripple = 0.6 * c.noise(box.x * 4, ground * (17 * f), e.seed)
    ripple += 0.4 * c.noise(box.x * 11, ground * (34 * f), e.seed + 7)
    mirror = e.top - near * 0.9 + ripple * (0.008 + 0.06 * near) * np.float32(0.4 + look.grain)
    last = max(int((e.top - c.y0) / c.pixel) - 1, 0)
    row = np.minimum(np.maximum(((mirror - c.y0) * (1 / c.pixel)).astype(np.int32), 0), last)
    column = np.arange(c.width, dtype=np.int32)[box.columns] + (ripple * (0.006 / c.pixel)).astype(np.int32)
    column = np.minimum(np.maximum(column, 0), c.width - 1)
    image = c.image.reshape(3, -1).take(row * c.width + column, axis=1)
    t = smoothstep(0.0, 0.5, near)
    unlit, gain = c.colours(WATER, 0.6 - 0.5 * t)
    colour = image + (unlit + 0.75 * gain - image) * (0.5 + 0.25 * t)
    colour *= 1 + np.float32(0.05 + 0.07 * look.grain) * ripple
    # The path of light under the sun or moon.
    for x in c.suns:
        path = np.exp(-(((box.x - x) / (0.05 + 0.16 * near)) ** 2)) * smoothstep(0.1, 1.2, ripple)
        colour += path * planes(look.glow * np.float32(0.5 * look.contrast))
    c.paint(box, alpha, colour, WATER)


def paint_path(c: Canvas, e: Path) -> None:
    """A road that runs to a vanishing point."""
    look = c.look
    box = Box(c, top=e.y_top)
    if box.empty:
        return
    t = unit((box.y - e.y_top) / (1 - e.y_top))
    centre = e.x_top + (e.x_bottom - e.x_top) * t + e.bend * t * np.sin(e.phase + 1.3 / (t + 0.2))
    half = e.width * t + 0.004
    across = (box.x - centre) / half
    off = np.abs(across)
    alpha = c.cover((1 - off) * half * 0.85) * c.cover(box.y - e.y_top)
    ground = np.log(t + 0.04)
    fine = look.grain * c.noise(box.x * (17 * look.frequency), ground * (22 * look.frequency), e.seed)
    worn = np.minimum(across * across, 1)
    light = 0.72 + 0.05 * fine - 0.12 * worn * worn
    unlit, gain = c.colours(ROAD, 0.9 * (1 - t) ** 2)
    colour = unlit * (1 + 0.04 * fine) + light * gain
    if e.marked:
        dash = smoothstep(-0.2, 0.2, np.sin(3.2 / (t + 0.05)))
        mark = c.cover((0.035 - off) * half) * dash + c.cover((0.03 - np.abs(off - 0.86)) * half)
        colour += 0.4 * mark * (unlit + gain)
    c.paint(box, alpha, colour, ROAD)


PAINTERS = {
    Disc: paint_disc,
    Cloud: paint_cloud,
    Ridge: paint_ridge,
    Terrain: paint_terrain,
    Water: paint_water,
    Path: paint_path,
}

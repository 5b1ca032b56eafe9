"""Painters of the natural parts of a scene: sky, clouds, mountains, ground, water, trees."""

from __future__ import annotations

import numpy as np

from mscaflax.data.scene_canvas import Box, Canvas, smoothstep
from mscaflax.data.scene_elements import (
    CLOUD,
    GRASS,
    MOUNTAIN,
    ROAD,
    SAND,
    SNOW,
    SUN,
    TREE,
    WATER,
    Cloud,
    Disc,
    Path,
    Ridge,
    Terrain,
    Tree,
    Treeline,
    Water,
)


def wave_profile(level: float, waves, x: np.ndarray, crest: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Height and slope of level + Σ a·sin(f·x + p) at x; `crest` in [0, 1] turns the tops into points."""
    y, slope = np.full_like(x, level), np.zeros_like(x)
    for amplitude, frequency, phase in waves:
        angle = frequency * x + phase
        sine, cosine = np.sin(angle), np.cos(angle)
        if crest:
            # |sin| of half the angle has a corner at its zeros, upwards on the screen.
            half = np.sin(angle / 2)
            y += amplitude * ((1 - crest) * sine + crest * (2 * np.abs(half) - 1))
            slope += (
                amplitude * frequency * ((1 - crest) * cosine + crest * np.cos(angle / 2) * np.sign(half))
            )
        else:
            y += amplitude * sine
            slope += amplitude * frequency * cosine
    return y, slope


def paint_sky(c: Canvas) -> None:
    """The gradient from zenith to horizon, over the whole canvas."""
    look = c.look
    t = np.clip(c.y / max(c.horizon, 0.2), 0, 1)[..., None]
    upper = look.zenith + (look.middle - look.zenith) * smoothstep(0, 0.75, t)
    c.image[:] = upper + (look.horizon - upper) * smoothstep(0.35, 1.05, t)


def paint_disc(c: Canvas, e: Disc) -> None:
    """Sun or moon with its glow in the air around it."""
    look = c.look
    distance = np.sqrt((c.x - e.x) ** 2 + (c.y - e.y) ** 2)
    halo = 0.55 * np.exp(-distance * (1 / 0.09)) + 0.38 * np.exp(-distance * (1 / 0.42))
    c.image += halo[..., None] * (look.glow - c.image * 0.75) * (look.glow.max() > 0)
    box = Box(c, e.x - e.radius, e.x + e.radius, e.y - e.radius, e.y + e.radius)
    if box.empty:
        return
    d = np.sqrt((box.x - e.x) ** 2 + (box.y - e.y) ** 2)
    c.paint(box, c.cover(e.radius - d), look.disc, SUN)


def paint_cloud(c: Canvas, e: Cloud) -> None:
    """A cumulus: metaballs over a flat base, ragged by noise, lit from the side of the light."""
    look = c.look
    x, y, rx, ry = (np.float32([p[k] for p in e.puffs])[:, None, None] for k in range(4))
    box = Box(c, float((x - 1.5 * rx).min()), float((x + 1.5 * rx).max()),
              float((y - 1.5 * ry).min()), e.base + 0.05)  # fmt: skip
    if box.empty:
        return
    dx, dy = (box.x - x) / rx, (box.y - y) / ry
    bump = np.maximum(1 - (dx * dx + dy * dy) / 1.8, 0) ** 2
    field = bump.sum(0)
    rough = 0.6 * c.noise(box.x * 16, box.y * 20, e.seed) + 0.4 * c.noise(box.x * 34, box.y * 40, e.seed + 5)
    field = field + 0.075 * rough
    below = smoothstep(e.base + 0.012, e.base - 0.03, box.y + 0.006 * rough)
    alpha = smoothstep(0.16, 0.42, field) * below
    top = float((y - ry).min())
    up = (e.base - box.y) / max(e.base - top, 1e-3)
    side = (bump * dx).sum(0) / (field + 0.3)
    lit = 0.25 + 0.62 * up + 0.45 * side * look.light * look.contrast + 0.12 * rough
    lit = smoothstep(-0.05, 1.0, lit - 0.25 * (field > 0) * np.minimum(field, 1.5) * (1 - up))[..., None]
    c.paint(box, alpha, look.cloud_shade + (look.cloud_lit - look.cloud_shade) * lit, None)
    c.label[box.rows, box.columns][alpha > 0.5] = CLOUD


def paint_ridge(c: Canvas, e: Ridge) -> None:
    """Mountains: every peak has a lit and a shaded flank, parted by a wandering edge, and snow above the line."""
    look = c.look
    x = c.x[0]
    apex = np.float32([p[0] for p in e.peaks])[:, None]
    tents = np.float32([p[1] for p in e.peaks])[:, None] + np.where(
        x < apex, (apex - x) * np.float32([p[2] for p in e.peaks])[:, None],
        (x - apex) * np.float32([p[3] for p in e.peaks])[:, None])  # fmt: skip
    detail = sum(c.noise_line(x * f, e.seed + f) * e.rough / f for f in (7, 17, 37))
    profile = np.minimum(tents.min(0), e.base) + detail
    box = Box(c, top=float(profile.min()), bottom=e.base + 0.03)
    if box.empty:
        return
    alpha = c.cover(box.y - profile)
    depth = np.maximum(box.y - profile, 0)
    wander = c.noise(box.x * 7, box.y * 9, e.seed) * 0.6 + c.noise(box.x * 17, box.y * 13, e.seed + 3) * 0.4
    # The flank of a point is that of the profile above it, looked up sideways: the edge wanders as it descends.
    lookup = np.linspace(-0.4, 2.4, 561, dtype=np.float32)
    tent = np.float32([p[1] for p in e.peaks])[:, None] + np.where(
        lookup < apex, (apex - lookup) * np.float32([p[2] for p in e.peaks])[:, None],
        (lookup - apex) * np.float32([p[3] for p in e.peaks])[:, None])  # fmt: skip
    flank = np.sign(lookup - apex[tent.argmin(0), 0])
    flank = np.convolve(flank, np.ones(5) / 5, "same").astype(np.float32)
    sideways = box.x + wander * np.minimum(0.012 + depth * 0.35, 0.09)
    index = np.clip(((sideways + 0.4) * 200).astype(np.int32), 0, 560)
    normal = 0.75 * flank[index] + 0.4 * wander
    light = (c.facing(normal) * 0.95)[..., None]
    haze = e.depth + np.clip((box.y - e.base + 0.25) * 2.0, 0, 0.6)[..., None] * e.depth
    unlit, gain = c.colours(MOUNTAIN, haze)
    c.paint(box, alpha, unlit + light * gain, MOUNTAIN)
    if e.snow_line > 0:
        edge = (
            e.snow_line - box.y + 0.045 * wander + 0.03 * np.abs(c.noise(box.x * 23, box.y * 6, e.seed + 9))
        )
        snow = alpha * np.clip(edge / max(c.pixel * 1.5, 0.004) + 0.5, 0, 1)
        unlit, gain = c.colours(SNOW, haze)
        c.paint(box, snow, unlit + light * gain, SNOW)


def paint_terrain(c: Canvas, e: Terrain) -> None:
    """Grass, sand or snow below a soft profile, textured in perspective."""
    look = c.look
    profile, slope = wave_profile(e.level, e.waves, c.x[0], e.crest)
    box = Box(c, top=float(profile.min()))
    if box.empty:
        return
    down = box.y - profile
    alpha = c.cover(down)
    reach = np.maximum(down, 0)
    fade = np.exp(-reach * (9 if e.crest else 5))
    normal = e.relief * slope * fade
    # Texture: rows are spaced as the ground is, wide near the viewer and dense at the horizon.
    ground = np.log(np.maximum(box.y - c.horizon + 0.12, 0.02))
    f = look.frequency
    broad = c.noise(box.x * 3.2, ground * 5, e.seed)
    fine = c.noise(box.x * 15 * f, ground * 24 * f, e.seed + 11)
    if e.class_id == SAND:
        fine = np.sin((ground * 46 * f) + 2.2 * broad + 3 * c.noise(box.x * 4, ground * 6, e.seed + 2))
    light = c.facing(normal + 0.18 * broad) * 0.9 + 0.05 * broad
    light += 0.10 * look.grain * fine * (0.35 + 0.65 * (1 - fade))
    light += 0.08 * fade - 0.04
    far = np.float32(e.near + (e.far - e.near) * np.clip(1 - reach / max(1 - e.level, 0.1) * 1.6, 0, 1) ** 2)
    unlit, gain = c.colours(e.class_id, far[..., None])
    shade = (1 + 0.10 * broad + 0.08 * look.grain * fine)[..., None]
    c.paint(box, alpha, unlit * shade + light[..., None] * gain, e.class_id)


def paint_treeline(c: Canvas, e: Treeline) -> None:
    """A wood in the distance, crowns side by side."""
    x = c.x[0]
    ground, _ = wave_profile(e.level, e.waves, x)
    # Crowns at jittered steps; the height of a crown is that of its cell.
    cell = x / e.width + 0.35 * c.noise_line(x / e.width * 0.7, e.seed)
    k = np.floor(cell)
    local = (cell - k) * 2 - 1
    size = 0.75 + 0.25 * np.sin(k * 12.9898 + e.seed) + 0.3 * c.noise_line(x * 3, e.seed + 1)
    crown = (1 - np.abs(local)) if e.conifer else np.sqrt(np.maximum(1 - local * local * 0.9, 0))
    profile = ground - e.height * np.maximum(size, 0.15) * (0.45 + 0.55 * crown)
    box = Box(c, top=float(profile.min()), bottom=float(ground.max()) + 0.02)
    if box.empty:
        return
    alpha = c.cover(box.y - profile) * c.cover(ground + 0.012 - box.y)
    up = np.clip((ground - box.y) / e.height, 0, 1)
    light = 0.12 + 0.5 * up * c.facing(local * 0.8) + 0.25 * c.facing(local) * up
    light += 0.06 * c.noise(box.x * 40, box.y * 60, e.seed)
    unlit, gain = c.colours(TREE, e.depth)
    c.paint(box, alpha, unlit * (0.8 + 0.2 * up[..., None]) + light[..., None] * gain, TREE)


def paint_water(c: Canvas, e: Water) -> None:
    """Water that mirrors what is painted above it, rippled, its own colour growing towards the viewer."""
    look = c.look
    if e.radius_x > 0:
        box = Box(
            c, e.x - e.radius_x * 1.3, e.x + e.radius_x * 1.3, e.y - e.radius_y * 1.3, e.y + e.radius_y * 1.3
        )
    else:
        box = Box(c, top=e.top)
    if box.empty:
        return
    near = np.maximum(box.y - e.top, 0)
    ground = np.log(near + 0.05)
    if e.radius_x > 0:
        dx, dy = (box.x - e.x) / e.radius_x, (box.y - e.y) / e.radius_y
        wobble = 1 + 0.10 * c.noise(box.x * 5, box.y * 12, e.seed)
        alpha = c.cover((wobble - np.sqrt(dx * dx + dy * dy)) * e.radius_y)
    else:
        alpha = np.broadcast_to(c.cover(box.y - e.top), (box.y.shape[0], box.x.shape[1]))
    f = look.frequency
    ripple = c.noise(box.x * 5, ground * 17 * f, e.seed)
    ripple = 0.6 * ripple + 0.4 * c.noise(box.x * 13, ground * 34 * f, e.seed + 7)
    mirror = e.top - near * 0.9 + ripple * (0.006 + 0.03 * near) * (0.5 + look.grain)
    row = np.clip(((mirror - c.y0) / c.pixel).astype(np.int32), 0, max(int((e.top - c.y0) / c.pixel) - 1, 0))
    column = np.arange(c.width)[box.columns] + (ripple * 0.004 / c.pixel).astype(np.int32)
    image = c.image[row, np.clip(column, 0, c.width - 1)]
    t = smoothstep(0.0, 0.55, near)[..., None]
    unlit, gain = c.colours(WATER, 0.6 - 0.5 * t)
    body = unlit + gain * 0.75
    colour = image * (0.52 - 0.27 * t) + body * (0.48 + 0.27 * t)
    colour *= (1 + (0.05 + 0.07 * look.grain) * ripple)[..., None]
    # The path of light under the sun or moon.
    for x, glow in c.suns:
        streak = np.exp(-(((box.x - x) / (0.05 + 0.16 * near)) ** 2)) * smoothstep(0.1, 1.2, ripple)
        colour += streak[..., None] * glow * (0.5 * look.contrast)
    c.paint(box, alpha, colour, WATER)


def paint_path(c: Canvas, e: Path) -> None:
    """A road that runs to a vanishing point."""
    look = c.look
    box = Box(c, top=e.y_top)
    if box.empty:
        return
    t = np.clip((box.y - e.y_top) / (1 - e.y_top), 0, 1.2)
    centre = e.x_top + (e.x_bottom - e.x_top) * t + e.bend * t * np.sin(e.phase + 1.0 / (t + 0.22))
    half = e.width * t + 0.004
    across = (box.x - centre) / half
    alpha = c.cover((1 - np.abs(across)) * half * 0.85) * c.cover(box.y - e.y_top)
    ground = np.log(t + 0.04)
    fine = c.noise(box.x * 15 * look.frequency, ground * 20 * look.frequency, e.seed)
    light = 0.72 + 0.07 * look.grain * fine - 0.10 * across**4 + 0.04 * np.cos(across * 9)
    unlit, gain = c.colours(ROAD, (0.9 * (1 - t) ** 2)[..., None])
    colour = unlit * (1 + 0.05 * look.grain * fine)[..., None] + light[..., None] * gain
    if e.marked:
        dash = smoothstep(-0.2, 0.2, np.sin(3.2 / (t + 0.05)))
        mark = c.cover((0.035 - np.abs(across)) * half) * dash + c.cover(
            (0.03 - np.abs(np.abs(across) - 0.86)) * half
        )
        colour = colour + 0.45 * mark[..., None] * (unlit + gain) * np.float32([1.0, 0.97, 0.85])
    c.paint(box, alpha, colour, ROAD)


_CROWNS = {"round": (0.36, 0.30, 0.62), "poplar": (0.14, 0.42, 0.54), "bush": (0.6, 0.42, 0.45)}


def _shadow(c: Canvas, x: float, base: float, half: float) -> None:
    offset = -0.9 * half * c.look.light
    box = Box(c, x - 2.6 * half, x + 2.6 * half, base - half * 0.5, base + half * 0.5)
    if box.empty:
        return
    r = ((box.x - x - offset) / (1.5 * half)) ** 2 + ((box.y - base) / (0.26 * half + c.pixel)) ** 2
    c.darken(box, 0.42 * smoothstep(1.3, 0.3, r) * (box.y > base - 0.2 * half))


def paint_tree(c: Canvas, e: Tree) -> None:
    """One tree with its shadow; crowns are clusters of lit puffs, conifers are tiers."""
    h = e.height
    _shadow(c, e.x, e.base, h * (0.12 if e.kind == "poplar" else 0.22))
    reach = h * (0.62 if e.kind in ("bush", "palm") else 0.45)
    box = Box(c, e.x - reach, e.x + reach, e.base - h * 1.1, e.base + 0.02 * h)
    if box.empty:
        return
    x, y = (box.x - e.x) / h, (e.base - box.y) / h
    rng = np.random.Generator(np.random.Philox(e.seed))
    if e.kind == "conifer":
        inside, normal, up = _conifer(x, y, rng)
    elif e.kind == "palm":
        inside, normal, up = _palm(x, y, rng)
    elif e.kind == "cactus":
        inside, normal, up = _cactus(x, y, rng)
    else:
        inside, normal, up = _crown(x, y, rng, *_CROWNS[e.kind])
    unlit, gain = c.colours(TREE, e.depth)
    if e.kind in ("round", "poplar", "conifer"):
        trunk = c.cover((0.035 - np.abs(x)) * h) * c.cover(y * h) * c.cover((0.4 - y) * h)
        c.paint(box, trunk, (unlit * 0.75 + gain * 0.25) * np.float32([1.0, 0.82, 0.74]), TREE)
    leaf = 1 + 0.5 * (c.look.grain + 0.3) * 0.3 * c.noise(box.x * 48, box.y * 48, e.seed)
    light = np.clip(up * 0.75 * c.facing(normal) + 0.25 * c.facing(normal * 1.4), 0, 1.1) * leaf
    tint = 0.62 + 0.38 * np.clip(up, 0, 1)
    c.paint(box, c.cover(inside * h), unlit * tint[..., None] + 1.15 * light[..., None] * gain, TREE)


def _crown(x, y, rng, half_width, half_height, middle):
    """(signed distance, normal to the side, how much it faces up) of a cluster of puffs, in tree heights."""
    n = 9
    angle = rng.uniform(0, 2 * np.pi, n) + np.arange(n) * 2.4
    r = np.sqrt((np.arange(n) + 0.3) / n) * 0.72
    px = (half_width * r * np.cos(angle))[:, None, None].astype(np.float32)
    py = (middle + half_height * r * np.sin(angle))[:, None, None].astype(np.float32)
    size = (min(half_width, half_height) * rng.uniform(0.42, 0.62, n))[:, None, None].astype(np.float32)
    dx, dy = x - px, y - py
    inside = size - np.sqrt(dx * dx + dy * dy)
    nearest = inside.argmax(0)[None]
    pick = np.take_along_axis
    nx = pick(dx / size, nearest, 0)[0] * 0.6 + 0.75 * x / half_width
    ny = pick(dy / size, nearest, 0)[0] * 0.45 + 0.55 * (y - middle) / half_height
    return inside.max(0), nx, 0.5 + 0.55 * ny


def _conifer(x, y, rng):
    tiers = 4 + int(rng.integers(3))
    t = np.clip((y - 0.1) / 0.9, 0, 1)
    step = (1 - t) * tiers
    saw = step - np.floor(step)
    half = 0.30 * (1 - t) * (0.62 + 0.42 * saw) + 0.01
    inside = np.minimum((half - np.abs(x)) * 0.8, y - 0.1)
    normal = np.clip(x / np.maximum(half, 0.02), -1.2, 1.2) * 0.9
    return np.minimum(inside, 1 - y), normal, np.broadcast_to(0.95 - 0.55 * saw, inside.shape)


def _capsule(x, y, ax, ay, bx, by, radius):
    vx, vy = bx - ax, by - ay
    t = np.clip(((x - ax) * vx + (y - ay) * vy) / (vx * vx + vy * vy), 0, 1)
    dx, dy = x - ax - t * vx, y - ay - t * vy
    return radius - np.sqrt(dx * dx + dy * dy), dx / radius


def _cactus(x, y, rng):
    side = 1.0 if rng.random() < 0.5 else -1.0
    parts = [(0, 0, 0, 0.9, 0.085), (0, 0.35, 0.2 * side, 0.4, 0.055), (0.2 * side, 0.4, 0.2 * side, 0.68, 0.055),
             (0, 0.5, -0.19 * side, 0.53, 0.05), (-0.19 * side, 0.53, -0.19 * side, 0.8, 0.05)]  # fmt: skip
    found = [_capsule(x, y, *p) for p in parts]
    inside = np.stack([f[0] for f in found])
    nearest = inside.argmax(0)[None]
    normal = np.take_along_axis(np.stack([f[1] for f in found]), nearest, 0)[0]
    return inside.max(0), normal, np.full_like(normal, 0.7)


def _palm(x, y, rng):
    lean = float(rng.uniform(-0.16, 0.16))
    trunk, normal = _capsule(x - lean * np.clip(y, 0, 0.8) ** 2 * 1.5, y, 0, 0, 0, 0.76, 0.03)
    inside, up = trunk, np.full_like(trunk, 0.3)
    cx, cy = lean * 0.96, 0.78
    for k in range(7):
        a = (k + float(rng.uniform(-0.2, 0.2))) / 6 * np.pi
        dx, dy = np.cos(a), np.sin(a)
        u = (x - cx) * dx + (y - cy) * dy
        v = (y - cy) * dx - (x - cx) * dy
        # A frond bends down as it leaves the trunk.
        v = v + np.clip(u, 0, 1) ** 2 * 1.5 * (1 if dx >= 0 else -1)
        frond = np.minimum(0.055 * np.clip(1.2 - u / 0.42, 0, 1) - np.abs(v), u)
        better = frond > inside
        inside = np.where(better, frond, inside)
        up = np.where(better, 0.85 - v * 4 * np.sign(dx + 1e-6), up)
        normal = np.where(better, 0.6 * dx, normal)
    return inside, normal, up


PAINTERS = {
    Disc: paint_disc,
    Cloud: paint_cloud,
    Ridge: paint_ridge,
    Terrain: paint_terrain,
    Treeline: paint_treeline,
    Water: paint_water,
    Path: paint_path,
    Tree: paint_tree,
}
__all__ = ["GRASS", "PAINTERS", "paint_sky", "wave_profile"]

"""Why a picture looks as it does: the attention's regions over the exemplar (α), in the target (β), and γ."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mscaflax.apps.blend import Blender
from mscaflax.errors import UserError

# Hues far apart (golden angle), in the order of the regions' use: the first ones matter most.
_GOLDEN_ANGLE = 137.508
_SCALE = 2
_CELL, _GAP, _FONT_SIZE, _TEXT = 144, 6, 14, 40
_BACKGROUND, _INK = (255, 255, 255), (30, 30, 30)


@dataclass(frozen=True)
class Explanation:
    """The attention of one scale behind a picture; K regions, in the order of their use by the target.

    Attributes:
      picture: uint8 [h, w, 3], the output.
      exemplar: uint8 [h', w', 3], the exemplar as the network saw it.
      scale: which scale, 0 the finest; its maps are 2^scale times coarser than the pictures.
      attention: float32 [K, h'', w''], α: where in the exemplar each region comes from; sums to 1 each.
      assignment: float32 [K, h''', w'''], β: how much of each target position is the region's; the regions
        of a position sum to 1.
      gate: float32 [K], γ in [0, 1]: how much of the region is let through; the rest is the exemplar's mean
        or nothing, as `config.model.mask_fill` says.
      use: float32 [K], the share of the target that the region has; falls, and sums to 1.
      regions: int [K], the network's own number of each region.
    """

    picture: np.ndarray
    exemplar: np.ndarray
    scale: int
    attention: np.ndarray
    assignment: np.ndarray
    gate: np.ndarray
    use: np.ndarray
    regions: np.ndarray

    def over_exemplar(self):
        """float32 [K, h', w'] in [0, 1]: each region's α as a heat map over the exemplar, its peak at 1."""
        peaks = self.attention.max(axis=(1, 2), keepdims=True)
        return np.stack([_resized(heat, self.exemplar.shape[:2]) for heat in self.attention / peaks])

    def over_picture(self):
        """float32 [K, h, w] in [0, 1]: each region's β over the picture."""
        h, w = self.picture.shape[:2]
        step = 2**self.scale
        # The maps cover the padded layout: the picture is its upper left part.
        size = tuple(side * step for side in self.assignment.shape[1:])
        return np.stack([_resized(share, size)[:h, :w] for share in self.assignment])

    def sent(self):
        """float32 [K, h', w'] in [0, 1]: what each place of the exemplar sends to the target by each region.

        That is use·γ·α, the mean over the target of β·γ·α. Before the resizing its sum is at most 1. (α
        relative to its peak would not do: a region that looks everywhere a little would have most of the
        exemplar, though it takes next to nothing of each place.)
        """
        sent = (self.use * self.gate)[:, None, None] * self.attention
        return np.stack([_resized(plane, self.exemplar.shape[:2]) for plane in sent])

    def winners(self):
        """Which part feeds which, as two maps of places in the order of use.

        Returns:
          (int [h', w'] the region by which each place of the exemplar sends most to the target, see `sent`;
          int [h, w] the region that has most of each place of the picture).
        """
        return self.sent().argmax(axis=0), self.over_picture().argmax(axis=0)

    def draw(self, count=8):
        """The explanation as a picture: both scenes coloured by region, then each of the first regions.

        Args:
          count: of the regions that are shown, the most used first; all K are, where it is K or more.

        Returns:
          uint8 [H, W, 3] RGB.

        Raises:
          UserError: a count below 1.
        """
        if count < 1:
            raise UserError(f"a drawing of {count} regions shows none: give 1 or more")
        return _draw(self, min(count, len(self.use)))


def explain(model, layout, exemplar, scale=None, seed=0):
    """The Explanation of the picture that a model makes.

    Args:
      model: a mscaflax.training.model.Model with masked spatial-channel attention.
      layout: a mscaflax.apps.inputs.Layout.
      exemplar: a mscaflax.apps.inputs.Exemplar.
      scale: 0, the finest, to L-1; None takes a quarter of the picture's resolution: coarse enough for
        regions that are things, not edges, fine enough to tell them apart.
      seed: of the texture noise.

    Raises:
      UserError: the scale does not exist or aligns nothing, the alignment has no regions, or the model has
        diverged.
    """
    blender = Blender(model, layout, [exemplar], seed)
    return explanation(model, blender.alignments[0], layout, exemplar, blender.mix([1]), scale)


def explanation(model, alignments, layout, exemplar, picture, scale=None):
    """The Explanation that Alignments give, as of `Model.align`.

    Args:
      model, layout, exemplar, scale: as `explain`'s.
      alignments: of this layout and this exemplar, for every scale.
      picture: uint8 [h, w, 3], what became of them.

    Raises:
      UserError: as `explain`.
    """
    scales = scales_with_regions(alignments)
    if not scales:
        raise UserError(
            f"the alignment {model.config.model.alignment!r} of this model has no regions to show: "
            "it takes a model with config.model.alignment 'msca'"
        )
    if scale is None:
        scale = min(scales, key=lambda i: abs(i - _SCALE))
    if scale not in scales:
        raise UserError(f"scale {scale} has no attention: choose one of {', '.join(map(str, scales))}")
    found = alignments[scale]
    alpha, beta, gamma = (
        np.asarray(x[0], np.float32) for x in (found.attention, found.assignment, found.gate)
    )
    content = beta if layout.valid is None else beta * _share_of_content(layout.valid, scale)
    use = content.sum(axis=(0, 1))
    order = np.argsort(-use, kind="stable")
    return Explanation(
        picture=picture,
        exemplar=exemplar.photo,
        scale=scale,
        attention=np.moveaxis(alpha, -1, 0)[order],
        assignment=np.moveaxis(beta, -1, 0)[order],
        gate=gamma[order],
        use=(use / use.sum())[order],
        regions=order,
    )


def scales_with_regions(alignments):
    """The scales that `explanation` can explain, finest first; () of a model without regions."""
    return tuple(i for i, a in enumerate(alignments) if a is not None and a.attention is not None)


def region_colours(count):
    """uint8 [count, 3]: one colour for each place in the order of use, neighbours far apart in hue."""
    hues = (np.arange(count) * _GOLDEN_ANGLE) % 360
    hsv = np.stack([hues / 360 * 255, np.full(count, 190), 235 - 60 * (np.arange(count) % 2)], axis=-1)
    picture = Image.fromarray(hsv[None].astype(np.uint8), "HSV").convert("RGB")
    return np.asarray(picture)[0]


def heat_over(photo, heat):
    """A heat map over a gray, dim photo: uint8 [h, w, 3] from uint8 [h, w, 3] and float [h, w] in [0, 1]."""
    gray = photo.astype(np.float32).mean(axis=-1, keepdims=True) * 0.45
    heat = heat[..., None].astype(np.float32)
    # Black, red, yellow, white: as glowing iron, readable without colour vision by its brightness.
    glow = np.clip(np.concatenate([heat * 3, heat * 3 - 1, heat * 3 - 2], axis=-1), 0, 1) * 255
    weight = np.clip(heat * 1.5, 0, 1)
    return (gray * (1 - weight) + glow * weight).round().clip(0, 255).astype(np.uint8)


def _share_of_content(valid, scale):
    step = 2**scale
    h, w = valid.shape
    return valid.reshape(h // step, step, w // step, step).mean(axis=(1, 3))[..., None]


def _resized(plane, size):
    """A float32 map [h, w] at another size, smoothly."""
    image = Image.fromarray(np.ascontiguousarray(plane, np.float32))
    resized = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.clip(np.asarray(resized), 0, 1)


def _tinted(picture, places, colours):
    """A picture, gray, in the colours of regions."""
    gray = picture.astype(np.float32).mean(axis=-1, keepdims=True) / 255
    return (colours[places] * (0.35 + 0.65 * gray)).round().astype(np.uint8)


def _draw(explanation, count):
    colours = region_colours(len(explanation.use))
    from_where, to_where = explanation.winners()
    top = [
        ("exemplar", explanation.exemplar),
        ("its regions", _tinted(explanation.exemplar, from_where, colours)),
        ("where they land", _tinted(explanation.picture, to_where, colours)),
        ("output", explanation.picture),
    ]
    alphas, betas = explanation.over_exemplar(), explanation.over_picture()
    cells = [(text, _cell(image)) for text, image in top]
    captions = [
        f"{place + 1} of {len(colours)}: {explanation.use[place]:.0%} of the target, "
        f"let through: {explanation.gate[place]:.0%}"
        for place in range(count)
    ]
    font = ImageFont.load_default(_FONT_SIZE)
    # A caption, with its square of colour, stands over two pictures, which may be narrower.
    left = math.ceil(
        max(
            *(image.width for _, image in cells),
            *(font.getlength(text) for text, _ in cells),
            *((_FONT_SIZE + _GAP + font.getlength(caption)) / 2 for caption in captions),
        )
    )
    columns = 2  # regions beside each other, each with two pictures
    width = 4 * left + 5 * _GAP
    height = _CELL + _FONT_SIZE + 3 * _GAP
    rows = -(-count // columns)
    pitch = _CELL + _TEXT + _GAP
    sheet = Image.new("RGB", (width, height + rows * pitch + _GAP), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for index, (text, image) in enumerate(cells):
        x = _GAP + index * (left + _GAP)
        draw.text((x + left / 2, _GAP), text, _INK, font, anchor="ma")
        sheet.paste(image, (x + (left - image.width) // 2, _FONT_SIZE + 2 * _GAP))
    for place in range(count):
        row, column = divmod(place, columns)
        x, y = _GAP + column * 2 * (left + _GAP), height + row * pitch
        colour = tuple(int(v) for v in colours[place])
        draw.rectangle((x, y + 4, x + _FONT_SIZE, y + 4 + _FONT_SIZE), colour)
        draw.text((x + _FONT_SIZE + _GAP, y + 3), captions[place], _INK, font)
        for offset, picture, heat in (
            (0, explanation.exemplar, alphas[place]),
            (left + _GAP, explanation.picture, betas[place]),
        ):
            # The root: attention is peaked, and what stands beside the peak would be black.
            image = _cell(heat_over(picture, np.sqrt(heat)))
            sheet.paste(image, (x + offset + (left - image.width) // 2, y + _FONT_SIZE + 2 * _GAP))
    return np.asarray(sheet)


def _cell(picture):
    """A picture as high as a cell, at most twice as wide."""
    h, w = picture.shape[:2]
    factor = min(_CELL / h, 2 * _CELL / w)
    size = (max(1, round(w * factor)), max(1, round(h * factor)))
    return Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS)

"""Photos continued beyond their border, and edited through their label maps; what need not change, does not.

In both, the photo with its own label map is the exemplar. The network paints the whole picture, in which the
photo's pixels are kept; mscaflax.apps.seamless puts the rest to them.

The network has seen things at one scale. A photo of another one, and its layout with it, are brought to that
scale, and what is painted is resized back: in a large photo the new parts have the network's resolution, not
the photo's.
"""

import math

import numpy as np
from PIL import Image
from scipy import fft
from scipy.ndimage import binary_dilation

from mscaflax.apps.inputs import (
    MAX_PIXELS,
    check_label,
    check_photo,
    check_size,
    read_exemplar,
    read_layout,
)
from mscaflax.apps.seamless import composite
from mscaflax.apps.synthesizer import batched_valid, check_seed, to_picture
from mscaflax.errors import UserError
from mscaflax.nets.layers import MAX_SIDE

# A layout was perhaps retouched where the photo lies; with fewer pixels alike it is another scene's.
_ALIKE = 0.9
# In pixels at the network's scale: at the border of two things, what is painted shows some of both.
_MARGIN = 2


def extrapolate(model, photo, label, layout, at=None, seed=0):
    """Continues a photo beyond its border.

    Args:
      model: a mscaflax.training.model.Model.
      photo: path of a photo, or uint8 [h, w, 3] RGB.
      label: its label map: path, or int [h, w] in 0..C, C = unlabelled.
      layout: the whole picture's label map, path or int [H, W]. Where the photo lies, the photo's own counts.
      at: (top, left), the photo's upper left corner in it; None: where `find_place` finds it.
      seed: of the texture noise, 0 .. 2^32-1; the same call gives the same picture.

    Returns:
      uint8 [H, W, 3] RGB. The pixels of the photo are the photo's, bit for bit.

    Raises:
      UserError: a file that cannot be read, a label outside the classes, sizes that differ, a photo that does
        not lie in the layout or whose place is not found, a model that has diverged.
    """
    check_seed(seed)
    photo, label = _checked(model, photo, label)
    whole = check_label(layout, "the layout", model.classes).copy()
    check_size(whole, "the layout")
    top, left = find_place(label, whole) if at is None else at
    (h, w), (whole_h, whole_w) = label.shape, whole.shape
    if not (0 <= top <= whole_h - h and 0 <= left <= whole_w - w):
        raise UserError(
            f"a photo of {w}x{h} pixels at {top},{left} (top, left) does not lie in the layout of "
            f"{whole_w}x{whole_h}"
        )
    place = slice(top, top + h), slice(left, left + w)
    whole[place] = label
    kept = np.zeros(whole.shape, bool)
    kept[place] = True
    canvas = np.zeros((*whole.shape, 3), np.uint8)
    canvas[place] = photo
    if kept.all():
        return photo.copy()
    exemplar = read_exemplar(model, photo, label)
    return _filled(model, canvas, kept, whole, exemplar, _scale(exemplar, label), seed)


def check_edit_has_label(label):
    """Raises UserError where an edit lacks the photo's own label map (None)."""
    if label is None:
        # A guess made then and there would mark whatever is wrong in it as edited.
        raise UserError(
            "an edit needs the photo's own label map (--photo_label), with which the edited one is compared: "
            "`mscaflax segment`, or Synthesizer.segment, guesses one to begin with"
        )


def edit(model, photo, label, edited, margin=None, seed=0):
    """Paints anew what an edited label map changes of a photo.

    Args:
      model: a mscaflax.training.model.Model.
      photo: path of a photo, or uint8 [h, w, 3] RGB.
      label: its label map: path, or int [h, w] in 0..C, C = unlabelled.
      edited: the label map that is wanted, as `label`.
      margin: how many pixels around each changed one are painted anew too, in steps to the side, up and
        down. At the border of two things pixels show some of both, and an object casts shades around it.
        None: two pixels at the scale of the training, at least one.
      seed: of the texture noise, 0 .. 2^32-1; the same call gives the same picture.

    Returns:
      uint8 [h, w, 3] RGB. All pixels further than `margin` steps from a changed one are the photo's, bit for
      bit; where nothing is changed, all are.

    Raises:
      UserError: no label map, a file that cannot be read, a label outside the classes, sizes that differ, a
        negative margin, a model that has diverged.
    """
    check_seed(seed)
    if margin is not None and margin < 0:
        raise UserError(f"the margin {margin} is negative")
    check_edit_has_label(label)
    photo, label = _checked(model, photo, label)
    edited = check_label(edited, "the edited label map", model.classes)
    _check_alike(edited, "the edited label map", photo)
    check_size(edited, "the edited label map")
    changed = edited != label
    if not changed.any():
        return photo.copy()
    exemplar = read_exemplar(model, photo, label)
    if margin is None:
        margin = math.ceil(_MARGIN / _scale(exemplar, label))
    # So many steps lead from any pixel to any other; SciPy counts no further than 2^31.
    margin = min(margin, sum(changed.shape))
    if margin:
        changed = binary_dilation(changed, iterations=margin)
    return _filled(model, photo, ~changed, edited, exemplar, _scale(exemplar, label), seed)


def find_place(label, layout):
    """Where in a layout a photo's label map fits: (top, left) of its upper left corner.

    That is the place at which most pixels are alike; of several, the one nearest to the middle.

    Args:
      label: int [h, w].
      layout: int [H, W].

    Raises:
      UserError: the label map is larger than the layout, or nine tenths of it are alike nowhere.
    """
    (h, w), (whole_h, whole_w) = label.shape, layout.shape
    if h > whole_h or w > whole_w:
        raise UserError(f"the photo is {w}x{h} pixels, the layout {whole_w}x{whole_h}: it must be larger")
    spectrum = 0
    for value in np.intersect1d(label, layout):
        # A correlation of the two maps' indicators counts the pixels that both have in this class.
        spectrum = spectrum + fft.rfft2((layout == value).astype(float)) * np.conj(
            fft.rfft2((label == value).astype(float), layout.shape)
        )
    alike = np.zeros(layout.shape) if np.isscalar(spectrum) else fft.irfft2(spectrum, layout.shape)
    alike = np.rint(alike[: whole_h - h + 1, : whole_w - w + 1])
    places = np.argwhere(alike == alike.max())
    middle = np.array([whole_h - h, whole_w - w]) / 2
    top, left = (int(x) for x in places[((places - middle) ** 2).sum(axis=1).argmin()])
    share = alike.max() / label.size
    if share < _ALIKE:
        raise UserError(
            f"the photo's label map fits nowhere in the layout: at best {share:.0%} of it, at {top},{left} "
            "(top, left); say where it lies, by `at` or --at=TOP,LEFT"
        )
    return top, left


def _checked(model, photo, label):
    """Photo and label map as arrays, of equal size."""
    photo = check_photo(photo, "the photo")
    label = check_label(label, "the photo's label map", model.classes)
    _check_alike(label, "its label map", photo)
    return photo, label


def _check_alike(label, what, photo):
    if label.shape != photo.shape[:2]:
        (h, w), (label_h, label_w) = photo.shape[:2], label.shape
        raise UserError(
            f"the photo is {w}x{h} pixels (upright, as its EXIF data says), {what} {label_w}x{label_h}: "
            "give a map of equal size"
        )


def _scale(exemplar, label):
    """By how much an Exemplar was resized; `label` is the photo's label map."""
    return (exemplar.label.size / label.size) ** 0.5


def _filled(model, canvas, kept, layout, exemplar, scale, seed):
    """`canvas` where it is kept, elsewhere painted as `layout`, at the exemplar's scale, in its style."""
    scale = min(scale, (MAX_PIXELS / layout.size) ** 0.5, MAX_SIDE / max(layout.shape))
    size = [max(int(side * scale), 1) for side in layout.shape[::-1]]
    small = Image.fromarray(layout.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    target = read_layout(model, np.asarray(small))
    image = model.generate(
        target.label[None], exemplar.image[None], exemplar.label[None], seed, batched_valid(target)
    )
    picture = Image.fromarray(to_picture(image, target))
    synthesis = np.asarray(picture.resize(layout.shape[::-1], Image.Resampling.BICUBIC))
    # The offset at the border reaches as far as one patch of the training is wide.
    return composite(canvas, synthesis, kept, layout, model.config.data.size / scale)

"""From what a browser sends to what the service takes, and back. All is checked; nothing names a file."""

import base64
import json

import numpy as np

from mscaflax.apps.blend import check_weights
from mscaflax.apps.inputs import Exemplar
from mscaflax.apps.studio.service import MAX_EXEMPLARS, Job, colours_of
from mscaflax.data.images import Limits, encode_png, read_photo
from mscaflax.errors import UserError


def file_of(form, name, required=True):
    """The bytes of an uploaded file: `form` maps names to bytes (files) and str (fields).

    Raises:
      UserError: it is missing, or no file.
    """
    value = form.get(name)
    if value is None and not required:
        return None
    if not isinstance(value, bytes):
        raise UserError(f"the request lacks the file {name!r}: reload the page")
    return value


def parse_job(studio, form):
    """A Job from a form.

    Args:
      studio: a Studio.
      form: a dict with
        request: JSON text, {"layout": {"width", "height"}, "exemplars": [{"width", "height"}, ...],
          "weights": [number, ...], "seed": int, "scale": int or null, may be left out};
        layout: bytes, one for each pixel, row by row: ids in 0..C;
        photoI: the bytes of a PNG, labelI as `layout`, for exemplar I from 0.

    Raises:
      UserError: something is missing, of a wrong type, out of range, or does not fit the rest.
    """
    try:
        wanted = json.loads(form.get("request"))
    except (TypeError, ValueError, RecursionError):
        raise UserError("the request is no JSON text: reload the page") from None
    if not isinstance(wanted, dict):
        raise UserError("the request is no JSON object: reload the page")
    layout_size = _size(wanted.get("layout"), "the layout")
    if layout_size not in studio.sizes:
        allowed = ", ".join(f"{w}x{h}" for h, w in studio.sizes)
        raise UserError(f"the canvas is {layout_size[1]}x{layout_size[0]}, it must be one of {allowed}")
    layout = _ids(studio, file_of(form, "layout"), layout_size, "the layout")
    described = wanted.get("exemplars")
    if not isinstance(described, list) or not 1 <= len(described) <= MAX_EXEMPLARS:
        raise UserError(f"give 1 to {MAX_EXEMPLARS} exemplars")
    exemplars = tuple(_exemplar(studio, form, index, item) for index, item in enumerate(described))
    weights, seed = _weights(wanted.get("weights"), len(exemplars)), _seed(wanted.get("seed"))
    return Job(layout, exemplars, weights, seed, _scale(wanted.get("scale")))


def answer_json(answer):
    """An Answer as JSON values; arrays as base64 of their bytes, row by row.

    Returns:
      {"picture": a PNG, "milliseconds": int, "width", "height" of the picture,
       "regions": null, or {"scale", "scales": those that a job may name, "width", "height" of β's planes,
         "count": K, "assignment": uint8 [K, h, w], β·255, "colours": [[r, g, b], ...] of the regions,
         "use": [K],
         "exemplars": [{"width", "height" of α's planes, "attention": uint8 [K, h', w'], α/peak·255, "peaks":
           [K] the peaks of α, "gate": [K] γ}, ...]}}. The order of the regions is the first exemplar's.
    """
    h, w = answer.picture.shape[:2]
    return {
        "picture": base64_of(encode_png(answer.picture)),
        "milliseconds": round(answer.seconds * 1000),
        "width": w,
        "height": h,
        "regions": _regions(answer) if answer.explanations else None,
    }


def exemplar_json(exemplar):
    """An Exemplar as JSON values: {"width", "height", "photo": a PNG, "label": uint8 [h, w]}, as base64."""
    h, w = exemplar.label.shape
    return {
        "width": w,
        "height": h,
        "photo": base64_of(encode_png(exemplar.photo)),
        "label": base64_of(exemplar.label.astype(np.uint8).tobytes()),
    }


def layout_json(label):
    """A label map as JSON values: {"width", "height", "label": uint8 [h, w] as base64}."""
    h, w = label.shape
    return {"width": w, "height": h, "label": base64_of(label.astype(np.uint8).tobytes())}


def base64_of(data):
    """The str that stands for bytes in JSON."""
    return base64.b64encode(data).decode("ascii")


def _regions(answer):
    first = answer.explanations[0]
    count, h, w = first.assignment.shape
    return {
        "scale": first.scale,
        "scales": list(answer.scales),
        "width": w,
        "height": h,
        "count": count,
        "assignment": _levels(first.assignment),
        "colours": colours_of(answer).tolist(),
        "use": [round(float(use), 5) for use in first.use],
        "exemplars": [_attention(found, first.regions) for found in answer.explanations],
    }


def _attention(found, regions):
    # Explanations sort regions by use. β, and so the use, is the target's alone; ties may fall otherwise.
    order = [int(np.flatnonzero(found.regions == region)[0]) for region in regions]
    attention = found.attention[order]
    peaks = attention.max(axis=(1, 2))
    _, h, w = attention.shape
    return {
        "width": w,
        "height": h,
        "attention": _levels(attention / peaks[:, None, None]),
        "peaks": [float(f"{peak:.4g}") for peak in peaks],
        "gate": [round(float(gate), 4) for gate in found.gate[order]],
    }


def _levels(shares):
    return base64_of(np.rint(np.clip(shares, 0, 1) * 255).astype(np.uint8).tobytes())


def _whole(value):
    return isinstance(value, int) and not isinstance(value, bool)


def _size(value, what):
    """(h, w) from {"width", "height"}."""
    sides = [value.get(key) for key in ("height", "width")] if isinstance(value, dict) else [None]
    if not all(_whole(side) and 1 <= side <= 65535 for side in sides):
        raise UserError(f"{what} has no width and height in whole pixels: reload the page")
    return tuple(sides)


def _ids(studio, data, size, what):
    h, w = size
    if len(data) != h * w:
        raise UserError(f"{what} has {len(data)} bytes, for {w}x{h} pixels it takes {h * w}")
    label = np.frombuffer(data, np.uint8).reshape(h, w)
    classes = studio.classes
    if label.max() > classes.num_classes:
        raise UserError(
            f"{what} holds the id {label.max()}; allowed are 0..{classes.num_classes} "
            f"({classes.num_classes} = unlabelled)"
        )
    return label


def _exemplar(studio, form, index, described):
    what = f"exemplar {index + 1}"
    size = _size(described, what)
    label = _ids(studio, file_of(form, f"label{index}"), size, f"the label map of {what}")
    photo = read_photo(file_of(form, f"photo{index}"), Limits(label.size, ("PNG",)))
    if photo.shape[:2] != size:
        raise UserError(
            f"{what} is {photo.shape[1]}x{photo.shape[0]} pixels, its label map {size[1]}x{size[0]}"
        )
    exemplar = Exemplar(photo, label.astype(np.int32))
    studio.check_exemplar(exemplar)
    return exemplar


def _weights(value, count):
    numbers = isinstance(value, list) and all(
        isinstance(weight, (int, float)) and not isinstance(weight, bool) for weight in value
    )
    if not numbers:
        raise UserError(f"{count} exemplars need as many weights: reload the page")
    return check_weights(value, count)


def _seed(value):
    if not _whole(value) or not 0 <= value < 2**32:
        raise UserError(f"the seed must be a whole number in 0..{2**32 - 1}")
    return value


def _scale(value):
    if value is not None and not _whole(value):
        raise UserError("the scale of the attention must be a whole number, or null for the usual one")
    return value

"""What the studio answers, without the web: layouts, exemplars, pictures and what feeds them."""

import time
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mscaflax.apps.blend import Blender
from mscaflax.apps.explain import explanation, region_colours, scales_with_regions
from mscaflax.apps.inputs import MAX_PIXELS, Layout, pad_to_multiple
from mscaflax.apps.studio.examples import closest_size, fit_layout, load_examples
from mscaflax.data.images import Limits, read_label_map, read_photo
from mscaflax.errors import UserError

MAX_EXEMPLARS = 4
# What phones and cameras make. Of Pillow's formats these start no other program. TIFF is not among them: what
# says 64x64 may be one tile of 30000x30000, which is decoded as a whole whatever the limit.
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP")
PHOTO_LIMITS = Limits(pixels=25_000_000, formats=FORMATS)
LAYOUT_LIMITS = Limits(pixels=MAX_PIXELS, formats=FORMATS)


@dataclass(frozen=True)
class Job:
    """One picture that is wanted.

    Attributes:
      layout: uint8 [h, w] in 0..C, (h, w) one of the studio's sizes.
      exemplars: 1 to MAX_EXEMPLARS mscaflax.apps.inputs.Exemplar.
      weights: one for each, as mscaflax.apps.blend.check_weights has them.
      seed: of the texture, 0 .. 2^32-1.
      scale: whose attention is explained, 0 the finest; None leaves the choice to `explain`.
    """

    layout: np.ndarray
    exemplars: tuple
    weights: tuple[float, ...]
    seed: int
    scale: int | None = None


@dataclass(frozen=True)
class Answer:
    """A picture and what feeds it.

    Attributes:
      picture: uint8 [h, w, 3] RGB.
      explanations: for each exemplar its mscaflax.apps.explain.Explanation; empty where the model has no
        regions.
      scales: those whose attention can be explained, finest first.
      seconds: that it took.
    """

    picture: np.ndarray
    explanations: tuple
    scales: tuple[int, ...]
    seconds: float


class Studio:
    """A model with what a page needs around it. Its calls are not made for several threads at a time."""

    def __init__(self, synthesizer):
        """`synthesizer`: a mscaflax.apps.synthesizer.Synthesizer."""
        self.synthesizer = synthesizer
        self.model = synthesizer.model
        self._aligned = (None, None)

    @property
    def sizes(self):
        """The (h, w) that a canvas may have. Few, since the network is compiled for each."""
        side = self.model.config.data.size
        return ((side, 2 * side), (side, side), (2 * side, 2 * side))

    @property
    def classes(self):
        """The model's ClassTable."""
        return self.model.classes

    @cached_property
    def examples(self):
        """As `load_examples`, but the exemplars as mscaflax.apps.inputs.Exemplar: [(name, Exemplar)]."""
        layouts, photos = load_examples(self.model)
        exemplars = [(e.name, self.synthesizer.read_exemplar(e.photo, e.label)) for e in photos]
        return layouts, exemplars

    def example_layouts(self, size):
        """[(name, uint8 [h, w])] of the examples, for a size of the canvas."""
        return [(example.name, fit_layout(example.label, size)) for example in self.examples[0]]

    def read_layout(self, data):
        """A label map from the bytes of a file, cut and shrunk to the closest size of the canvas.

        Returns:
          (uint8 [h, w] in 0..C; (h', w') that the file has).

        Raises:
          UserError: as `read_label_map`.
        """
        label = read_label_map(data, self.classes, LAYOUT_LIMITS)
        return fit_layout(label, closest_size(self.sizes, label.shape)), label.shape

    def read_exemplar(self, photo, label=None):
        """An Exemplar from the bytes of a photo and of its label map; without it the segmenter guesses.

        Raises:
          UserError: a file that cannot be read, sizes that differ, no segmenter.
        """
        photo = read_photo(photo, PHOTO_LIMITS)
        if label is not None:
            label = read_label_map(label, self.classes, PHOTO_LIMITS)
        return self.synthesizer.read_exemplar(photo, label)

    def check_exemplar(self, exemplar):
        """Raises UserError unless an Exemplar has sides that `read_exemplar` can give."""
        side, multiple = self.model.config.data.size, self.model.network.size_multiple
        h, w = exemplar.photo.shape[:2]
        # The largest area of `legal_size`: a panorama's, or a square's.
        patch = sum(self.model.config.data.side_range) / 2
        area = max(16 / patch, 4 / patch**2) * (side + multiple) ** 2
        if h % multiple or w % multiple or min(h, w) < side or max(h, w) > 16 * side or h * w > area:
            raise UserError(f"an exemplar of {w}x{h} pixels was not prepared here: add its photo again")

    def synthesize(self, job):
        """The Answer to a Job.

        The picture is that of `mscaflax.apps.blend.Blender.mix`, pixel for pixel; with one exemplar of weight
        1 it is the Synthesizer's.

        Raises:
          UserError: as Blender; a model that has diverged; a scale without attention.
        """
        begin = time.perf_counter()
        label, valid = pad_to_multiple(job.layout, self.model.network.size_multiple, self.classes.num_classes)
        layout = Layout(label, None if valid.all() else valid, job.layout.shape)
        blender = self._blender(layout, job)
        picture = blender.mix(job.weights)
        seconds = time.perf_counter() - begin
        scales = scales_with_regions(blender.alignments[0])
        explanations = ()
        if scales or job.scale is not None:
            explanations = tuple(
                explanation(self.model, alignments, layout, exemplar, picture, job.scale)
                for alignments, exemplar in zip(blender.alignments, job.exemplars, strict=True)
            )
        return Answer(picture, explanations, scales, seconds)

    def _blender(self, layout, job):
        """The last alignment is kept: the slider and the seed do not need a new one."""
        parts = [job.layout] + [x for e in job.exemplars for x in (e.photo, e.label)]
        key = tuple((part.shape, part.tobytes()) for part in parts)
        known, blender = self._aligned
        if known != key:
            blender = Blender(self.model, layout, job.exemplars, job.seed)
            self._aligned = key, blender
        return blender.with_seed(job.seed)

    def warm(self, size, exemplars=1):
        """Compiles what a picture of this (h, w) takes, with so many exemplars of the examples' shape."""
        found = [exemplar for _, exemplar in self.examples[1]][:exemplars]
        if len(found) < exemplars:
            return
        layout = np.zeros(size, np.uint8)
        self.synthesize(Job(layout, tuple(found), (1 / exemplars,) * exemplars, 0))


def colours_of(answer):
    """uint8 [K, 3]: a colour for each region of an Answer; K = 0 without explanations."""
    return region_colours(len(answer.explanations[0].use) if answer.explanations else 0)

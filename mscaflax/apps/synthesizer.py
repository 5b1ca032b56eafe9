"""From files or arrays to a picture: any label map, any photo, any size."""

import functools
import logging

import numpy as np

from mscaflax.apps.inputs import check_photo, read_exemplar, read_layout, segment_photo
from mscaflax.apps.pretrained import DEFAULT, pretrained_folder
from mscaflax.data.pixels import to_uint8
from mscaflax.errors import UserError

_LOG = logging.getLogger("mscaflax.synthesizer")


class Synthesizer:
    """Makes pictures with a trained model.

    Example:
      >>> synthesizer = Synthesizer.pretrained()
      >>> picture = synthesizer("layout.png", "photo.jpg", "photo_labels.png")
      >>> Image.fromarray(picture).save("picture.png")
    """

    def __init__(self, model, workdir=None):
        """`model`: a mscaflax.training.model.Model; `workdir`: whence it came, which may hold a segmenter."""
        self.model, self.workdir = model, workdir
        self._told_of_guesses = False

    @classmethod
    def from_workdir(cls, workdir=None, step=None):
        """Loads what `mscaflax train` left in `workdir`, at a step (None: the last).

        A `workdir` of None is the model that ships with the package.

        Raises:
          UserError: there is no model, or none of this step.
        """
        from mscaflax.training.model import load_model

        workdir = pretrained_folder() if workdir is None else workdir
        return cls(load_model(workdir, step), workdir)

    @classmethod
    def pretrained(cls, name=DEFAULT):
        """Loads a model that ships with the package.

        Raises:
          UserError: none of this name does.
        """
        return cls.from_workdir(pretrained_folder(name))

    @functools.cached_property
    def segmenter(self):
        """The Segmenter beside the model, which guesses label maps of photos that have none.

        Raises:
          UserError: there is none; the message names the command that makes it.
        """
        from mscaflax.training.segmenter import load_segmenter

        if self.workdir is None:
            raise UserError(
                "this model came from no workdir, so it has no segmenter to guess label maps with"
            )
        segmenter = load_segmenter(self.workdir, vgg=self.model.vgg)
        if segmenter.classes.names != self.classes.names:
            raise UserError(
                f"the segmenter in {self.workdir} knows other classes than the model: train it again"
            )
        return segmenter

    def segment(self, photo):
        """Guesses a photo's label map.

        Args:
          photo: path, or uint8 [h, w, 3] RGB.

        Returns:
          int32 [h, w] in 0..C-1, at the photo's size; found at the scale of the training patches.

        Raises:
          UserError: a file that cannot be read, or no segmenter beside the model.
        """
        return segment_photo(self.model, self.segmenter, check_photo(photo))

    def tell_of_guesses(self, tell=_LOG.warning):
        """Tells in a line, the first time that it is called, that label maps are guessed, and how well.

        Args:
          tell: what takes the line, a str.

        Raises:
          UserError: no segmenter beside the model.
        """
        scores = self.segmenter.scores or {}
        if self._told_of_guesses:
            return
        self._told_of_guesses = True
        known = "mean_iou" in scores
        quality = f": on validation patches, its mean IoU is {scores['mean_iou']:.2f}" if known else ""
        tell(f"the segmenter guesses the label map of photos that come without{quality}")

    def read_exemplar(self, photo, label=None):
        """A mscaflax.apps.inputs.Exemplar; without a label map the segmenter guesses it.

        Raises:
          UserError: as a call.
        """
        return read_exemplar(self.model, photo, label, self.segmenter if label is None else None)

    @property
    def classes(self):
        """The ClassTable whose ids and colours label maps are written in."""
        return self.model.classes

    def __call__(self, label, exemplar, exemplar_label=None, *, seed=0):
        """Synthesizes a picture with the layout of `label` in the style of `exemplar`.

        The exemplar is resized to the scale of the training patches, with legal sides (multiples of
        `network.size_multiple`). The label map keeps its size: it is padded to a
        legal one, the padding weighs nothing, and the output is cropped.

        Args:
          label: path of a label map (8-bit ids or the palette's colours), or int [h, w] in 0..C,
            C = unlabelled.
          exemplar: path of a photo, or uint8 [h', w', 3] RGB.
          exemplar_label: its label map, as `label`, of its size h' × w'; None for the segmenter's guess, of
            which the first is logged.
          seed: of the texture noise, 0 .. 2^32-1; the same call gives the same picture.

        Returns:
          uint8 [h, w, 3] RGB.

        Raises:
          UserError: a file that cannot be read, a label outside the classes, sizes that do not fit, no label
            map and no segmenter, a model that has diverged.
        """
        from mscaflax.apps.blend import Blender

        check_seed(seed)
        layout = read_layout(self.model, label)
        exemplar = self._read_exemplar(exemplar, exemplar_label)
        # The programs of all mixtures: another one rounds otherwise, and a rounding can flip an 8-bit level.
        return Blender(self.model, layout, [exemplar], seed).mix([1])

    def explain(self, label, exemplar, exemplar_label=None, *, scale=None, seed=0):
        """The attention behind the picture that a call with the same arguments gives.

        Args:
          label, exemplar, exemplar_label, seed: as of a call.
          scale: 0, the finest, to L-1; None for one whose regions are things.

        Returns:
          A mscaflax.apps.explain.Explanation; its `draw()` is a picture, its `picture` that of the call, bit
          for bit.

        Raises:
          UserError: as a call; or the model has no such attention.
        """
        from mscaflax.apps.explain import explain

        check_seed(seed)
        layout = read_layout(self.model, label)
        return explain(self.model, layout, self._read_exemplar(exemplar, exemplar_label), scale, seed)

    def _read_exemplar(self, photo, label):
        """As `read_exemplar`, but a guess is told of."""
        exemplar = self.read_exemplar(photo, label)
        if exemplar.guessed:
            self.tell_of_guesses()
        return exemplar

    def extrapolate(self, photo, photo_label, layout, *, at=None, seed=0):
        """Continues a photo beyond its border, see mscaflax.apps.compose: uint8 [H, W, 3].

        Without the label map (None) the segmenter guesses it, and `at` must tell where the photo lies.
        """
        from mscaflax.apps.compose import extrapolate

        if photo_label is None:
            if at is None:
                raise UserError(
                    "without its label map, the photo's place in the layout cannot be found: "
                    "say where it lies, by `at` or --at=TOP,LEFT"
                )
            photo = check_photo(photo, "the photo")
            photo_label = self.segment(photo)
            self.tell_of_guesses()
        return extrapolate(self.model, photo, photo_label, layout, at, seed)

    def edit(self, photo, photo_label, edited, *, margin=None, seed=0):
        """Paints anew what an edited label map changes, see mscaflax.apps.compose: uint8 [h, w, 3]."""
        from mscaflax.apps.compose import edit

        return edit(self.model, photo, photo_label, edited, margin, seed)


def check_seed(seed):
    """Raises UserError unless `seed` lies in 0 .. 2^32-1."""
    if not 0 <= seed < 2**32:
        raise UserError(f"the seed {seed} is outside 0..{2**32 - 1}")


def batched_valid(layout):
    """A Layout's `valid` as a batch of one; None where nothing is padded."""
    return None if layout.valid is None else layout.valid[None]


def to_picture(image, layout):
    """What the network gave for a Layout, float [1, h', w', 3] in [-1, 1], as uint8 [h, w, 3].

    Raises:
      UserError: it holds values that are not finite.
    """
    if not np.isfinite(image).all():
        raise UserError(
            "the output holds values that are not finite: the training of this model has diverged"
        )
    return to_uint8(layout.crop(image[0]))

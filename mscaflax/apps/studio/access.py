"""The studio's way to a model: the one that ships or a workdir's, with a segmenter or without."""

from mscaflax.apps.inputs import read_exemplar
from mscaflax.apps.synthesizer import Synthesizer
from mscaflax.errors import UserError

SHIPPED = "scenes64"


def open_synthesizer(workdir=None):
    """The Synthesizer of a workdir; None for the model that ships with the package.

    Raises:
      UserError: there is no model.
    """
    if workdir is not None:
        return Synthesizer.from_workdir(workdir)
    if not hasattr(Synthesizer, "pretrained"):
        raise UserError("this version ships no model: give --workdir=DIR, the folder of `mscaflax train`")
    return Synthesizer.pretrained(SHIPPED)


def make_exemplar(synthesizer, photo, label=None):
    """The mscaflax.apps.inputs.Exemplar of a photo.

    Args:
      synthesizer: a Synthesizer.
      photo: uint8 [h, w, 3] RGB.
      label: its label map, int32 [h, w] in 0..C; None for the segmenter's guess.

    Raises:
      UserError: sizes that differ, or a guess wanted and no segmenter there.
    """
    if label is None:
        if not hasattr(synthesizer, "segment"):
            raise UserError("this model has no segmenter that could guess the label map")
        label = synthesizer.segment(photo)
    return read_exemplar(synthesizer.model, photo, label)

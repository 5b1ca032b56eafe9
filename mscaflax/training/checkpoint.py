"""Checkpoints by orbax: what inference needs apart from what only training needs, the config beside them.

A workdir holds `config.json`, `classes.json` and `checkpoints/<step>/{model,training}`: `model` is what the
state names in `MODEL_FIELDS` (of the synthesis network, the moving average of the generator and the
statistics of the VGG taps), `training` is the rest of the state; `sha256.json` beside the two guards their
files (`training/manifest.py`). A packed model (`training/packed.py`) has
one file of weights in place of `checkpoints`.
"""

import contextlib
import errno
import os
import shutil
import time

import jax
import orbax.checkpoint as ocp
from absl import logging

from mscaflax.errors import UserError
from mscaflax.files import expanded
from mscaflax.training.description import make_workdir, saved_steps
from mscaflax.training.manifest import damage, is_listed, write_manifest
from mscaflax.training.processes import agreed, await_others, is_first
from mscaflax.training.weights_file import FILE, read_weights


@contextlib.contextmanager
def exclusive(workdir):
    """Keeps a second training out of the workdir, which is made if need be; for as long as the context lasts.

    The operating system lets go of the lock when the process ends, however it ends.

    Raises:
      UserError: another process trains there, the folder cannot be made, or is a packed model.
    """
    import fcntl  # not on every system that can synthesize

    workdir = make_workdir(workdir)
    if (workdir / FILE).is_file():
        raise UserError(f"{workdir} is a packed model, whose training cannot go on: choose another folder")
    with open(workdir / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another process is training in {workdir}: stop it, or choose another --workdir; "
                f"or, if its machine is gone, delete {workdir / '.lock'}"
            ) from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            logging.warning("%s cannot be locked: let no second process train there", workdir)
        yield


def _split(state):
    fields = {name: getattr(state, name) for name in state.__dataclass_fields__}
    return (
        {name: fields[name] for name in state.MODEL_FIELDS},
        {name: value for name, value in fields.items() if name not in state.MODEL_FIELDS},
    )


def tells_of_full_disk(text):
    """Whether a message does."""
    return any(os.strerror(number) in text for number in (errno.ENOSPC, errno.EDQUOT))


def disk_is_full(error):
    """Whether an error, or what it comes from, says so; TensorStore tells it in words alone."""
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            return True
        if tells_of_full_disk(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def full_disk_error(workdir, what, kept):
    """The UserError for `what` could not be written to a workdir (a Path); `kept`: the last saved step."""
    where = "nothing was saved yet" if kept is None else f"the same command goes on from step {kept}"
    free = shutil.disk_usage(workdir).free / 1e6
    return UserError(
        f"{what} could not be saved: the disk of {workdir} is full ({free:,.0f} MB free); "
        f"make room, then start again: {where}"
    )


class Checkpoints:
    """The checkpoints of one workdir; a context manager, which waits for writes that are under way."""

    def __init__(self, workdir, keep=2):
        self.folder = expanded(workdir).absolute() / "checkpoints"
        self._manager = ocp.CheckpointManager(
            self.folder,
            item_names=("model", "training"),
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep,
                enable_async_checkpointing=True,
                async_options=ocp.AsyncOptions(post_finalization_callback=self._list_written),
            ),
        )
        self._saving = None

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.wait()
        self._manager.close()

    def latest(self):
        """The last complete step, or None."""
        return self._manager.latest_step()

    def latest_sound(self):
        """The last complete step whose files are as they were written, or None.

        Later ones that are damaged are set aside, in the workdir's folder `damaged`, with a warning.

        Raises:
          UserError: there are checkpoints, and all are damaged.
        """
        # Process 0 looks, once for all: it reads every file, and moves the damaged ones.
        found = self._newest_sound() if is_first() else (None, {})
        step, problems = found
        none, damaged = -1, -2
        answer = agreed(step if step is not None else damaged if problems else none)
        if is_first() and problems and step is not None:
            for damaged, problem in problems.items():
                logging.warning(
                    "the checkpoint of step %d is damaged (%s): set aside in damaged/, "
                    "an earlier one is taken",
                    damaged,
                    problem,
                )
            self._move_aside(problems)
        if answer == damaged:
            held = "; ".join(f"step {step}: {problem}" for step, problem in problems.items())
            raise UserError(
                f"every checkpoint in {self.folder} is damaged ({held or 'see process 0'}): "
                "choose another --workdir"
            )
        await_others("damaged checkpoints are set aside")
        self._manager.reload()
        return None if answer == none else answer

    def _newest_sound(self):
        """(the last step without damage or None, {step: problem} of those after it)."""
        problems = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            problem = damage(self.folder / str(step))
            if problem is None:
                return step, problems
            problems[step] = problem
        return None, problems

    def set_aside(self, steps):
        """Moves checkpoints into the workdir's folder `damaged`; every process calls it.

        Returns:
          The last step that is left, or None.
        """
        self.wait()
        if is_first():
            self._move_aside(steps)
        await_others("unusable checkpoints are set aside")
        self._manager.reload()
        return self._manager.latest_step()

    def _move_aside(self, steps):
        for step in steps:
            place = self.folder.parent / "damaged" / str(step)
            shutil.rmtree(place, ignore_errors=True)
            place.parent.mkdir(exist_ok=True)
            (self.folder / str(step)).rename(place)

    def save(self, step, state):
        """Saves a state as `step`, in the background; a step that is there already is left as it is."""
        if step in self._manager.all_steps():
            return
        model, training = _split(state)
        self.wait()
        self._saving = step
        with self._explaining():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    model=ocp.args.StandardSave(model), training=ocp.args.StandardSave(training)
                ),
            )

    @contextlib.contextmanager
    def _explaining(self):
        """Turns the errors of a full disk into a UserError, and leaves nothing of the save that failed."""
        try:
            yield
        except Exception as error:
            if not disk_is_full(error):
                raise
            step, self._saving = self._saving, None
            if is_first():
                self._remove_partial()
            what, kept = f"the checkpoint of step {step}", self._manager.latest_step()
            raise full_disk_error(self.folder.parent, what, kept) from error

    def _remove_partial(self):
        """Removes what a failed save wrote; its other writes can go on for a moment and make files anew."""
        quiet = 0
        for _ in range(50):
            found = list(self.folder.glob("*.orbax-checkpoint-tmp*"))
            for partial in found:
                shutil.rmtree(partial, ignore_errors=True)
            quiet = 0 if found else quiet + 1
            if quiet == 5:
                return
            time.sleep(0.1)

    def wait(self):
        """Returns when every save is on disk, with its manifest.

        Raises:
          UserError: the disk is full.
        """
        with self._explaining():
            self._manager.wait_until_finished()
        if self._saving is not None and is_first():
            folder = self.folder / str(self._saving)
            if folder.is_dir() and not is_listed(folder):
                write_manifest(folder)
        self._saving = None

    def _list_written(self):
        """Orbax calls it when the files of a save are closed, before their folder gets its final name."""
        if is_first():
            for folder in self.folder.glob(f"{self._saving}.orbax-checkpoint-tmp*"):
                write_manifest(folder)

    def restore(self, step, abstract_state):
        """The state of `step`; `abstract_state` holds ShapeDtypeStructs with their shardings."""
        model, training = _split(abstract_state)
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                model=ocp.args.StandardRestore(model), training=ocp.args.StandardRestore(training)
            ),
        )
        return abstract_state.replace(**restored["model"], **restored["training"])


def restore_model(workdir, step=None, abstract_model=None):
    """The items that inference needs.

    Args:
      workdir: a folder of `mscaflax train`, or a packed model.
      step: which checkpoint; None for the last.
      abstract_model: the state's MODEL_FIELDS as a dict of trees of ShapeDtypeStructs.

    Returns:
      (step, a dict like `abstract_model`) on the first device.

    Raises:
      UserError: there is no checkpoint, or not of this step; or its files, or a packed model's, are damaged.
    """
    workdir = expanded(workdir).absolute()
    if (workdir / FILE).is_file():
        packed, restored = read_weights(workdir / FILE, abstract_model)
        if step not in (None, packed):
            raise UserError(f"{workdir} is a packed model of step {packed}, it has no step {step}")
        return packed, jax.device_put(restored, jax.local_devices()[0])
    steps = saved_steps(workdir)
    if not steps or (step is not None and step not in steps):
        held = f"it holds steps {', '.join(map(str, steps))}" if steps else "train first"
        raise UserError(f"{workdir} has no checkpoint{'' if step is None else f' of step {step}'}: {held}")
    step = steps[-1] if step is None else step
    folder = workdir / "checkpoints" / str(step)
    problem = damage(folder, "model")
    if problem is not None:
        others = [s for s in steps if s != step and damage(workdir / "checkpoints" / str(s), "model") is None]
        hint = f"take --step={others[-1]}" if others else "train again in another --workdir"
        raise UserError(f"the checkpoint of step {step} in {workdir} is damaged ({problem}): {hint}")
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), abstract_model
    )
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
        restored = checkpointer.restore(folder / "model", args=ocp.args.StandardRestore(abstract))
    return step, restored

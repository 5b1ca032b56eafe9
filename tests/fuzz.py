"""Random and mutated files and arguments, from a seed: what users give by mistake, and worse.

python tests/fuzz.py [--count=2000] [--seed=0] [--limit=120]      # with the model that ships

Each case goes to a command, in this process, to `load_exported`, or to the studio's application. A case fails
if anything but a UserError comes out, if a command that fails does not say why in a line, or shows a
traceback, if the studio answers with a status of 500 or more, if it takes longer than
the limit, or if a file is made, changed or removed beside the one that was asked for: in the case's folder,
the model's, the working folder, the home folder or that of temporary files. Whatever ends with an error may
change none, but for the folder and the lock that `prepare` makes first.
"""

import argparse
import io
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from fuzz_cases import COMMAND_CASES, LOAD, load_case, studio_case
from fuzz_files import originals
from fuzz_watch import Late, changes, check_changes, limited, listing, surroundings

from mscaflax import cli
from mscaflax.data.tensorflow import import_tensorflow
from mscaflax.errors import UserError

LIMIT = 120


def run_command(line):
    """The exit status of a command. Anything but a UserError passes through."""
    if line[0] == LOAD:
        return load(line[1])
    out, err = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
    try:
        status = cli.main(line)
        said = sys.stderr.getvalue()
    finally:
        sys.stdout, sys.stderr = out, err
    check_words(status, said)
    return status


def check_words(status, said):
    """Raises AssertionError where a command shows a traceback, or fails without a last line that says why."""
    assert "Traceback" not in said, f"it shows a traceback: {said[-500:]}"
    assert status in (0, 2), f"it ends with status {status}"
    last = said.rstrip().rpartition("\n")[2]
    assert status == 0 or last.startswith("mscaflax: error: "), f"it fails, and says {said[-500:]!r}"


def load(path):
    """As a command's status: 0 where `load_exported` takes the file, 2 where it says what is wrong."""
    from mscaflax import load_exported

    try:
        load_exported(path)
    except UserError:
        return 2
    return 0


def one_case(index, rng, files, workdir, client, root, cases, run):
    """(kind of case, its status); raises what must not come out."""
    top = root.parent
    if index % 5 == 4:
        before = listing(top)
        kind, status = studio_case(client, files, rng)
        assert status < 500, f"the studio answers {status}"
        changed = changes(before, listing(top))
        assert not changed, f"the studio changed {', '.join(changed)}"
        return kind, status
    make = rng.choice(cases)
    line = make(root, files, rng, workdir)
    before = listing(top)
    try:
        status = run(line)
        check_changes(line, status, changes(before, listing(top)))
    except (Exception, Late) as error:
        error.add_note(str(line))
        raise
    return make.__name__.removesuffix("_case"), status


def fuzz(count, seed, workdir, client, root, *, limit=LIMIT, cases=COMMAND_CASES, run=run_command, more=None):
    """Runs `count` cases, one after another.

    Args:
      count: how many; a fifth go to the studio.
      seed: of all of them.
      workdir: the folder of a model.
      client: a Starlette test client of the studio.
      root: a folder that is emptied, absolute; all that lies beside it is watched.
      limit: in seconds, for each case.
      cases: functions (root, files, rng, workdir) that fill `root` and return a command's line.
      run: a function that runs such a line and returns its status.
      more: further files of the cases, {name: bytes}.

    Returns:
      ({kind of case: {outcome: number}}, (seconds, name) of the slowest case).

    Raises:
      AssertionError: cases failed; the message holds what repeats each of them.
    """
    # Keras, which TensorFlow loads, writes its settings to the home folder where there are none.
    import_tensorflow()
    files, outcomes, failures, times = originals() | dict(more or {}), {}, [], []
    with surroundings(root.parent):
        for index in range(count):
            rng, name, begin = random.Random(f"{seed}/{index}"), f"{seed}/{index}", time.perf_counter()
            try:
                with limited(limit, name):
                    kind, status = one_case(index, rng, files, workdir, client, root, cases, run)
                # Compiled code is not interrupted.
                if time.perf_counter() - begin > limit:
                    raise Late(f"it takes more than {limit} s")
            except (Exception, Late) as error:
                notes = " ".join(getattr(error, "__notes__", ()))
                failures.append(f"case {name}: {type(error).__name__}: {error} {notes}".rstrip())
                continue
            finally:
                times.append((time.perf_counter() - begin, name))
            row = outcomes.setdefault(kind, {})
            row[status] = row.get(status, 0) + 1
            if index % 100 == 99:
                print(f"{index + 1} of {count} cases, {len(failures)} failed", file=sys.stderr)
    assert not failures, "\n".join(failures)
    return outcomes, max(times)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for each case")
    options = parser.parse_args()
    from starlette.testclient import TestClient

    from mscaflax import Synthesizer
    from mscaflax.apps.pretrained import pretrained_folder
    from mscaflax.apps.studio.server import build_app
    from mscaflax.apps.studio.service import Studio

    begin = time.perf_counter()
    load_once()
    with tempfile.TemporaryDirectory() as top:
        workdir = Path(top) / "model"
        shutil.copytree(pretrained_folder(), workdir)
        app = build_app(Studio(Synthesizer.from_workdir(str(workdir))), warm=False)
        exported = Path(top) / "model.zip"
        if cli.main(["export", f"--workdir={workdir}", f"--output={exported}"]):
            sys.exit("the model cannot be exported")
        with TestClient(app, base_url="http://127.0.0.1:7860") as client:
            outcomes, (slowest, name) = fuzz(
                options.count, options.seed, workdir, client, Path(top) / "case", limit=options.limit,
                cases=(*COMMAND_CASES, load_case), more={exported.name: exported.read_bytes()},
            )  # fmt: skip
    for kind, row in sorted(outcomes.items()):
        print(f"{kind:12}", ", ".join(f"status {status}: {number}" for status, number in sorted(row.items())))
    print(f"{options.count} cases in {time.perf_counter() - begin:.0f} s, none failed")
    print(f"the slowest, case {name}, took {slowest:.1f} s")


def load_once():
    """Commands load their model and its segmenter anew; of a thousand, one load of each is enough."""
    import functools

    from mscaflax.training import model, segmenter

    model.load_model = functools.cache(model.load_model)
    load, loaded = segmenter.load_segmenter, {}

    def load_segmenter(workdir, seed=None, vgg=None):
        if (workdir, seed) not in loaded:
            loaded[workdir, seed] = load(workdir, seed, vgg)
        return loaded[workdir, seed]

    segmenter.load_segmenter = load_segmenter


if __name__ == "__main__":
    main()

"""What the study trains and measures. A table compares runs of the same steps and data."""

import json
from dataclasses import dataclass, field

# Main runs on scenes and their seeds; one seed for the costly or less disputed ones.
ALIGNMENTS = {
    "msca": ({}, 3),
    "msca_unmasked": ({"model.masking": False}, 3),
    "gap": ({"model.alignment": "gap"}, 3),
    "vae": ({"model.alignment": "vae"}, 3),
    "class": ({"model.alignment": "class"}, 1),
    "dense": ({"model.alignment": "dense"}, 1),
}
SCENES_PAIRS = 200  # of an evaluation on scenes, and of each bin of class overlap
# What each ablation changes in `msca`; the first of a group is the unchanged network.
ABLATIONS = {
    "modulation": {"spade": {}, "decoupled": {"model.modulation": "decoupled"}},
    "mask_fill": {"global": {}, "zero": {"model.mask_fill": "zero"}},
    "regions": {"16": {}} | {str(k): {"model.num_regions": k} for k in (1, 4, 8, 32)},
    "self-supervision": {
        "both": {},
        "cross only": {"data.self_share": 0.0},
        "self only": {"data.self_share": 1.0},
    },
    "hidden classes": {"half the exemplars": {}, "none": {"data.hidden_share": 0.0}},
    "normalization": {"instance": {}, "position": {"model.normalization": "position"}},
    "finest channels": {"16": {}, "8": {"model.generator_channels": (8, 32, 64, 128, 192)}},
}
# Seeds of an ablation, and so of the unchanged network; one of all others.
ABLATION_SEEDS = {"mask_fill": 3}


@dataclass(frozen=True)
class Run:
    """One training and its evaluation.

    Attributes:
      name: of its files; unique.
      table: the table it stands in.
      config: name of a config file.
      overrides: config keys and values.
      evaluate: further arguments of `mscaflax evaluate`.
    """

    name: str
    table: str
    config: str
    overrides: dict = field(default_factory=dict)
    evaluate: tuple[str, ...] = ()

    @property
    def dataset(self):
        return self.overrides["data.name"]

    @property
    def size(self):
        return self.overrides["data.size"]


def _training(steps, batch_size, rate=8e-4, size=64):
    return {
        "model.modulation": "spade",
        "data.size": size,
        "optimizer.generator_rate": rate,
        "optimizer.decay_from": 0.5,
        "train.steps": steps,
        "train.batch_size": batch_size,
        "train.health_every": 200,
        "train.sample_every": 200,
        "train.checkpoint_every": 50,
        "train.keep_checkpoints": 1,
    }


def _slug(text):
    return text.replace(" ", "_")


def runs():
    """Every run, in the order in which they are worth having."""
    found = []
    hidden = {"data.hidden_share": 0.5}
    scenes = {"data.name": "scenes"} | hidden | _training(260, 16)
    evaluate = ("--split=test", f"--pairs={SCENES_PAIRS}", f"--overlap_pairs={SCENES_PAIRS}")
    for seed in range(3):
        for name, (change, seeds) in ALIGNMENTS.items():
            if seed < seeds:
                found.append(
                    Run(
                        f"scenes-{name}-seed{seed}",
                        "scenes",
                        "scenes64",
                        scenes | change | {"seed": seed},
                        evaluate,
                    )
                )
    photos = {
        "facade": (_training(900, 8, 6e-4), ("msca", "gap", "vae", "dense")),
        "camvid": (_training(500, 8, 6e-4), ("msca", "gap")),
    }
    for dataset, (training, names) in photos.items():
        for name in names:
            change, _ = ALIGNMENTS[name]
            found.append(
                Run(
                    f"{dataset}-{name}",
                    dataset,
                    "photos64",
                    {"data.name": dataset} | training | change,
                    ("--split=val", "--pairs=100"),
                )
            )
    small = {"data.name": "scenes"} | hidden | _training(260, 16, size=32)

    def ablation(name, change):
        found.append(Run(name, "ablations", "scenes64", small | change, evaluate))

    for seed in range(max(ABLATION_SEEDS.values())):
        ablation(unchanged_run(seed), {"seed": seed} if seed else {})
    for group, variants in ABLATIONS.items():
        for value, change in variants.items():
            for seed in range(ABLATION_SEEDS.get(group, 1)) if change else ():
                ablation(ablation_run(group, value, seed), change | ({"seed": seed} if seed else {}))
    return found


def is_done(run, folder):
    """Whether `folder` holds the numbers of this run, as the plan has it now."""
    file = folder / f"{run.name}.json"
    return file.exists() and not _changes(run, json.loads(file.read_text()))


def _changes(run, numbers):
    """What the numbers of a run were measured with that the plan has otherwise: names of settings."""
    config = numbers["config"]
    asked = dict(text.removeprefix("--").split("=") for text in run.evaluate)
    bins = numbers.get("overlap") or {}
    measured = {
        "split": numbers["dataset"]["split"],
        "pairs": str(numbers["pairs"]["n"]),
        "overlap_pairs": str(max((row["n"] for row in bins.values()), default=0)),
    }
    found = [key for key, value in asked.items() if measured[key] != value]
    for key, value in run.overrides.items():
        group, _, name = key.rpartition(".")
        value = {"__tuple__": list(value)} if isinstance(value, tuple) else value  # as config_to_json has it
        if (config[group] if group else config).get(name) != value:
            found.append(key)
    return found


def unchanged_run(seed=0):
    """The name of the run that the ablations are compared with."""
    return "ablation-msca" + (f"-seed{seed}" if seed else "")


def ablation_run(group, value, seed=0):
    """The name of the run that shows `value` of an ablation's `group`."""
    if not ABLATIONS[group][value]:
        return unchanged_run(seed)
    return f"ablation-{_slug(group)}-{_slug(value)}" + (f"-seed{seed}" if seed else "")

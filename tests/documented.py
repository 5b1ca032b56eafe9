"""The commands that a page of the documentation shows."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[1]


def commands_of(page):
    """[(name, arguments)] of the `mscaflax` commands that a page shows, by its path in the repository."""
    text = (ROOT / page).read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    parts = [part for line in lines for part in re.split(" && ", line)]
    matches = [match for match in map(re.compile(r"(?:\S+=\S+ )*mscaflax ([a-z].*)").match, parts) if match]
    return [(name, rest) for name, *rest in (shlex.split(match[1], comments=True) for match in matches)]

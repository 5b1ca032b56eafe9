"""Reading a compiled program's text: its tensors in memory, what it moves, what devices say to each other.

The text is XLA's HLO after optimization, as `Compiled.as_text()` gives it. Layouts count: a TPU stores
the two fastest axes in tiles of 8×128 elements or more, and what does not fill its tiles is moved all the
same.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute")

_BITS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16, "c64": 64, "c128": 128}
_ARRAY = re.compile(r"([a-z]+\d*[a-z0-9]*)\[([\d,]*)\](?:\{([\d,]*)(?::([^}]*))?\})?")
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.-]+) = (.*)$")
_OPERATION = re.compile(r"\s*([\w-]+)\((.*)$")
_OPERANDS = re.compile(r"%([\w.-]+)")
_CALLED = re.compile(r"(?:body|condition|to_apply|true_computation|false_computation)=%?([\w.-]+)")
_FUSED = re.compile(r"calls=%?([\w.-]+)")
_ROUNDS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CONDITION = re.compile(r"condition=%?([\w.-]+)")
_CONSTANT = re.compile(r"\bconstant\((\d+)\)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_INDEX = re.compile(r"index=(\d+)")
_PARAMETER = re.compile(r"parameter\((\d+)\)")
_PLACE = re.compile(r'op_name="([^"]*)"')

# These name a tensor that is there already, or a part of one; parameters are counted as arguments.
_ALIASES = {
    *("parameter", "tuple", "get-tuple-element", "bitcast", "constant", "after-all", "while", "conditional")
}

_SLICES = ("slice", "dynamic-slice")


@dataclass(frozen=True)
class Array:
    """One array of a compiled program.

    Attributes:
      dtype: as in HLO, e.g. `bf16`.
      shape: its sides.
      nbytes: of its elements.
      stored_nbytes: what it takes in memory, with the padding of its tiles.
      space: memory space; 0 is HBM, others are on the chip.
    """

    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    stored_nbytes: int
    space: int

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Instruction:
    """One instruction; `operands` are names, `place` says which part of the source it is from.

    `root`: whether it is what its computation returns.
    """

    name: str
    opcode: str
    arrays: tuple[Array, ...]
    operands: tuple[str, ...]
    place: str
    text: str
    root: bool = False


def parse_arrays(text: str) -> tuple[Array, ...]:
    """The arrays of an HLO type: one, or those of a tuple in their order."""
    return tuple(_parse_array(*match.groups()) for match in _ARRAY.finditer(text))


def _parse_array(dtype: str, sides: str, order: str | None, layout: str | None) -> Array:
    shape = tuple(int(side) for side in sides.split(",") if side)
    bits = _BITS.get(dtype) or int((re.search(r"\d+", dtype) or ["0"])[0])
    padded = list(shape)
    if tile := re.search(r"T\(([\d,]+)\)", layout or ""):
        # Axes from the fastest on, against the tile's from its last on.
        fastest = [int(axis) for axis in (order or "").split(",") if axis]
        for axis, side in zip(fastest, reversed(tile[1].split(",")), strict=False):
            padded[axis] = math.ceil(shape[axis] / int(side)) * int(side)
    space = re.search(r"S\((\d+)\)", layout or "")
    return Array(
        dtype,
        shape,
        math.prod(shape) * bits // 8,
        math.prod(padded) * bits // 8,
        int(space[1]) if space else 0,
    )


def parse_program(text: str) -> tuple[str, dict[str, list[Instruction]]]:
    """(name of the entry computation, instructions of every computation by its name)."""
    entry, computations, current = "", {}, []
    for line in text.splitlines():
        if head := _COMPUTATION.match(line):
            current = computations.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif found := _INSTRUCTION.match(line):
            kind, rest = _split_type(found[3])
            if operation := _OPERATION.match(rest):
                arguments = operation[2][: _closing(f"({operation[2]}") - 1]
                place = _PLACE.search(rest)
                current.append(
                    Instruction(
                        found[2],
                        operation[1],
                        parse_arrays(kind),
                        tuple(_OPERANDS.findall(arguments)),
                        place[1] if place else "",
                        rest,
                        bool(found[1]),
                    )
                )
    return entry, computations


def _split_type(text: str) -> tuple[str, str]:
    """`TYPE rest`, where TYPE is an array or a tuple in parentheses."""
    end = _closing(text) + 1 if text.startswith("(") else text.find(" ")
    return text[:end], text[end:]


def _closing(text: str) -> int:
    """Where the parenthesis that opens `text` is closed; its length if nowhere."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return place
    return len(text)


def executed(text: str, fused: bool = False) -> Iterator[tuple[Instruction, int]]:
    """Instructions that run by themselves, of the entry, loops, branches and calls, and how often each runs.

    A loop counts by its rounds, see `_rounds`; a computation that several places call, by the first of them.

    Args:
      text: the program.
      fused: also what stands within fusions, reductions and asynchronous instructions.
    """
    entry, computations = parse_program(text)
    waiting, seen = [(entry, 1)], set()
    while waiting:
        name, times = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for instruction in computations.get(name, ()):
            yield instruction, times
            called = []
            if fused or instruction.opcode in ("while", "conditional", "call"):
                called += _CALLED.findall(instruction.text)
                for names in _BRANCHES.findall(instruction.text):
                    called += [part.strip().lstrip("%") for part in names.split(",")]
            if fused:
                called += _FUSED.findall(instruction.text)
            rounds = _rounds(instruction, computations) if instruction.opcode == "while" else 1
            waiting += [(name, times * rounds) for name in called]


def _rounds(loop, computations):
    """How often a loop runs: as the compiler says; or, where it does not, as for a TPU, as a scan's condition
    does, a counter (from 0) below a constant; 1 for conditions of other forms."""
    if told := _ROUNDS.search(loop.text):
        return int(told[1])
    condition = _CONDITION.search(loop.text)
    instructions = {i.name: i for i in computations.get(condition[1], ())} if condition else {}
    last = next(reversed(instructions.values()), None)
    if last is None or last.opcode != "compare" or "direction=LT" not in last.text:
        return 1
    limit = instructions.get(last.operands[-1]) if last.operands else None
    number = _CONSTANT.search(limit.text) if limit else None
    return int(number[1]) if number else 1


def tensors(text: str) -> list[dict]:
    """What the program writes to memory, largest first; alike ones (type, operation, place) are one entry.

    Returns:
      Dicts with `bytes` (stored, of one of them), `count` (over all rounds of a loop), `reads` (instructions
      that take one of them), `padding` (stored bytes over those of the elements), `type`, `operation` and
      `place`.
    """
    found, sizes, reads = Counter(), {}, Counter()
    # What each instruction's results are, one entry per array; None for what is not in HBM.
    known: dict[str, list[tuple | None]] = {}
    for instruction, times in executed(text):
        taken = [key for name in instruction.operands for key in known.get(name, ())]
        if instruction.opcode in _ALIASES:
            index = _INDEX.search(instruction.text) if instruction.opcode == "get-tuple-element" else None
            known[instruction.name] = taken[int(index[1]) :][:1] if index else taken
            continue
        reads.update(set(taken))
        keys = known.setdefault(instruction.name, [])
        for array in instruction.arrays:
            # A start's results are its operands, or come with the matching `-done`.
            if array.space or instruction.opcode.endswith("-start"):
                keys.append(None)
                continue
            key = str(array), array.stored_nbytes, instruction.opcode, instruction.place
            found[key] += times
            sizes[key] = array
            keys.append(key)
    rows = [
        {
            "bytes": key[1],
            "count": count,
            "reads": reads[key],
            "padding": key[1] / max(sizes[key].nbytes, 1),
            "type": key[0],
            "operation": key[2],
            "place": key[3],
        }
        for key, count in found.items()
    ]
    return sorted(rows, key=lambda row: (-row["bytes"] * row["count"], row["type"], row["place"]))


def hbm_bytes(text: str) -> int:
    """Bytes that a device reads from HBM and writes to it in one run of the program.

    Operands and results of every instruction that lie there, once each, with the padding of their tiles.
    XLA's own count, `bytes accessed`, has those in the chip's fast memory as well, and takes a tensor that is
    copied there in four parts for read four times. Where a fusion slices an operand, the slices count; what
    it overwrites a part of counts whole.
    """
    fused = parse_program(text)[1]
    parts: dict[str, dict[int, int | None]] = {}
    arrays: dict[str, tuple[Array, ...]] = {}
    total = 0
    for instruction, times in executed(text):
        arrays[instruction.name] = results = instruction.arrays
        if instruction.opcode in {*_ALIASES, "call"} or instruction.opcode.endswith("-done"):
            continue
        operands = [arrays.get(name, ()) for name in instruction.operands]
        if instruction.opcode.endswith("-start") and len(results) > (given := sum(map(len, operands))):
            # The operands are among the results, first, but for a copy.
            results = results[:1] if instruction.opcode == "copy-start" else results[given:]
        read: dict[int, int | None] = {}
        if instruction.opcode in ("copy-start", "slice-start", *_SLICES):
            read = {0: results[0].stored_nbytes}
        elif called := _FUSED.search(instruction.text):
            read = _parts_read(called[1], fused, parts)
        moved = sum(a.stored_nbytes for a in results if not a.space)
        for index, operand in enumerate(operands):
            for a in operand:
                part = read.get(index)
                moved += 0 if a.space else a.stored_nbytes if part is None else min(part, a.stored_nbytes)
        total += moved * times
    return total


def _parts_read(name, computations, known):
    """{index of a fused computation's parameter: bytes of the slices, if they are all it takes, or None}."""
    if name in known:
        return known[name]
    users: dict[str, list[tuple[Instruction, int]]] = {}
    for instruction in computations[name]:
        for index, operand in enumerate(instruction.operands):
            users.setdefault(operand, []).append((instruction, index))

    # What the computation returns is for its caller to take: all of it, as far as is known here.
    roots = {instruction.name for instruction in computations[name] if instruction.root}

    def taken(value):
        if value in roots:
            return None
        sizes = []
        for user, index in users.get(value, ()):
            if user.opcode in _SLICES and index == 0:
                sizes.append(user.arrays[0].stored_nbytes)
            elif user.opcode == "bitcast":
                sizes.append(taken(user.name))
            elif user.opcode == "fusion":
                sizes.append(_parts_read(_FUSED.search(user.text)[1], computations, known).get(index))
            else:
                sizes.append(None)
        return None if None in sizes else sum(sizes)

    parameters = (i for i in computations[name] if i.opcode == "parameter")
    known[name] = {int(_PARAMETER.search(i.text)[1]): taken(i.name) for i in parameters}
    return known[name]


def collectives(text: str) -> dict[str, dict[str, int]]:
    """Per kind of collective its `count` and the `bytes` that a device hands in, in one run."""
    found: dict[str, dict[str, int]] = {}
    arrays: dict[str, tuple[Array, ...]] = {}
    for instruction, times in executed(text, fused=True):
        arrays[instruction.name] = instruction.arrays
        kind = instruction.opcode.removesuffix("-start")
        if kind in COLLECTIVES:
            row = found.setdefault(kind, {"count": 0, "bytes": 0})
            row["count"] += times
            row["bytes"] += times * sum(
                a.nbytes for name in instruction.operands for a in arrays.get(name, ())
            )
    return found

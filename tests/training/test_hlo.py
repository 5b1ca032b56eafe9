"""Reading a compiled program, on one written by hand."""

import re

import pytest

from mscaflax.training.hlo import collectives, hbm_bytes, parse_arrays, tensors

PROGRAM = (
    """\
HloModule jit_step, is_scheduled=true, input_output_alias={ {0}: (0, {}, may-alias) }

FileNames
1 "step.py"

%fused (param_0: bf16[8,16,16,64]) -> f32[8,16,16,64] {
  %param_0 = HALF parameter(0)
  ROOT %inside = f32[8,16,16,64]{3,0,2,1:T(8,128)} convert(%param_0), metadata={op_name="jit(step)/inside"}
}

%both (param_0: bf16[8,16,16,64]) -> (bf16[8,16,16,64], bf16[8,16,16,64]) {
  ROOT %pair = (HALF, HALF) tuple(%a, %b)
}

%body (state: (s32[], f32[256,128])) -> (s32[], f32[256,128]) {
  %state = (s32[]{:T(128)}, f32[256,128]{1,0:T(8,128)}) parameter(0)
  %part = f32[256,128]{1,0:T(8,128)} get-tuple-element(%state), index=1
  %grown = f32[256,128]{1,0:T(8,128)} add(%part, %part), metadata={op_name="jit(step)/while/body/add"}
  ROOT %next = (s32[]{:T(128)}, f32[256,128]{1,0:T(8,128)}) tuple(%count, %grown)
}

%condition (state: (s32[], f32[256,128])) -> pred[] {
  ROOT %less = pred[]{:T(512)} compare(%count, %limit), direction=LT
}

ENTRY %main.1_spmd (x: bf16[8,16,16,64], /*index=1*/w: f32[256,128]) -> (f32[256,128], /*index=1*/f32[]) {
  %x = HALF parameter(0)
  %w = f32[256,128]{1,0:T(8,128)} parameter(1)
  %fusion.1 = WIDE fusion(%x), kind=kLoop, calls=%fused, metadata={op_name="jit(step)/wide"}
  %fusion.2 = (HALF, ON_CHIP) fusion(%fusion.1), kind=kLoop, calls=%both, metadata={op_name="jit(step)/both"}
  %first = HALF get-tuple-element(%fusion.2), index=0
  %second = ON_CHIP get-tuple-element(%fusion.2), index=1
  %norm.1 = f32[]{:T(128)} reduce(%first), dimensions={0,1,2,3}, to_apply=%sum
  %norm.2 = f32[]{:T(128)} reduce(%second), dimensions={0,1,2,3}, to_apply=%sum
  %copy-start = (f32[256,128]{1,0:T(8,128)}, f32[256,128]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%w)
  %copy-done = f32[256,128]{1,0:T(8,128)} copy-done(%copy-start)
  %loop = (s32[]{:T(128)}, f32[256,128]{1,0:T(8,128)}) while(%start), condition=%condition, body=%body
  %all-reduce-start.1 = f32[256,128]{1,0:T(8,128)} all-reduce-start(%copy-done), channel_id=1, to_apply=%sum
  %all-reduce-done.1 = f32[256,128]{1,0:T(8,128)} all-reduce-done(%all-reduce-start.1)
  %all-reduce.2 = (f32[]{:T(128)}, f32[]{:T(128)}) all-reduce(%norm.1, %norm.2), channel_id=2, to_apply=%sum
  ROOT %out = (f32[256,128]{1,0:T(8,128)}, f32[]{:T(128)}) tuple(%all-reduce-done.1, %norm.1)
}
""".replace("WIDE", "f32[8,16,16,64]{3,0,2,1:T(8,128)}")
    .replace("HALF", "bf16[8,16,16,64]{3,0,2,1:T(8,128)(2,1)}")
    .replace("ON_CHIP", "bf16[8,16,16,64]{3,0,2,1:T(8,128)(2,1)S(1)}")
)
MAP = 8 * 16 * 16 * 64


@pytest.fixture(scope="module")
def rows():
    return tensors(PROGRAM)


@pytest.mark.parametrize(
    "text, shape, nbytes, stored, space",
    [
        ("f32[3,3,64,64]{3,2,1,0:T(8,128)}", (3, 3, 64, 64), 147456, 294912, 0),
        ("bf16[8,65,64,128]{3,0,2,1:T(8,128)(2,1)S(1)}", (8, 65, 64, 128), 8519680, 8519680, 1),
        ("bf16[65,8]{0,1:T(8,128)(2,1)}", (65, 8), 1040, 2048, 0),
        ("pred[]{:T(512)}", (), 1, 1, 0),
        ("f8e4m3fn[16]{0}", (16,), 16, 16, 0),
        ("s32[5]", (5,), 20, 20, 0),
    ],
)
def test_an_array_takes_whole_tiles(text, shape, nbytes, stored, space):
    (array,) = parse_arrays(text)
    assert (array.shape, array.nbytes, array.stored_nbytes, array.space) == (shape, nbytes, stored, space)
    assert str(array) == text.split("{")[0]


def test_tuples_keep_their_order():
    found = parse_arrays("(s32[]{:T(128)}, /*index=1*/f32[2,3]{1,0:T(8,128)}, token[])")
    assert [array.dtype for array in found] == ["s32", "f32", "token"]


def test_the_largest_comes_first_with_its_padding_and_place(rows):
    first = rows[0]
    assert first["type"] == "f32[8,16,16,64]" and first["place"] == "jit(step)/wide"
    # 64 channels in tiles of 128.
    assert first["bytes"] == 2 * 4 * MAP and first["padding"] == 2.0
    assert (first["count"], first["reads"]) == (1, 1)
    assert [r["bytes"] * r["count"] for r in rows] == sorted(
        (r["bytes"] * r["count"] for r in rows), reverse=True
    )


def test_only_what_lies_in_memory_counts(rows):
    places = [row["place"] for row in rows]
    assert "jit(step)/inside" not in places  # within a fusion
    assert "jit(step)/while/body/add" in places
    both = [row for row in rows if row["place"] == "jit(step)/both"]
    # One of its two results stays on the chip, and only the other's reader reads memory.
    assert [(row["count"], row["reads"], row["bytes"]) for row in both] == [(1, 1, 2 * 2 * MAP)]
    assert not any(row["operation"] in ("parameter", "copy-start", "while", "tuple") for row in rows)


def test_what_crosses_the_interface_of_hbm():
    square, half = 4 * 256 * 128, 2 * MAP * 2  # 64 channels in tiles of 128
    expected = {
        "fusion.1 reads x, writes float32": half + 2 * half,
        "fusion.2 reads that, one result stays on the chip": 2 * half + half,
        "norm.1 reads a map, and writes a number": half + 4,
        "norm.2 reads the chip's": 4,
        "copy": 2 * square,
        "the loop's sum": 3 * square,
        "its condition": 1,
        "all-reduce of the copy": 2 * square,
        "all-reduce of two numbers": 16,
    }
    assert hbm_bytes(PROGRAM) == sum(expected.values())


def test_a_loop_counts_as_often_as_it_runs():
    """A TPU's program tells it in the condition alone, others beside the loop."""
    limit = "  %limit = s32[]{:T(128)} constant(3)\n  ROOT %less"
    told = 'body=%body, backend_config={"known_trip_count":{"n":"3"}}'
    square = 4 * 256 * 128
    for program, read in (
        (PROGRAM.replace("body=%body", told), 0),
        (PROGRAM.replace("  ROOT %less", limit), 3 * 4),  # the limit, in each round
    ):
        assert hbm_bytes(program) - hbm_bytes(PROGRAM) == 2 * (3 * square + 1) + read
        (grown,) = (row for row in tensors(program) if row["place"] == "jit(step)/while/body/add")
        assert grown["count"] == 3


def test_of_a_fusion_that_slices_the_slices_count():
    lines = """\
  %cut = f32[8,16,2,64]{3,0,2,1:T(8,128)} slice(%param_0), slice={[0:8], [0:16], [0:2], [0:64]}
  ROOT %inside = f32[8,16,2,64]{3,0,2,1:T(8,128)} convert(%cut)
"""
    program = re.sub(r"  ROOT %inside.*\n", lines, PROGRAM)
    # Of 16 columns two.
    assert hbm_bytes(PROGRAM) - hbm_bytes(program) == 2 * MAP * 2 - 2 * 2 * MAP * 2 // 8


@pytest.mark.parametrize(
    "handed_on",
    [
        "  ROOT %param_0 = HALF parameter(0)\n",
        "  %param_0 = HALF parameter(0)\n  ROOT %as_it_is = HALF bitcast(%param_0)\n",
    ],
)
def test_of_a_fusion_that_hands_an_operand_on_all_of_it_counts(handed_on):
    """What a fused computation returns is for its caller to take, though nothing in it does."""
    inner = f"%handed (param_0: bf16[8,16,16,64]) -> bf16[8,16,16,64] {{\n{handed_on}}}\n\n"
    lines = """\
  %handed_on = HALF fusion(%param_0), kind=kLoop, calls=%handed
  ROOT %inside = f32[8,16,16,64]{3,0,2,1:T(8,128)} convert(%handed_on)
"""
    program = re.sub(r"  ROOT %inside.*\n", lines, PROGRAM).replace("%fused (", f"{inner}%fused (")
    program = program.replace("HALF", "bf16[8,16,16,64]{3,0,2,1:T(8,128)(2,1)}")
    assert hbm_bytes(program) == hbm_bytes(PROGRAM)


def test_collectives_count_what_is_handed_in():
    assert collectives(PROGRAM) == {"all-reduce": {"count": 2, "bytes": 4 * (256 * 128 + 2)}}


def test_a_loop_counts_by_its_rounds():
    rounds = 'body=%body, backend_config={"known_trip_count":{"n":"3"},"other":1}'
    summed = (
        "%sum.1 = f32[256,128]{1,0:T(8,128)} all-reduce(%part), channel_id=3, to_apply=%sum\n  ROOT %next"
    )
    program = PROGRAM.replace("body=%body", rounds).replace("ROOT %next", summed)
    grown = [row for row in tensors(program) if row["place"] == "jit(step)/while/body/add"]
    assert [row["count"] for row in grown] == [3]
    assert collectives(program) == {"all-reduce": {"count": 2 + 3, "bytes": 4 * (4 * 256 * 128 + 2)}}

"""The files are assembled here byte by byte, after the layout; only the last two were written by PyTorch."""

import base64
import io
import pickle
import struct
import warnings
import zipfile
import zlib

import jax.numpy as jnp
import numpy as np
import pytest

from mscaflax.errors import UserError
from mscaflax.evaluation.torch_file import load_state_dict

MAGIC = 0x1950A86A20F9469CFC6C
FORMATS = ("zip", "legacy")
FLOATS = np.arange(24, dtype=np.float32) / 8
STORAGES = {"0": ("FloatStorage", FLOATS)}


# The pickle's operations, protocol 2, one function per kind of value.


def number(value):
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def text(value):
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def several(*items):
    return b"(" + b"".join(items) + b"t"


def named(module, name):
    return b"c" + f"{module}\n{name}\n".encode()


def call(function, *args):
    return function + several(*args) + b"R"


ORDERED_DICT = named("collections", "OrderedDict")
REBUILD = named("torch._utils", "_rebuild_tensor_v2")
HOOKS = call(ORDERED_DICT)


def ordered(entries):
    return call(ORDERED_DICT) + b"(" + b"".join(text(k) + v for k, v in entries.items()) + b"u"


def storage(key="0", kind="FloatStorage", count=24, view=None):
    fields = [text("storage"), named("torch", kind), text(key), text("cuda:0"), number(count)]
    return several(*fields, *([] if view is None else [view])) + b"Q"


def tensor(source, offset=0, size=(), stride=()):
    size, stride = (several(*map(number, values)) for values in (size, stride))
    return call(REBUILD, source, number(offset), size, stride, b"\x89", HOOKS)


def pickled(body):
    return b"\x80\x02" + body + b"."


def legacy_bytes(body, storages):
    keys = sorted(storages)
    facts = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    parts = [pickle.dumps(MAGIC, 2), pickle.dumps(1001, 2), pickle.dumps(facts, 2), pickled(body)]
    parts.append(pickle.dumps(keys, 2))
    for key in keys:
        array = storages[key][1]
        parts += [struct.pack("<q", array.size), array.tobytes()]
    return b"".join(parts)


def zip_bytes(body, storages, extra=(), compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("model/data.pkl", pickled(body))
        archive.writestr("model/byteorder", "little")
        for key, (_, array) in storages.items():
            archive.writestr(f"model/data/{key}", array.tobytes())
        archive.writestr("model/version", "3\n")
        for name, data in extra:
            archive.writestr(name, data)
    return file.getvalue()


def write(path, form, body, storages=STORAGES):
    path.write_bytes((zip_bytes if form == "zip" else legacy_bytes)(body, storages))
    return path


@pytest.fixture(params=FORMATS)
def load(request, tmp_path):
    """Writes an object in one of the formats, and reads it."""
    return lambda body, storages=STORAGES: load_state_dict(
        write(tmp_path / "weights.pth", request.param, body, storages)
    )


def refused(path, message):
    with pytest.raises(UserError) as caught:
        load_state_dict(path)
    found = str(caught.value)
    assert str(path) in found and message in found and "\n" not in found and len(found) < 500, found


@pytest.fixture(params=FORMATS)
def refuse(request, tmp_path):
    """Writes an object in one of the formats, and expects that it is refused."""
    return lambda body, message, storages=STORAGES: refused(
        write(tmp_path / "weights.pth", request.param, body, storages), message
    )


def test_every_type_of_storage(load):
    values = np.array([0, 1, 2, 100])
    kinds = {
        "FloatStorage": np.float32,
        "DoubleStorage": np.float64,
        "HalfStorage": np.float16,
        "BFloat16Storage": jnp.bfloat16,
        "LongStorage": np.int64,
        "IntStorage": np.int32,
        "ByteStorage": np.uint8,
    }
    storages = {str(i): (kind, values.astype(dtype)) for i, (kind, dtype) in enumerate(kinds.items())}
    entries = {kind: tensor(storage(key, kind, 4), 0, (2, 2), (2, 1)) for key, (kind, _) in storages.items()}
    found = load(ordered(entries), storages)
    assert list(found) == list(kinds)
    for kind, dtype in kinds.items():
        assert found[kind].dtype == dtype and type(found[kind]) is np.ndarray
        np.testing.assert_array_equal(found[kind].astype(np.int64), values.reshape(2, 2))


def test_strides_offsets_and_shared_storages(load):
    block = FLOATS.reshape(2, 3, 4)
    entries = {
        "block": tensor(storage(), 0, (2, 3, 4), (12, 4, 1)),
        "transposed": tensor(storage(), 0, (4, 2, 3), (1, 12, 4)),
        "slice": tensor(storage(), 13, (2, 2), (4, 2)),
        "scalar": tensor(storage(), 23),
        "repeated": tensor(storage(), 5, (3, 2), (1, 0)),
        "empty": tensor(storage(), 24, (0, 3), (3, 1)),
        "other": tensor(storage("1", "LongStorage", 1)),
    }
    found = load(ordered(entries), STORAGES | {"1": ("LongStorage", np.array([-7]))})
    expected = {
        "block": block,
        "transposed": block.transpose(2, 0, 1),
        "slice": block[1, :2, 1::2],
        "scalar": np.array(23 / 8),
        "repeated": FLOATS[5:8, None].repeat(2, 1),
        "empty": np.zeros((0, 3)),
        "other": np.array(-7),
    }
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].shape == value.shape and not found[name].flags.writeable
    assert np.shares_memory(found["block"], found["slice"])


def test_part_of_a_storage_in_an_old_file(tmp_path):
    part = storage(view=several(text("9"), number(6), number(4)))
    path = write(tmp_path / "old.pth", "legacy", ordered({"a": tensor(part, 1, (3,), (1,))}))
    np.testing.assert_array_equal(load_state_dict(path)["a"], FLOATS[7:10])
    write(path, "legacy", ordered({"a": tensor(part, 2, (3,), (1,))}))
    refused(path, "beyond its storage")
    beyond = storage(view=several(text("9"), number(22), number(4)))
    write(path, "legacy", ordered({"a": tensor(beyond)}))
    refused(path, "part of a storage")


def test_dicts_as_different_versions_write_them(load):
    """A plain dict, an OrderedDict called with pairs (Python 2), and one with versions as an attribute."""
    value = tensor(storage(), 3)
    pairs = b"](](" + text("a") + value + b"ee"
    versions = b"}" + text("_metadata") + ordered({"": number(1)}) + b"s"
    for body in (
        b"}" + text("a") + value + b"s",
        call(ORDERED_DICT, pairs),
        ordered({"a": value}) + versions + b"b",
    ):
        found = load(body)
        assert type(found) is dict and list(found) == ["a"] and found["a"] == 3 / 8
    assert load(ordered({}), {}) == {}


def test_nothing_runs(refuse, tmp_path):
    trap = tmp_path / "trap"
    calls = {
        "os.system": call(named("os", "system"), text(f"touch {trap}")),
        "builtins.eval": call(named("builtins", "eval"), text(f"open({str(trap)!r}, 'w')")),
        "pathlib.Path.touch": b"\x80\x04"
        + text("pathlib")
        + text("Path.touch")
        + b"\x93"
        + several(text("x"))
        + b"R",
        "posix.system": b"(" + text(f"touch {trap}") + b"iposix\nsystem\n",
        "torch._utils._rebuild_parameter": named("torch._utils", "_rebuild_parameter"),
        "torch.BoolStorage": named("torch", "BoolStorage"),
        "os.FloatStorage": named("os", "FloatStorage"),
        "collections.OrderedDict.fromkeys": named("collections", "OrderedDict.fromkeys"),
    }
    for name, body in calls.items():
        refuse(ordered({"a": body}), f"asks for {name}, ")
        refuse(body + b"0" + ordered({}), f"asks for {name}, ")
    refuse(named("os", "a" * 5000 + "\x1b[2J"), "asks for os.aaa")
    assert not trap.exists()


def test_what_the_reader_names_cannot_be_changed(refuse, load):
    """BUILD would set attributes of functions and classes, and so outlive the file."""
    state = several(b"N", b"}" + text("__defaults__") + several(number(1)) + b"s")
    for target in (ORDERED_DICT, REBUILD, named("torch", "FloatStorage"), storage(), tensor(storage())):
        refuse(ordered({"a": target + state + b"b"}), "changes what only")
    refuse(ordered({"a": REBUILD + b")\x81"}), "state_dict: ")
    refuse(ordered({"a": b"\x82\x01"}), "registered extension")
    assert load(ordered({"a": tensor(storage())}))["a"] == 0


@pytest.mark.parametrize("form", FORMATS)
def test_damaged_descriptions(tmp_path, form):
    for body, message in [
        (tensor(storage()), "no dict of tensors"),
        (ordered({"epoch": number(3), "a": tensor(storage())}), "'epoch' is not a tensor"),
        (b"}" + number(1) + tensor(storage()) + b"s", "1 is not a tensor"),
        (ordered({"a": tensor(storage(), 0, (5, 5), (5, 1))}), "beyond its storage"),
        (ordered({"a": tensor(storage(), 24)}), "beyond its storage"),
        (ordered({"a": tensor(storage(), -1)}), "unknown way"),
        (ordered({"a": tensor(storage(), 3, (2,), (-1,))}), "unknown way"),
        (ordered({"a": tensor(storage(), 3, (2, 2), (1,))}), "unknown way"),
        (ordered({"a": tensor(storage(), 0, (2**40, 2**40), (0, 0))}), "state_dict: "),
        (ordered({"a": tensor(number(1))}), "unknown way"),
        (ordered({"a": call(REBUILD)}), "argument"),
        (ordered({"a": tensor(storage("0")), "b": tensor(storage("0", "IntStorage"))}), "two types"),
        (ordered({"a": tensor(storage(count=23))}), "size"),
        (ordered({"a": tensor(storage(count=25))}), "cut short" if form == "legacy" else "wrong size"),
        (ordered({"a": tensor(storage(count=2**62))}), "cut short" if form == "legacy" else "wrong size"),
        (ordered({"a": tensor(storage("1"))}), "damaged"),
        (ordered({"a": several(text("module"), ORDERED_DICT, b"N", b"N") + b"Q"}), "not the storage"),
        (b"r\x00\x00\x00\x80" + ordered({}), "damaged"),
        (b"P1\n" + ordered({}), "not the storage"),
        (b"0" + ordered({}), "state_dict: "),
    ]:
        refused(write(tmp_path / "weights.pth", form, body), message)


@pytest.mark.parametrize("form", FORMATS)
def test_every_truncation_is_refused(tmp_path, form):
    path = write(tmp_path / "w.pth", form, ordered({"a": tensor(storage(), 0, (4,), (1,))}))
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        refused(path, "state_dict: ")


@pytest.mark.parametrize("form", FORMATS)
def test_damage_anywhere_is_refused_or_harmless(tmp_path, form):
    path = write(tmp_path / "w.pth", form, ordered({"a": tensor(storage(), 0, (4,), (1,))}))
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= rng.integers(1, 256)
        path.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zipfile warns of odd names
            try:
                found = load_state_dict(path)
            except UserError as error:
                assert "\n" not in str(error)
            else:
                assert all(isinstance(value, np.ndarray) for value in found.values())


def test_other_files(tmp_path):
    path = tmp_path / "file.pth"
    refused(path, "No such file")
    refused(tmp_path, "directory")
    for data in (
        b"",
        b"\x89PNG\r\n",
        b"<html>",
        pickle.dumps(1, 2),
        pickle.dumps(MAGIC, 2) + pickle.dumps(1, 2),
    ):
        path.write_bytes(data)
        refused(path, "PyTorch")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/b.txt", "text")
    refused(path, "PyTorch did not write it")
    path.write_bytes(zip_bytes(ordered({}), {}, [("model/constants.pkl", b"")]))
    refused(path, "TorchScript")
    path.write_bytes(zip_bytes(ordered({}), {}, compression=zipfile.ZIP_DEFLATED))
    refused(path, "packed anew")
    path.write_bytes(zip_bytes(ordered({}), {}).replace(b"little", b"bigger"))
    refused(path, "state_dict: ")  # the checksum of the entry does not fit


# torch.save of PyTorch 2.13.0, compressed by zlib: {"weight": base.view(2, 3).t(), "row": base[3:],
# "half": bfloat16 [1.5, -2]} with versions as an attribute, base = arange(6) / 4 in float32.
REAL = {
    "legacy": (
        "c-n1}&2G~`5XaYRC#8m#@=f_Hg@d_7Bypj+5QI=KD?XZD_JS<e-o{48oAHiYffOm1RKPQE;K*b2b$A3M4vg(WFIj0<+S!@^@4q`c"
        "<KNuu&-b0*8y|kYTkp*H>t8mlQ(&H4V~kA-jXKg<aHtBC>KrUekSlbOrHGjdR34{c4*ZLBDTtpYDlqA1Wx$?-<H;5UO`;2gmf+H+"
        "U791bg(ICxL+4{y5>8nXGa^i;A|#4&-xjedRQxK9&;|B*1ePb;RB@!zae}}j)J2qZf)dlrxIv-z%QTAvRJqYbaM*Lf_B^>%(J3<="
        "D{z_;cPG;!?lnOdT5^?g2EM=T`&)j0(0|t3hIVZ<nv~?N{RZLOu3*9z{1}#nCG2Bxzb2KZ^9UD4uu^9i`UqANf+kL~Q1oKbh^_6C"
        "ls$(_!kWY7M(7H{)e&5)-y{jM1GwHOomzfbd+t8{@A}3WV9S3p==<Gn4{j2G6JWh^%ja;b0^Du@cM$H5;9fa}`*N8|gO3WsIK&V("
        "rtm;ggu&(%9@a1Ruhox)WsKRU*1WI2!-6|mi+pg^sXBEwX3uFEGWLSzjOLFaKRr1avXj4dtEXl"
    ),
    "zip": (
        "c-o~@%Wl&^6rI?Kle(oZN?$<BV-uv3#%Z1)n#xq(Sb{VNDeA^@6F0W%#=Z8W6-bpTp;Uq;AAnf$2Q1k16JQOy3IQvAff>6^ZI`Bn"
        "jx-tBx#!&Dd(WMU%tjGPB+#ifj7E`a*L7oCn{TLCO>J$Mk~oM~18a||*Dcf3>e#Sa4*%3{Xtvf^HtLuMbgv4LWQ`+aJDSndF)(#("
        "5z3U(#)j$eimk1+4YQ$Ot>sv@vYp|9O(tt`f^bNr+SDNGL3qiuRQ$|)$wRCbAu(y-YAiYHTWyHT9EQY-jAT}3_MuOX$m~AwuXU=T"
        "AHzTuuDHRrwF84XNux*gn9k`gaA<|V*bWTKkq(S_pivB0t1wn0^+CF7uERACbtFi16$$ySrg2x30273g!7xd+Fddkpl+zyNbqqJE"
        "aI?J&GqpYvtZZsnrNxEWUAR@FWry3laL28{wq`q|sBl+~IF7THs>t!g*UZw-4U&fL%9*X3Ak8~&U25I3H&v`0u}R`Upo0Qs{rLOa"
        "E2^FDvstH6;e_?5J&I}?&DN&Y!jiZUvc`p0K1&6Zci<O8QZPLQjG%H?z}gF}S=4Nj`0#)79xv0t*wm<o&ZEOAYE`bMhC#F#n2Pzd"
        "BtE!=0FQNVk^GbqS|WRo?Du7=sQUfK>?HYP@*G8TK}CWjCNHe$po|V^uK3F8AvJomXRaY%2fBv3RQ(rtn*GbW=JWIWKZ7zS26R8w"
        "(QJb_@TE#`AH`@$V(K5oq;q*eNEdUNg}hM87t*;*DVr`8(wSnZkj)kH`D~_GBu`Z3lQ*B2lSD_-RT-gTyE^@YIebca_#O?T{R21="
        "Kz@p#vqm{g;vb^v;NUQ*$K-~2{DUwO;Cbug=?-8R?sx5A06xy5(Cmb<eisI@AHrB6jP-kHD1aS{qOfbjV1H|8g5T@||J`&Ind9b;"
        "Ey~{SA`_vrpYhIO%sUB=Ui0X2+<W$J-x%j%5^lT~`v-|nssj"
    ),
}


@pytest.mark.parametrize("form", FORMATS)
def test_files_that_pytorch_wrote(tmp_path, form):
    path = tmp_path / "real.pth"
    path.write_bytes(zlib.decompress(base64.b85decode(REAL[form])))
    found = load_state_dict(str(path))
    base = np.arange(6, dtype=np.float32) / 4
    expected = {"weight": base.reshape(2, 3).T, "row": base[3:], "half": np.array([1.5, -2])}
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name].astype(value.dtype), value)
    assert [str(found[name].dtype) for name in expected] == ["float32", "float32", "bfloat16"]
    path.write_bytes(path.read_bytes()[:-1])
    refused(path, "cut short")

"""Hostile checkpoints: none runs anything, reads another file, or takes the machine's memory."""

import io
import os
import pickle
import struct
import zipfile
import zlib

import numpy as np
import pytest

import weft
from weft.io import torch_file, torch_makers, torch_zip

P = b"\x80\x02"


def text(s: str) -> bytes:
    raw = s.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def g(module: str, name: str) -> bytes:
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def call(function: bytes, *args: bytes) -> bytes:
    return function + b"(" + b"".join(args) + b"tR"


def number(n: int) -> bytes:
    return pickle.dumps(n, 2)[2:-1]


def storage(dtype: str = "FloatStorage", key: bytes = text("0"), size: bytes = b"K\x04") -> bytes:
    return b"(" + text("storage") + g("torch", dtype) + key + text("cpu") + size + b"tQ"


def tensor(offset: int, size: tuple, stride: tuple, of: bytes | None = None) -> bytes:
    parts = (
        of or storage(), number(offset), b"(" + b"".join(map(number, size)) + b"t",
        b"(" + b"".join(map(number, stride)) + b"t", b"\x89",
        call(g("collections", "OrderedDict")),
    )  # fmt: skip
    return call(g("torch._utils", "_rebuild_tensor_v2"), *parts)


def zipped(pickled: bytes, records: dict | None = None) -> bytes:
    """A checkpoint with one storage of four floats, or the records given."""
    f = io.BytesIO()
    with zipfile.ZipFile(f, "w") as z:
        z.writestr("archive/data.pkl", pickled)
        z.writestr("archive/version", "3\n")
        for name, raw in (
            records or {"archive/data/0": np.arange(4, dtype="<f4").tobytes()}
        ).items():
            z.writestr(name, raw)
    return f.getvalue()


# ruff: noqa: E501 (a pickle stays on one line where it can)
HIT = text("touch HIT")
SYSTEM = call(g("posix", "system"), HIT)
NEVER = "TORCH_ATTACK_HIT"
SET = text(f"__import__('os').environ.__setitem__('{NEVER}', '1')")

# name -> the pickle.  Each ends in a value that would be returned, had it been let through.
CALLS = {
    "os.system by REDUCE": P + SYSTEM + b".",
    "os.system by its other name": P + call(g("os", "system"), HIT) + b".",
    "subprocess": P + call(g("subprocess", "Popen"), HIT) + b".",
    "eval": P + call(g("builtins", "eval"), SET) + b".",
    "exec": P + call(g("builtins", "exec"), SET) + b".",
    "compile by python 2's name": P + call(g("__builtin__", "eval"), SET) + b".",
    "getattr chain": P
    + call(call(g("builtins", "getattr"), g("os", "path"), text("system")), HIT)
    + b".",
    "operator.attrgetter": P + call(call(g("operator", "attrgetter"), text("system")), g("os", "path")) + b".",
    "INST": P + b"(" + HIT + b"iposix\nsystem\n.",
    "OBJ": P + b"(" + g("posix", "system") + HIT + b"o.",
    "NEWOBJ": P + g("subprocess", "Popen") + b"(" + HIT + b"t\x81.",
    "NEWOBJ_EX": b"\x80\x04" + g("subprocess", "Popen") + b"(" + HIT + b"t}\x92.",
    "STACK_GLOBAL": b"\x80\x04" + text("posix") + text("system") + b"\x93(" + HIT + b"tR.",
    "STACK_GLOBAL with a dotted name": b"\x80\x04" + text("weft") + text("os.system") + b"\x93(" + HIT + b"tR.",
    "STACK_GLOBAL of no text": b"\x80\x04K\x01K\x02\x93.",
    "a dotted name in torch": P + call(g("torch", "serialization.os.system"), HIT) + b".",
    "a maker's own module": P + call(g("torch._utils", "os.system"), HIT) + b".",
    "EXT1": P + b"\x82\x01.",
    "EXT4": P + b"\x84\x01\x00\x00\x00.",
    "a call of a dtype": P + call(g("torch", "float32"), HIT) + b".",
    "a call of Tensor, huge": P + call(g("torch", "Tensor"), number(1 << 50)) + b".",
    "a call of None's class": P + call(g("numpy", "ndarray"), number(1 << 50)) + b".",
    "a defaultdict of a function": P + call(g("collections", "defaultdict"), g("posix", "system")) + b".",
    "a type made by type()": P + call(g("builtins", "type"), text("A"), b")", b"}") + b".",
    "setattr by BUILD of a class": P + g("torch", "Tensor") + b"}" + text("x") + b"K\x01sb.",
    "state with names of Python's own": P + call(g("collections", "OrderedDict")) + b"}" + text("__class__") + b"K\x01sb.",
    "slot state with names of Python's own": P + call(g("collections", "OrderedDict"))
    + b"N}" + text("__class__") + g("torch", "Tensor") + b"s\x86b.",
    "state for a tensor": P + tensor(0, (2,), (1,)) + b"}" + text("_a") + b"K\x01sb.",
    "attributes of a tensor that Weft keeps": P
    + call(g("torch._tensor", "_rebuild_from_type_v2"), g("torch._utils", "_rebuild_tensor_v2"),
           g("torch", "Tensor"), b"(" + storage() + b"K\x00(K\x02t(K\x01t\x89Nt", b"}" + text("_a") + b"K\x01s")
    + b".",
    "a tensor made by another function": P
    + call(g("torch._tensor", "_rebuild_from_type_v2"), g("collections", "OrderedDict"),
           g("torch", "Tensor"), b")", b"N") + b".",
    "GET before PUT": P + b"h\x07.",
    "POP of nothing": P + b"0.",
    "a mark that never was": P + b"t.",
    "APPEND to a tensor": P + tensor(0, (2,), (1,)) + b"K\x01a.",
    "SETITEM on a storage": P + storage() + b"K\x00K\x01s.",
    "ADDITEMS to a list": b"\x80\x04](K\x01\x90.",
    "a bytearray of 4 EB": b"\x80\x05\x96" + struct.pack("<Q", 1 << 62) + b".",
    "text of 4 EB": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b".",
    "a number of a million digits": P + call(g("builtins", "int"), text("9" * 1_000_000)) + b".",
    "protocol 200": b"\x80\xc8N.",
    "no STOP": P + b"N",
    "a NumPy object array by a lying state": P
    + call(g("numpy.core.multiarray", "_reconstruct"), g("numpy", "ndarray"), b"(K\x00t", text("b"))
    + b"(K\x01(" + number(1 << 40) + b"t" + call(g("numpy", "dtype"), text("f8"), b"\x89", b"\x88")
    + b"\x89" + text("") + b"tb.",
    "a NumPy dtype with a lying state": P + call(g("numpy", "dtype"), text("f8"), b"\x89", b"\x88")
    + b"(K\x03" + text("<") + b"NNN" + number(1 << 20) + b"J\xff\xff\xff\xffK\x00tb.",
    "a NumPy record dtype": P + call(g("numpy", "dtype"), text("V1000000000"), b"\x89", b"\x88") + b".",
}  # fmt: skip

STORAGES = {
    "offset out of range": P + tensor(3, (2,), (1,)) + b".",
    "a negative offset": P + tensor(-1, (2,), (1,)) + b".",
    "stride out of range": P + tensor(0, (2, 2), (3, 1)) + b".",
    "a negative stride": P + tensor(3, (2,), (-1,)) + b".",
    "a negative size": P + tensor(0, (-2,), (1,)) + b".",
    "a size that wraps around": P + tensor(0, (1 << 33, 1 << 33), (1 << 33, 1)) + b".",
    "an offset beyond 64 bits": P + tensor(1 << 70, (1,), (1,)) + b".",
    "sizes and strides of two ranks": P + tensor(0, (2, 2), (1,)) + b".",
    "a tensor over a list": P + tensor(0, (2,), (1,), of=b"](K\x01K\x02e") + b".",
    "a storage larger than its record": P + tensor(0, (9,), (1,), of=storage(size=number(9))) + b".",
    "a storage of 2**60 numbers": P + tensor(0, (9,), (1,), of=storage(size=number(1 << 60))) + b".",
    "a storage of -4 numbers": P + tensor(0, (0,), (1,), of=storage(size=number(-4))) + b".",
    "a storage of no dtype": P + tensor(0, (1,), (1,), of=b"(" + text("storage") + text("x") + text("0") + text("cpu") + b"K\x04tQ") + b".",
    "one storage in two dtypes, the second too wide": P + storage() + storage("DoubleStorage") + b"\x86.",
    "a path for a key": P + tensor(0, (1,), (1,), of=storage(key=text("../../../../etc/passwd"))) + b".",
    "an absolute path for a key": P + tensor(0, (1,), (1,), of=storage(key=text("/etc/passwd"))) + b".",
    "a list for a key": P + tensor(0, (1,), (1,), of=storage(key=b"]")) + b".",
    "a persistent id of one part": P + b"(" + text("storage") + b"tQ.",
    "a persistent id that is text": P + text("0") + b"Q.",
    "a persistent id of another kind": P + b"(" + text("module") + g("posix", "system") + b"K\x01tQ.",
}  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_happens(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(NEVER, raising=False)
    yield
    assert NEVER not in os.environ and not os.listdir(tmp_path)


BAD = (pickle.UnpicklingError, RuntimeError, ValueError, EOFError)


@pytest.mark.parametrize("name", CALLS)
def test_a_hostile_pickle_is_refused(name):
    with pytest.raises(BAD):
        torch_file.load(io.BytesIO(zipped(CALLS[name])))


@pytest.mark.filterwarnings("ignore:load. objects of")
@pytest.mark.parametrize("name", CALLS)
def test_with_weights_only_false_a_hostile_pickle_does_nothing_either(name):
    try:
        got = torch_file.load(io.BytesIO(zipped(CALLS[name])), weights_only=False)
    except BAD:
        return
    assert isinstance(got, torch_makers.Record), got


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("name", STORAGES)
def test_storages_and_tensors_outside_them_are_refused(name, strict):
    with pytest.raises(BAD):
        torch_file.load(io.BytesIO(zipped(STORAGES[name])), weights_only=strict)


@pytest.mark.parametrize("name", [*CALLS, *STORAGES])
def test_in_the_format_of_before_2020_too(name):
    f = io.BytesIO()
    pickled = (CALLS | STORAGES)[name].replace(b"K\x04tQ", b"K\x04NtQ")
    torch_zip.write(f, pickled, {"0": np.arange(4, dtype=np.float32)})
    with pytest.raises(BAD):
        torch_file.load(io.BytesIO(f.getvalue()))


def test_overlapping_tensors_are_views_of_one_storage():
    got = torch_file.load(io.BytesIO(zipped(P + tensor(0, (3, 2), (1, 1)) + b".")))
    assert got.tolist() == [[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]]
    got = torch_file.load(io.BytesIO(zipped(P + tensor(1, (5,), (0,)) + b".")))
    assert got.tolist() == [1.0] * 5


def test_a_key_whose_hash_would_take_for_ever():
    """Tuples of tuples of ... each twice: 2**60 parts to hash, 60 to build."""
    deep = b"K\x01" + b"".join(b"q%c0h%ch%c\x86" % (i, i, i) for i in range(60))
    for whole in (b"}" + deep + b"K\x01s.", b"}(" + deep + b"K\x01u."):
        with pytest.raises(pickle.UnpicklingError, match="key"):
            torch_file.load(io.BytesIO(zipped(P + whole)))
    with pytest.raises(pickle.UnpicklingError, match="key"):
        torch_file.load(
            io.BytesIO(zipped(P + call(g("builtins", "set"), b"](" + deep + b"e") + b"."))
        )
    with pytest.raises(pickle.UnpicklingError, match="key"):
        torch_file.load(io.BytesIO(zipped(b"\x80\x04\x8f(" + deep + b"\x90.")))


def test_a_zip_bomb_is_refused_before_it_is_unpacked():
    f = io.BytesIO()
    with zipfile.ZipFile(f, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr(
            "archive/data.pkl",
            P + tensor(0, (1 << 24,), (1,), of=storage(size=number(1 << 24))) + b".",
        )
        z.writestr("archive/data/0", bytes(1 << 26))
    assert len(f.getvalue()) < 1 << 17
    with pytest.raises(RuntimeError, match="would grow from"):
        torch_file.load(io.BytesIO(f.getvalue()))


def test_records_that_lie_over_one_another_are_refused():
    """One compressed kernel, named by many entries of the directory (Fifield's bomb)."""
    kernel = zlib.compress(bytes(1 << 16), 9)[2:-4]
    name, body, directory, n = b"archive/data.pkl", b"", b"", 200
    fields = (20, 0, 8, 0, 0, zlib.crc32(bytes(1 << 16)), len(kernel), 1 << 16)
    body = b"PK\3\4" + struct.pack("<HHHHHIIIHH", *fields, len(name), 0) + name + kernel
    for i in range(n):
        own = name if not i else b"archive/data/%d" % i
        directory += (
            b"PK\1\2"
            + struct.pack("<HHHHHHIIIHHHHHII", 20, *fields, len(own), 0, 0, 0, 0, 0, 0)
            + own
        )
    end = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, n, n, len(directory), len(body), 0)
    with pytest.raises(RuntimeError, match="over one another"):
        torch_file.load(io.BytesIO(body + directory + end))


def test_names_that_point_out_of_the_zip_are_only_names(tmp_path):
    raw = np.arange(4, dtype="<f4").tobytes()
    records = {"../../hit": b"x", "/hit": b"x", "archive/data/0": raw}
    got = torch_file.load(io.BytesIO(zipped(P + tensor(0, (4,), (1,)) + b".", records)))
    assert got.tolist() == [0.0, 1.0, 2.0, 3.0]


def test_byteorder_must_be_one_of_two():
    records = {"archive/data/0": bytes(16), "archive/byteorder": b"middle"}
    with pytest.raises(RuntimeError, match="byteorder is b'middle'"):
        torch_file.load(io.BytesIO(zipped(P + b"N.", records)))


@pytest.mark.parametrize("zipped_", [True, False])
def test_every_cut_file_is_refused(zipped_):
    f = io.BytesIO()
    value = {"w": weft.arange(6.0).view(2, 3), "n": [1, 2, "text"]}
    torch_file.save(value, f, _use_new_zipfile_serialization=zipped_)
    whole = f.getvalue()
    for n in range(0, len(whole), 7):
        with pytest.raises(BAD):
            torch_file.load(io.BytesIO(whole[:n]))


@pytest.mark.parametrize("zipped_", [True, False])
def test_a_changed_byte_gives_a_value_or_an_error(zipped_):
    """1,500 files with changed bytes: no crash, no exception of Python's inside."""
    f = io.BytesIO()
    value = {
        "w": weft.arange(6.0).view(2, 3),
        "n": [1, 2.5, "text", (3,)],
        "p": {"k": weft.ones(2)},
    }
    torch_file.save(value, f, _use_new_zipfile_serialization=zipped_)
    whole, draw = f.getvalue(), np.random.default_rng(0)
    for _ in range(1500):
        raw = bytearray(whole)
        for at in draw.integers(0, len(raw), draw.integers(1, 4)):
            raw[at] = draw.integers(0, 256)
        try:
            torch_file.load(io.BytesIO(bytes(raw)))
        except (*BAD, UserWarning):
            pass

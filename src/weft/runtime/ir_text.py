"""Short forms of LLVM IR, for the builtins: one line for what IR needs several for.

%x = get ptr %object 56          the word (of this type) that lies 56 bytes behind %object
%x = item ptr %array %i          element %i of 8-byte words
put i64 %x %object 16            a store there; `put ptr %x %array [%i]` into element %i
%x = field %object NAME          a new reference to what a slot holds; to None where it is empty
goto label                       if %condition then else
if %x is null then else          the same word (`not`: another); of integers `if %i slt %n a b`
%x = word NAME                   a word that `weft_..._init` was given (see `words`)
%x = slot %object NAME           what lies as many bytes behind %object as the word says
fill ptr %x %object NAME         a store there; what was there is not let go
give ptr %x %object NAME         the same with a new reference
renew ptr %x %object NAME        the same, and what was there is let go
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

TUPLE_ITEMS = tuple.__basicsize__  # bytes from a tuple's address: since 3.14 its hash lies before

# what the builtins call of CPython's API: result, arguments
SIGNATURES = {
    "Py_IncRef": "void ptr", "Py_DecRef": "void ptr", "PyErr_Clear": "void",
    "PyDict_GetItemWithError": "ptr ptr ptr", "PyDict_SetItem": "i32 ptr ptr ptr",
    "PyErr_Occurred": "ptr",
    "PyErr_SetString": "void ptr ptr", "PyEval_RestoreThread": "void ptr",
    "PyEval_SaveThread": "ptr", "PyFloat_AsDouble": "double ptr",
    "PyFloat_FromDouble": "ptr double", "PyLong_AsDouble": "double ptr",
    "PyIter_Next": "ptr ptr", "PyList_Append": "i32 ptr ptr", "PyList_New": "ptr i64",
    "PyList_GetItem": "ptr ptr i64", "PyList_SetItem": "i32 ptr i64 ptr",
    "PyList_Size": "i64 ptr", "PyLong_AsVoidPtr": "ptr ptr",
    "PyLong_AsLongLongAndOverflow": "i64 ptr ptr", "PyLong_FromLongLong": "ptr i64",
    "PyLong_FromVoidPtr": "ptr ptr",
    "PyObject_CallNoArgs": "ptr ptr", "PyObject_CallMethodObjArgs": "ptr ptr ptr ...",
    "PyObject_CallFunctionObjArgs": "ptr ptr ...",
    "PyObject_GetAttr": "ptr ptr ptr", "PyObject_GetItem": "ptr ptr ptr",
    "PyObject_RichCompareBool": "i32 ptr ptr i32",
    "PySequence_Concat": "ptr ptr ptr", "PySequence_Tuple": "ptr ptr",
    "PyTuple_GetItem": "ptr ptr i64", "PyTuple_New": "ptr i64",
    "PyTuple_SetItem": "i32 ptr i64 ptr", "PyTuple_Size": "i64 ptr",
    "PyThreadState_Get": "ptr", "PyThreadState_GetID": "i64 ptr",
    "PyType_IsSubtype": "i32 ptr ptr", "PyWeakref_NewRef": "ptr ptr ptr",
}  # fmt: skip


Places = Mapping[str, int]  # of words in their table


@cache
def _sections() -> dict[str, str]:
    loader: Any = __spec__.loader  # which knows zip files, too
    text = loader.get_data(os.path.join(os.path.dirname(__file__), "builtins.ll")).decode()
    parts = [part.partition("\n") for part in text.split("== ")[1:]]
    return {name: "\n" + body for name, _, body in parts}


def section(name: str, **numbers: int) -> str:
    """The part of builtins.ll that begins with `== name`, numbers in place of `<NAMES>`."""
    text = _sections()[name]
    for word, number in numbers.items():
        text = text.replace(f"<{word}>", str(number))
    return text


def declare(names: Sequence[str]) -> str:
    """The declarations of these functions of CPython's API."""
    lines = []
    for name in names:
        result, *given = SIGNATURES[name].split()
        lines.append(f"declare {result} @{name}({', '.join(given)})")
    return "\n".join(lines) + "\n"


def words(prefix: str, names: Sequence[str]) -> str:
    """A table of words that `prefix_init(ptr words)` fills, which `word NAME` reads."""
    n = len(names)
    return f"""
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
@words = internal global [{n} x i64] zeroinitializer
define void @{prefix}_init(ptr %given) nounwind {{
  call void @llvm.memcpy.p0.p0.i64(ptr @words, ptr %given, i64 {8 * n}, i1 false)
  ret void
}}
"""


def expand(text: str, names: Sequence[str] = ()) -> str:
    """The IR that short forms stand for; `names` are those of the words."""
    out = []
    places = {name: i for i, name in enumerate(names)}
    forms: dict[str, list] = {}  # by the first word, or the first behind `=`
    for pattern, long in _forms():
        forms.setdefault(_word_of(pattern.pattern), []).append((pattern, long))
    for number, line in enumerate(text.splitlines()):
        line = line.strip()
        for pattern, long in forms.get(_word_of(line), ()):
            found = pattern.fullmatch(line)
            if found:
                out.extend(long(number, places, *found.groups()))
                break
        else:
            out.append(line)
    return "\n".join(out) + "\n"


def _word_of(line: str) -> str:
    first, _, rest = line.partition(" ")
    return rest[2:].partition(" ")[0] if rest[:2] == "= " else first


def heads_first(text: str) -> str:
    """The text with what lies between its functions before them (comments are dropped there), as
    `parts.split` wants it.
    """
    heads: list[str] = []
    functions: list[str] = []
    inside = False
    for line in text.splitlines():
        inside = inside or line.startswith("define ")
        if inside:
            functions.append(line)
            inside = line != "}"
        elif line and not line.startswith(";"):
            heads.append(line)
    return "\n".join([*heads, *functions, ""])


def _load(_: int, __: Places, to: str, kind: str, base: str, offset: str) -> list[str]:
    return [
        f"  {to}.at = getelementptr i8, ptr {base}, i64 {offset}",
        f"  {to} = load {kind}, ptr {to}.at",
    ]


def _item(_: int, __: Places, to: str, kind: str, base: str, place: str) -> list[str]:
    return [
        f"  {to}.at = getelementptr i64, ptr {base}, i64 {place}",
        f"  {to} = load {kind}, ptr {to}.at",
    ]


def _put(n: int, _: Places, kind: str, x: str, base: str, place: str) -> list[str]:
    step, place = ("i64", place[1:-1]) if place[0] == "[" else ("i8", place)
    return [
        f"  %put{n} = getelementptr {step}, ptr {base}, i64 {place}",
        f"  store {kind} {x}, ptr %put{n}",
    ]


def _word(_: int, names: Places, to: str, name: str) -> list[str]:
    return [
        f"  {to}.at = getelementptr i64, ptr @words, i64 {names[name]}",
        f"  {to} = load ptr, ptr {to}.at",
    ]


def _slot(_: int, names: Places, to: str, base: str, name: str) -> list[str]:
    return [*_place(to, names, base, name), f"  {to} = load ptr, ptr {to}.at"]


def _fill(n: int, names: Places, x: str, base: str, name: str) -> list[str]:
    return [*_place(f"%fill{n}", names, base, name), f"  store ptr {x}, ptr %fill{n}.at"]


def _give(n: int, names: Places, x: str, base: str, name: str) -> list[str]:
    return [f"  call void @Py_IncRef(ptr {x})", *_fill(n, names, x, base, name)]


def _field(n: int, names: Places, to: str, base: str, name: str) -> list[str]:
    return [
        *_place(to, names, base, name),
        f"  {to}.raw = load ptr, ptr {to}.at",
        f"  {to}.empty = icmp eq ptr {to}.raw, null",
        *_word(n, names, f"{to}.none", "none"),
        f"  {to} = select i1 {to}.empty, ptr {to}.none, ptr {to}.raw",
        f"  call void @Py_IncRef(ptr {to})",
    ]


def _renew(n: int, names: Places, x: str, base: str, name: str) -> list[str]:
    return [
        *_place(f"%old{n}", names, base, name),
        f"  %old{n} = load ptr, ptr %old{n}.at",
        f"  call void @Py_IncRef(ptr {x})",
        f"  store ptr {x}, ptr %old{n}.at",
        f"  call void @Py_DecRef(ptr %old{n})",
    ]


def _if(n: int, _: Places, a: str, how: str, b: str, yes: str, no: str) -> list[str]:
    known = {"is": "eq ptr", "not": "ne ptr"}.get(how, f"{how} i64")
    return [f"  %if{n} = icmp {known} {a}, {b}", f"  br i1 %if{n}, label %{yes}, label %{no}"]


def _place(to: str, names: Places, base: str, name: str) -> list[str]:
    return [
        f"  {to}.word = getelementptr i64, ptr @words, i64 {names[name]}",
        f"  {to}.bytes = load i64, ptr {to}.word",
        f"  {to}.at = getelementptr i8, ptr {base}, i64 {to}.bytes",
    ]


@cache
def _forms() -> list[tuple[re.Pattern[str], Callable[..., list[str]]]]:
    return [
        (re.compile(r"(%\S+) = get (\S+) (%\S+) (\S+)"), _load),
        (re.compile(r"(%\S+) = item (\S+) (%\S+) (\S+)"), _item),
        (re.compile(r"put (\S+) (\S+) (%\S+) (\S+)"), _put),
        (re.compile(r"(%\S+) = word (\S+)"), _word),
        (re.compile(r"(%\S+) = slot (%\S+) (\S+)"), _slot),
        (re.compile(r"fill ptr (\S+) (%\S+) (\S+)"), _fill),
        (re.compile(r"(%\S+) = field (%\S+) (\S+)"), _field),
        (re.compile(r"renew ptr (\S+) (%\S+) (\S+)"), _renew),
        (re.compile(r"give ptr (\S+) (%\S+) (\S+)"), _give),
        (re.compile(r"if (%\S+) (\w+) (\S+) (\S+) (\S+)"), _if),
        (re.compile(r"goto (\S+)"), lambda n, _, to: [f"  br label %{to}"]),
        (
            re.compile(r"if (%\S+) (\S+) (\S+)"),
            lambda n, _, c, yes, no: [f"  br i1 {c}, label %{yes}, label %{no}"],
        ),
    ]

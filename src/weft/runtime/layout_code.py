"""LLVM IR of Python builtins that run an op on arrays, or tensors, of layouts met before.

    call(array, ...) -> ndarray, or None: the long way

The dictionary of launches by shape, strides and dtype costs a microsecond a call in Python: tuples
are made, hashed and compared, NumPy allocates, the launcher is called.  Here the layouts are
compared with the array's struct in place (`PyArrayObject_fields`, NumPy's stable ABI), the result
is made by `PyArray_NewFromDescr` and the launch runs at once.  A kernel that reports bad data gives
None as well: the long way then finds it again and raises.  A view op has no plan: its result is
made over the operand's memory, which it keeps alive by its `base`, as NumPy's views do.

    quick(tensor, ...) -> Tensor, or None: the long way
    into(tensor, ...) -> True: the first one's memory has the result; or None

These do what `dispatch.apply` does for tensors of the plain classes (and a Python number, which
takes the first one's dtype: float32, float64, of ints int64) while nobody records: the arrays'
call, then the view's link to its base or the tape node, filled in place.  Before anything ran they
give None wherever Python has a say: other classes, ghosts, a watch on nodes, a recorder (a compiled
function's may know the call: match_code.py, then its `known`).  `tests/runtime/test_quick.py`
compares them with the Python.

A builtin's `self` is an int, the address of a table, i64 words: 0 the
first entry, 1 the op (0: none, tensors are left alone), 2 whether it has a gradient, 3 whether its
result is kept, from 4 on the operands kept (bits), by which of three want a gradient (bits), 12
whether it works element by element, 13 most operands where one wants a gradient (more than three
are kept whichever want one).
Entry, i64 words: 0 next, 1 operands, 2 plan (0: a view), 3 the result's descr, 4 its rank, 5 its
dims, 6 what the operands must be: for each its descr, its rank, its dims, its strides; of a view
7 its strides, 8 its first byte's place in the operand; 9 a callable that makes the result, or 0;
10 a tuple of the operands' Metas; 11 its tape node: 0 none, 1 made here, 2 Python makes it; 12
bytes of the largest element.
The entry found comes to the front.
"""

import re
from functools import cache

from weft.runtime import (
    builtin_code,
    ir_text,
    match_code,
    wish_code,
)

FUNCTIONS = tuple(ir_text.SIGNATURES)
MOST_WORDS = 128  # of a launch's block
_BLOCK_WORDS = MOST_WORDS + 8  # and a number behind them
ATTRIBUTES = (  # their names' objects
    "add_view", "recorder", "grad", "watch", "known", "__dict__", "devices", "autocast",
    "_parameters", "_modules", "_buffers",
)  # fmt: skip
HANDLE_SLOTS = ("_a", "_rg", "_fn", "_st", "_base", "_ghost", "_held")  # of a tensor
STORAGE_SLOTS = ("version", "views", "room")
NODE_SLOTS = ("op", "edges", "saved", "versions", "result", "seq", "hooks", "post", "line")
WORDS = (
    "ndarray", "none", "new", "set_base", "tensor", "parameter", "state", "object_new", "empty",
    "storage", "node", "sequence", "zero", "true", "false", "float", "int", "list", "handle",
    "room_of", "float32", "float64", "int64", "slice", "dots", "dots_too", "dict", "promised",
    "bool", "str", "dtype_class", "device_class",
    *ATTRIBUTES, *HANDLE_SLOTS, *STORAGE_SLOTS,
    *NODE_SLOTS, *match_code.WORDS, *wish_code.FACTS, "dtypes", *wish_code.META_WORDS,
)  # fmt: skip


@cache
def text() -> str:
    own = ir_text.section("layout") + builtin_code.launch() + ir_text.section("tensor")
    module = ir_text.section("module", TUPLE_ITEMS=ir_text.TUPLE_ITEMS)
    every = ir_text.expand(own + match_code.text() + wish_code.text() + module, WORDS)
    every = every.replace("BLOCK_WORDS", str(_BLOCK_WORDS)).replace("MOST_WORDS", str(MOST_WORDS))
    heads = ir_text.declare(FUNCTIONS) + ir_text.words("weft_layout", WORDS)
    return ir_text.heads_first(heads + every)


@cache
def exports() -> tuple[str, ...]:
    return tuple(re.findall(r"^define \w+ @(weft_\w+)", text(), re.M))

"""LLVM IR that matches a call inside a compiled function with the one its path expects next.

    match(session, op, (operand, ...)) -> Tensor, or None: the long way
    promise(session, [tensor, ...]) -> True, or None: record.promise_handles by Python

What `Session.apply` and `dispatch.record` (compile/record.py, ops/dispatch.py) do where the trie's
node has a `next` whose call this is: the op by identity, operands as results, outside tensors or
numbers in the places that it names.  Gives the ghost, with its link to a base and its tape node.
Until all is compared nothing has an effect but that outside tensors met for the first time
become known, and these are forgotten where one is not as expected.

The node's `native` is an int, the address of i64 words: 0 the op, 1 operands, 2 the op's table
(layout_code.py) or 0, 3 whether the result is a view, 4 to 8 its place, shape, strides, dtype and
offset, 9 unused, 10 and 11 as in an entry of layout_code.py; from 12 on three an operand: what it
is (0 a result, 1 an outside tensor known before, 2 one met first, 3 a number); its place, its key
or its class; of one met first that is the first in its memory, the address of i64 words (0 of
another): its place, descr, rank, then the call that noted it (`Session.serial`) and the addresses
of the storage, the root and the numbers that it met here, dims, strides.

A call that may count on the one that noted (compile/former.py) has None for its tables: a memory
that is the one of then, at each place, is new, as all that one call noted lie apart.  `others`
are the tensors that lie elsewhere, few, compared one by one.
"""

from weft.runtime import ir_text

SLOTS: dict[str, tuple[str, ...]] = {  # of which class
    "session": (
        "_handles", "_memories", "_pendings", "_places", "cursor", "ghosts", "matching", "numbers",
        "others", "outside", "pending", "serial",
    ),
    "trie": ("children", "native", "next", "op"),
    "ghost": ("array", "dtype", "k", "offset", "outer", "session", "shape", "strides"),
}  # fmt: skip
ATTRIBUTES = ("_ref", "_forget")
CLASSES = ("session_class", "trie_class", "ghost_class", "pending_class")
WORDS = (
    *CLASSES, *ATTRIBUTES, *(f"{kind}.{name}" for kind, names in SLOTS.items() for name in names)
)  # fmt: skip


def text() -> str:
    return ir_text.section("match")

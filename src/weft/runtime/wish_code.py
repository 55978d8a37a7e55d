"""LLVM IR of Python builtins by which functions skip their own checks, and of what programs ask a
tensor most.

    known(tensor, function, wish, ...) -> Tensor, or None: the long way
    parts(tensor, function, wish, ...) -> several, a tuple, or None
    item(tensor, index) -> Tensor, or None
    made(function, wish, ...) -> a new Tensor, or None
    made_like(tensor, function, wish, ...) -> a new one, or None
    joined(ops, tensors, dim[, True]) -> Tensor, taped, or None
    overwrite(tensor[, tensor]) -> True: its memory has the other's values, or zeros; or None

`known` looks up which op a function (a number) made of a shape and a wish before and runs the op's
native form (layout_code.py).  A wish is spelt in words: numbers, None, `...`, dtypes, devices and
strings (by their address), tuples and slices of these; nothing else is known.  `item` off the tape
is NumPy's own view of the value.  `made` and `made_like` run what makes a tensor of a wish, and of
the shape and dtype of a contiguous tensor, without an op: not where somebody records.

`joined` is what `cat` and `stack` give of small tensors; `ops` has the op by dim, and a fourth
argument makes the dim a new one.  Known are lists and tuples of plain tensors of one dtype,
contiguous, that fit and are not empty.  `overwrite` takes contiguous tensors of one shape and
dtype, off the tape, where nobody records.

FACTS are attributes and methods of a tensor class; they call Python's way where a tensor is a
promise, or of another kind.

A key, i64 words: 0 how many words it has, 1 the op's table, from 2 on the shape, the function and
the wish as spelt; of `made` there is None for a shape, of `made_like` the address of NumPy's dtype
lies behind it.  `tell(block, table, shape, function, wish, ...)` spells one and lists it.
"""

from weft.runtime import ir_text

MOST_WORDS = 32
MOST_KEYS = 4096  # of 8192 places
SHAPE = 1 << 20  # the function whose view of a shape is its Size

FACTS = (  # whose functions of Python are words
    "dim", "numel", "__len__", "shape", "dtype", "item", "detach",
)  # fmt: skip
META_SLOTS = ("shape", "np_dtype")
META_WORDS = ("meta", *(f"meta.{name}" for name in META_SLOTS))
MOST_BYTES = 16_384  # of a join; larger ones lie in memory's own blocks


def text() -> str:
    return ir_text.section(
        "wish", MOST_WORDS=MOST_WORDS, ROOM=MOST_WORDS + 2, MOST_DIMS=MOST_WORDS - 2,
        MOST_BYTES=MOST_BYTES, FACT_ROOM=MOST_WORDS + 1, SHAPE=2 * SHAPE + 1,
        TUPLE_ITEMS=ir_text.TUPLE_ITEMS,
    )  # fmt: skip

"""LLVM IR of Python builtins on contiguous tensors: joins of small ones, as `cat` and `stack` give,
taped; and writes over one.

    joined(ops, tensors, dim[, True]) -> Tensor, or None: the long way
    overwrite(tensor[, tensor]) -> True: its memory has the other's values, or zeros; or None

`ops` has the op by dim: it becomes the tape node's.  A fourth argument: the dim is a new one.
Known are lists and tuples of plain tensors of one dtype, contiguous, that fit and are not empty;
nothing has an effect before all is compared.  `overwrite` takes tensors of one shape and dtype, off
the tape, where nobody records.
"""

from weft.runtime import ir_text

SLOTS = ("shape", "np_dtype")  # of a Meta
WORDS = ("meta", *(f"meta.{name}" for name in SLOTS))
MOST_BYTES = 16_384  # of a result; larger ones lie in memory's own blocks

TEXT = ir_text.section("join", MOST_BYTES=MOST_BYTES, TUPLE_ITEMS=ir_text.TUPLE_ITEMS)

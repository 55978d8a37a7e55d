"""LLVM IR of the attributes and methods of a tensor that programs ask most.

They call Python's way where a tensor is a promise, or of another kind.  Each gets the tensor, whose
class CPython has looked at.
"""

from weft.runtime import ir_text
from weft.runtime.wish_code import MOST_WORDS, SHAPE

FACTS = (  # of a tensor class, whose functions of Python are words
    "dim", "numel", "__len__", "shape", "dtype", "item", "detach",
)  # fmt: skip
TEXT = ir_text.section("fact", ROOM=MOST_WORDS + 1, SHAPE=2 * SHAPE + 1)

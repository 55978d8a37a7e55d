"""LLVM IR of two Python builtins: `launch(launch, out, ins) -> status` and `address(array) -> int`.

A call through them costs about 0.1 us, through ctypes 2 us. They read an ndarray's data pointer
from its struct (`PyArrayObject.data`, the first field after the object header: NumPy's stable ABI),
after checking the object's type.
"""

from functools import cache

from weft.runtime import ir_text

EXPORTS = ("weft_builtin_launch", "weft_builtin_address", "weft_builtin_init")

FUNCTIONS = tuple(ir_text.SIGNATURES)

_MESSAGES = {
    "usage": "launch(launch, out, ins): expected 3 arguments",
    "expected": "launch: expected a numpy.ndarray",
    "no_memory": "launch: out of memory",
}


@cache
def text() -> str:
    """Made when the first kernel is: 10 ms that an import need not wait for."""
    strings = "\n".join(
        f'@{n} = internal constant [{len(m) + 1} x i8] c"{m}\\00"' for n, m in _MESSAGES.items()
    )
    own = ir_text.section("builtin").replace("MESSAGES", strings)
    return ir_text.declare(FUNCTIONS) + ir_text.expand(launch() + own)


def launch() -> str:
    """The part that the other builtins have as well."""
    return ir_text.section("launch")

"""LLVM IR of the Python builtin that runs an op on tensors of layouts met before, with the tape.

    quick(tensor, ...) -> Tensor, or None: the long way
    into(tensor, ...) -> True: the first one's memory has the result; or None

What `dispatch.apply` does for tensors of the plain classes (and a Python number, which takes the
first one's dtype: float32, float64, of ints int64) while nobody records: the arrays' call
(layout_code.py, which this is part of), then the view's link to its base or the tape node, filled
in place.  Before anything ran it gives None wherever Python has a say: other classes, ghosts, a
watch on nodes, a recorder (a compiled function's may know the call: match_code.py, then its
`known`).  `tests/runtime/test_quick.py` compares it with the Python.
"""

from weft.runtime import ir_text

ATTRIBUTES = (  # their names' objects
    "add_view", "recorder", "grad", "watch", "known", "__dict__", "devices",
)  # fmt: skip
HANDLE_SLOTS = ("_a", "_rg", "_fn", "_st", "_base", "_ghost", "_held")  # of a tensor
STORAGE_SLOTS = ("version", "views", "room")
SLOTS = ("op", "edges", "saved", "versions", "result", "seq", "hooks", "post", "line")

TEXT = ir_text.section("tensor")

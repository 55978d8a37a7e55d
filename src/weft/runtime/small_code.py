"""LLVM IR of stages (native.py) that make small tensors at once: constants, the places of sorted
numbers, and draws from the process-wide generator as `random.Generator` makes them, number for
number.

A stage of a draw runs with Python's global lock and takes the generator's own; where somebody else
has it, or a thread draws from another stream, it gives status 1 and has drawn nothing.

ints: of a draw 0 the generator, 1 the engine's state (twister.py), 2 how many numbers, then what is
named at each; of `copy` 0 the constant's address, 1 its bytes; `rows` lays an operand's rows over
it: 2 their places in bytes, 3 how many, 4 bytes each; of `order` 0 rows, 1 their length, 2 how many
of each are wanted, 3 whether the largest (NaN is) come first.  A draw makes at most MOST_BYTES.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any

import numpy as np

from weft.runtime import ir_text, machine, native, random_code, random_dist, twister

MOST_SORTED = 32  # numbers of a row
MOST_BYTES = 16_384  # larger results lie in memory's own blocks
_WORDS = ("acquire", "release", "true", "false", "lock")
_PYTHON = ("PyObject_CallMethodObjArgs", "PyErr_Clear", "Py_DecRef")

_HEAD = f"""
declare void @weft_mt_words(ptr, ptr, i64)
declare void @weft_mt_uniform24(ptr, ptr, i64)
declare void @weft_mt_uniform53(ptr, ptr, i64)
declare void @weft_mt_below(ptr, ptr, i64, i64)
declare void @weft_mt_shuffle(ptr, ptr, i64)
declare void @weft_normal_pairs(ptr, i64)
declare void @weft_map_log1p(ptr, i64)
declare void @weft_box_muller(ptr, i64, float, float)

define internal i1 @ask(ptr %ints, ptr %name, ptr %given) nounwind {{
entry:
  %generator = load ptr, ptr %ints
  %lock = slot %generator lock
  %got = call ptr (ptr, ptr, ...) @PyObject_CallMethodObjArgs(ptr %lock, ptr %name, ptr %given,
    ptr null)
  %true = word true
  if %got is null error said
error:
  call void @PyErr_Clear()
  ret i1 false
said:
  call void @Py_DecRef(ptr %got)
  %yes = icmp eq ptr %got, %true
  ret i1 %yes
}}

define internal void @end(ptr %ints) nounwind {{
  %name = word release
  %done = call i1 @ask(ptr %ints, ptr %name, ptr null)
  ret void
}}

; the state, which is this stage's until `end`; null where it cannot be
define internal ptr @begin(ptr %ints) nounwind {{
entry:
  %name = word acquire
  %false = word false
  %ours = call i1 @ask(ptr %ints, ptr %name, ptr %false)
  if %ours look no
look:
  %state = item ptr %ints 1
  %aside = get i32 %state {4 * twister.ASIDE}
  %free = icmp eq i32 %aside, 0
  if %free yes back
back:
  call void @end(ptr %ints)
  goto no
yes:
  ret ptr %state
no:
  ret ptr null
}}

define void @weft_made_copy(ptr %args, i32 %thread, i32 %threads) nounwind {{
  %out = item ptr %args 2
  %from = item ptr %args 4
  %bytes = item i64 %args 5
  call void @llvm.memcpy.p0.p0.i64(ptr %out, ptr %from, i64 %bytes, i1 false)
  ret void
}}
"""

_ROWS = """
define void @weft_made_rows(ptr %args, i32 %thread, i32 %threads) nounwind {
entry:
  %out = item ptr %args 2
  %in = item ptr %args 3
  %from = item ptr %args 5
  %bytes = item i64 %args 6
  %places = item ptr %args 7
  %n = item i64 %args 8
  %each = item i64 %args 9
  call void @llvm.memcpy.p0.p0.i64(ptr %out, ptr %from, i64 %bytes, i1 false)
  goto row
row:
  %i = phi i64 [ 0, %entry ], [ %i1, %one ]
  %row_at = phi ptr [ %in, %entry ], [ %behind, %one ]
  if %i slt %n one done
one:
  %place = item i64 %places %i
  %to = getelementptr i8, ptr %out, i64 %place
  call void @llvm.memcpy.p0.p0.i64(ptr %to, ptr %row_at, i64 %each, i1 false)
  %behind = getelementptr i8, ptr %row_at, i64 %each
  %i1 = add i64 %i, 1
  goto row
done:
  ret void
}
"""

_ORDER = f"""
define void @weft_made_order(ptr %args, i32 %thread, i32 %threads) nounwind {{
entry:
  %order = alloca [{MOST_SORTED} x i64], align 64
  %out = item ptr %args 2
  %in = item ptr %args 3
  %n = item i64 %args 5
  %width = item i64 %args 6
  %k = item i64 %args 7
  %descending64 = item i64 %args 8
  %descending = trunc i64 %descending64 to i1
  %bytes = shl i64 %k, 3
  goto row
row:
  %r = phi i64 [ 0, %entry ], [ %r1, %sorted ]
  %start = mul i64 %r, %width
  %x = getelementptr float, ptr %in, i64 %start
  if %r slt %n next done
next:
  %i = phi i64 [ 0, %row ], [ %i1, %placed ]
  if %i slt %width one sorted
one:
  %v_at = getelementptr float, ptr %x, i64 %i
  %v = load float, ptr %v_at
  %v_number = fcmp ord float %v, %v
  goto look
look:
  %j = phi i64 [ %i, %one ], [ %j1, %move ]
  %j1 = sub i64 %j, 1
  if %j sgt 0 compare placed
compare:
  %before = item i64 %order %j1
  %u_at = getelementptr float, ptr %x, i64 %before
  %u = load float, ptr %u_at
  %less = fcmp ult float %v, %u
  %more = fcmp ugt float %v, %u
  %u_number = fcmp ord float %u, %u
  %up = and i1 %less, %v_number
  %down = and i1 %more, %u_number
  %first = select i1 %descending, i1 %down, i1 %up
  if %first move placed
move:
  put i64 %before %order [%j]
  goto look
placed:
  put i64 %i %order [%j]
  %i1 = add i64 %i, 1
  goto next
sorted:
  %r_start = mul i64 %r, %k
  %to = getelementptr i64, ptr %out, i64 %r_start
  call void @llvm.memcpy.p0.p0.i64(ptr %to, ptr %order, i64 %bytes, i1 false)
  %r1 = add i64 %r, 1
  goto row
done:
  ret void
}}
"""

_STAGE = f"""
define void @weft_draw_NAME(ptr %args, i32 %thread, i32 %threads) nounwind {{
entry:
  %buffer = alloca [{MOST_BYTES + 256} x i8], align 64
  %out = item ptr %args 2
  %in = item ptr %args 3
  %ints = getelementptr i64, ptr %args, i64 FIRST
  %n = item i64 %ints 2
  %width = item i64 %ints 3
CHECK
  %state = call ptr @begin(ptr %ints)
  if %state is null busy draw
busy:
  store i64 1, ptr %args
  ret void
draw:
BODY
  call void @end(ptr %ints)
  ret void
}}
"""


def _loop(name: str, before: str, lines: str) -> str:
    """`lines` for each i below n, between the blocks `before` and `NAME_done`."""
    return f"""
  goto {name}
{name}:
  %{name}_i = phi i64 [ 0, %{before} ], [ %{name}_next, %{name}_one ]
  if %{name}_i slt %n {name}_one {name}_done
{name}_one:
  %{name}_next = add i64 %{name}_i, 1
{lines.replace("$i", f"%{name}_i")}
  goto {name}
{name}_done:
"""


_FLOATS = "%float_at = getelementptr float, ptr %out, i64 $i\n  store float %float, ptr %float_at"
_UNIFORM = "  call void @weft_mt_uniform24(ptr %state, ptr %out, i64 %n)\n"
_MEAN_STD = "  %mean = item double %ints 3\n  %std = item double %ints 4\n"

_BODIES = {
    "uniform": _UNIFORM,
    # 3 mean, 4 std: blocks of 16, the last 16 anew
    "normal": _MEAN_STD + _UNIFORM + """
  %mean32 = fptrunc double %mean to float
  %std32 = fptrunc double %std to float
  %blocks = lshr i64 %n, 4
  call void @weft_box_muller(ptr %out, i64 %blocks, float %mean32, float %std32)
  %over = and i64 %n, 15
  if %over ne 0 tail drawn
tail:
  call void @weft_mt_uniform24(ptr %state, ptr %buffer, i64 16)
  call void @weft_box_muller(ptr %buffer, i64 1, float %mean32, float %std32)
  %start = sub i64 %n, 16
  %last = getelementptr float, ptr %out, i64 %start
  call void @llvm.memcpy.p0.p0.i64(ptr %last, ptr %buffer, i64 64, i1 false)
  goto drawn
drawn:
""",
    # 3 mean (0, or the std is 1), 4 std: pairs, of which one may wait
    "normal_serial": _MEAN_STD + f"""
  %waits32 = get i32 %state {4 * twister.WAITS}
  %waits = zext i32 %waits32 to i64
  %missing = sub i64 %n, %waits
  %odd = and i64 %missing, 1
  %count = add i64 %missing, %odd
  %first = getelementptr double, ptr %buffer, i64 1
  call void @weft_mt_uniform53(ptr %state, ptr %first, i64 %count)
  call void @weft_normal_pairs(ptr %first, i64 %count)
  %waiting = get double %state {4 * twister.WAITING}
  store double %waiting, ptr %buffer
  %skip = sub i64 1, %waits
""" + _loop("each", "draw", """
  %place = add i64 $i, %skip
  %z = item double %buffer %place
  %scaled = fmul double %z, %std
  %moved = fadd double %scaled, %mean
  %float = fptrunc double %moved to float
  """ + _FLOATS) + f"""
  %spare = item double %buffer %count
  put double %spare %state {4 * twister.WAITING}
  %odd32 = trunc i64 %odd to i32
  put i32 %odd32 %state {4 * twister.WAITS}
""",
    # 3 low, 4 how many numbers there are
    "whole": """
  %low = item i64 %ints 3
  %span = item i64 %ints 4
  call void @weft_mt_words(ptr %state, ptr %buffer, i64 %n)
""" + _loop("each", "draw", """
  %word_at = getelementptr i32, ptr %buffer, i64 $i
  %word32 = load i32, ptr %word_at
  %word = zext i32 %word32 to i64
  %rest = urem i64 %word, %span
  %number = add i64 %rest, %low
  put i64 %number %out [$i]
"""),
    "permutation": _loop("each", "draw", "  put i64 $i %out [$i]") + """
  %swaps = sub i64 %n, 1
  call void @weft_mt_words(ptr %state, ptr %buffer, i64 %swaps)
  call void @weft_mt_shuffle(ptr %out, ptr %buffer, i64 %n)
""",
    # 3 below which of 2^53, 4 the value of a hit
    "bernoulli": """
  %limit = item i64 %ints 3
  %hit = item double %ints 4
  %hit32 = fptrunc double %hit to float
  call void @weft_mt_below(ptr %state, ptr %buffer, i64 %n, i64 %limit)
""" + _loop("each", "draw", """
  %byte_at = getelementptr i8, ptr %buffer, i64 $i
  %byte = load i8, ptr %byte_at
  %is = icmp ne i8 %byte, 0
  %float = select i1 %is, float %hit32, float 0.0
  """ + _FLOATS),
    # 3 one: of the operand's probabilities
    "bernoulli_of": _UNIFORM + _loop("each", "draw", """
  %at = getelementptr float, ptr %out, i64 $i
  %u = load float, ptr %at
  %p_at = getelementptr float, ptr %in, i64 $i
  %p = load float, ptr %p_at
  %is = fcmp olt float %u, %p
  %float = select i1 %is, float 1.0, float 0.0
  """ + _FLOATS),
    # 3 the length of the operand's n rows: the place of the largest weight / exponential number
    "multinomial": """
  %total = mul i64 %n, %width
  call void @weft_mt_uniform53(ptr %state, ptr %buffer, i64 %total)
""" + _loop("each", "draw", """
  %u = item double %buffer $i
  %minus = fneg double %u
  put double %minus %buffer [$i]
""").replace("%n ", "%total ") + """
  call void @weft_map_log1p(ptr %buffer, i64 %total)
  goto row
row:
  %r = phi i64 [ 0, %each_done ], [ %r1, %picked ]
  %start = mul i64 %r, %width
  if %r slt %n score drawn
score:
  %j = phi i64 [ 0, %row ], [ %j1, %scored ]
  %best = phi float [ 0xFFF0000000000000, %row ], [ %best1, %scored ]
  %which = phi i64 [ 0, %row ], [ %which1, %scored ]
  if %j slt %width scored picked
scored:
  %at = add i64 %start, %j
  %log = item double %buffer %at
  %rate = fneg double %log
  %rate32 = fptrunc double %rate to float
  %w_at = getelementptr float, ptr %in, i64 %at
  %w = load float, ptr %w_at
  %s = fdiv float %w, %rate32
  %number = fcmp ord float %best, %best  ; the first NaN stays
  %above = fcmp ugt float %s, %best
  %wins = and i1 %number, %above
  %best1 = select i1 %wins, float %s, float %best
  %which1 = select i1 %wins, i64 %j, i64 %which
  %j1 = add i64 %j, 1
  goto score
picked:
  put i64 %which %out [%r]
  %r1 = add i64 %r, 1
  goto row
drawn:
""",
}  # fmt: skip
_CHECK = """
  goto check
check:
  %c = phi i64 [ 0, %entry ], [ %c1, %checked ]
  %c_start = mul i64 %c, %width
  if %c slt %n check_next fine
check_next:
  %d = phi i64 [ 0, %check ], [ %d1, %fits ]
  %top = phi float [ 0.0, %check ], [ %top1, %fits ]
  if %d slt %width check_one checked
check_one:
  %c_at = add i64 %c_start, %d
  %q_at = getelementptr float, ptr %in, i64 %c_at
  %q = load float, ptr %q_at
  %least = fcmp oge float %q, 0.0
  %most = fcmp MOST
  %inside = and i1 %least, %most
  if %inside fits busy
fits:
  %higher = fcmp ogt float %q, %top
  %top1 = select i1 %higher, float %q, float %top
  %d1 = add i64 %d, 1
  goto check_next
checked:
  %c1 = add i64 %c, 1
  %some = fcmp SOME float %top, 0.0
  if %some check busy
fine:
"""
# what rows of the operand must be, before anything is drawn
_CHECKS = {
    "bernoulli_of": _CHECK.replace("MOST", "ole float %q, 1.0").replace("SOME", "oge"),
    "multinomial": _CHECK.replace("MOST", "olt float %q, 0x7FF0000000000000")
    .replace("SOME", "ogt"),
}  # fmt: skip


def _stage(name: str) -> str:
    check = _CHECKS.get(name, "")
    text = _STAGE.replace("NAME", name).replace("FIRST", "5" if check else "4")
    return text.replace("CHECK", check).replace("BODY", _BODIES[name])


@cache
def _stages() -> dict[str, native.Stage]:
    """The stages by name: `copy`, and of draws those that this machine can run."""
    bodies = [n for n in _BODIES if n != "normal" or random_code.function() is not None]
    text = (
        ir_text.declare(_PYTHON)
        + ir_text.words("weft_draw", _WORDS)
        + ir_text.expand(_HEAD + _ROWS + _ORDER + "".join(map(_stage, bodies)), _WORDS)
    )
    functions: dict[str, Any] = dict(zip(twister.EXPORTS, twister.functions(), strict=True))
    functions["weft_normal_pairs"] = random_dist.maps()["weft_normal_pairs"]
    functions["weft_map_log1p"] = random_dist.maps()["log1p"]
    functions["weft_box_muller"] = random_code.function() or functions["weft_normal_pairs"]
    imports = native.python_functions(_PYTHON)
    imports |= {name: native.function_address(f) for name, f in functions.items()}
    names = [
        "weft_made_copy",
        "weft_made_rows",
        "weft_made_order",
        *(f"weft_draw_{name}" for name in bodies),
    ]
    found = machine.load(text, [*names, "weft_draw_init"], imports)
    given = native.words([*map(id, _OBJECTS), native.slot_offset(_lock_of[0], "_lock")])
    ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(found["weft_draw_init"])(native.address_of(given))
    return {name.split("_", 2)[2]: native.Stage(found[name]) for name in names}


_OBJECTS = (sys.intern("acquire"), sys.intern("release"), True, False)
_lock_of: list[type] = []  # random.Generator


def install(generator: type) -> None:
    """random.py names the class whose `_lock` is taken."""
    _lock_of[:] = [generator]


def constant(a: np.ndarray) -> native.Launch:
    """What makes a copy of a small contiguous array, which the caller keeps."""
    return _launch("copy", native.address(a), a.nbytes)


def rows(a: np.ndarray, places: np.ndarray, row_bytes: int) -> native.Launch:
    """`constant`, with an operand's rows at these int64 places, in bytes; both arrays are kept."""
    at = native.address(places)
    return _launch("rows", native.address(a), a.nbytes, at, places.size, row_bytes)


def order(rows: int, width: int, k: int, *, descending: bool) -> native.Launch:
    """What gives the places of the first k of each contiguous float32 row, sorted stably."""
    return _launch("order", rows, width, k, int(descending))


def draw(
    generator: Any, state: int, kind: str, n: int, dtype: np.dtype, params: tuple
) -> native.Launch | None:
    """What draws n numbers of a kind from a generator, whose engine's state lies there, for params
    that its methods took; None where only they can.

    In float32 `uniform`, `normal`, `bernoulli` (p, the value of a hit), `bernoulli_of` (whose p is
    an operand); in int64 `whole`, `permutation`, `multinomial` (length of n rows, an operand's).
    """
    whole = kind in ("whole", "permutation", "multinomial")
    many = n * params[0] if kind == "multinomial" else n
    if not 0 < many * dtype.itemsize < MOST_BYTES:
        return None
    if dtype != (np.int64 if whole else np.float32):
        return None
    given: tuple[int, ...] = ()
    if kind == "uniform" and params != (0, 1):
        return None
    if kind == "normal":
        mean, std = params
        given = native.double_bits(mean + 0.0), native.double_bits(std)
        if n < 16:
            if mean and std != 1:
                return None
            kind = "normal_serial"
    elif kind == "whole":
        low, high = params
        if high - low >= 2**28:
            return None
        given = low, high - low
    elif kind == "permutation" and n < 2:
        return None
    elif kind == "bernoulli":
        p, hit = params
        given = twister.below_limit(p), native.double_bits(hit)
    elif kind == "bernoulli_of":
        given = (1,)
    elif kind == "multinomial":
        given = params
    if kind not in _stages():
        return None
    return _launch(kind, id(generator), state, n, *given)


def _launch(name: str, *ints: int) -> native.Launch:
    return native.Launch((_stages()[name],), ints, quick=True)

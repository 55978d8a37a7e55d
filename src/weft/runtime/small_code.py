"""LLVM IR of Python builtins for two small float32 arrays: `add(a, b) -> ndarray or None`.

A NumPy ufunc spends 0.3 us on ten elements before it adds the first, and 0.1 us more go to
silencing its warnings.  These look only for the common case: two C-contiguous float32 ndarrays of
one shape (or the second of no dims) with at most 256 elements.  Anything else gives None, and the
caller asks NumPy.  They read `PyArrayObject_fields` (NumPy's stable ABI: data, nd, dimensions,
strides, base, descr, flags behind the object header); `PyArray_NewFromDescr` makes the result.
"""

from weft.runtime import ir_text

OPERATIONS = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
EXPORTS = ("weft_small_init", *(f"weft_small_{name}" for name in OPERATIONS))
FUNCTIONS = ("Py_IncRef",)
LARGEST = 256

_HEAD = """
@ndarray = internal global ptr null
@float32 = internal global ptr null
@none = internal global ptr null
@new = internal global ptr null

define void @weft_small_init(ptr %a, ptr %b, ptr %c, ptr %d) nounwind {
  store ptr %a, ptr @ndarray
  store ptr %b, ptr @float32
  store ptr %c, ptr @none
  store ptr %d, ptr @new
  ret void
}

; 1 when the object is an ndarray of float32, C-contiguous and aligned
define internal i1 @fits(ptr %x, ptr %type, ptr %descr) alwaysinline nounwind {
  %t = get ptr %x 8
  %t_is = icmp eq ptr %t, %type
  if %t_is array no
array:
  %d = get ptr %x 56
  %d_is = icmp eq ptr %d, %descr
  %f = get i32 %x 64
  %f_and = and i32 %f, 257
  %f_is = icmp eq i32 %f_and, 257
  %both = and i1 %d_is, %f_is
  ret i1 %both
no:
  ret i1 false
}
"""

_ONE = """
define ptr @weft_small_NAME(ptr %self, ptr %args, i64 %n) nounwind {
entry:
  %two = icmp eq i64 %n, 2
  if %two first none
first:
  %type = load ptr, ptr @ndarray
  %descr = load ptr, ptr @float32
  %a = load ptr, ptr %args
  %b = item ptr %args 1
  %a_fits = call i1 @fits(ptr %a, ptr %type, ptr %descr)
  if %a_fits second none
second:
  %b_fits = call i1 @fits(ptr %b, ptr %type, ptr %descr)
  if %b_fits ranks none
ranks:
  %na = get i32 %a 24
  %nb = get i32 %b 24
  %da = get ptr %a 32
  %db = get ptr %b 32
  %rank = sext i32 %na to i64
  %scalar = icmp eq i32 %nb, 0
  %same = icmp eq i32 %na, %nb
  %either = or i1 %same, %scalar
  if %either dims none
dims:
  %k = phi i64 [ 0, %ranks ], [ %k1, %agreed ]
  %total = phi i64 [ 1, %ranks ], [ %product, %agreed ]
  %more = icmp slt i64 %k, %rank
  if %more dim sized
dim:
  %x = item i64 %da %k
  if %scalar agreed compare
compare:
  %y = item i64 %db %k
  %equal = icmp eq i64 %x, %y
  if %equal agreed none
agreed:
  %product = mul i64 %total, %x
  %k1 = add i64 %k, 1
  goto dims
sized:
  %small = icmp ule i64 %total, LARGEST
  if %small make none
make:
  call void @Py_IncRef(ptr %descr)
  %new = load ptr, ptr @new
  %out = call ptr %new(ptr %type, ptr %descr, i32 %na, ptr %da, ptr null, ptr null, i32 0, ptr null)
  %failed = icmp eq ptr %out, null
  if %failed error ready
error:
  ret ptr null
ready:
  %pa = get ptr %a 16
  %pb = get ptr %b 16
  %po = get ptr %out 16
  %step = select i1 %scalar, i64 0, i64 1
  goto next
next:
  %i = phi i64 [ 0, %ready ], [ %i1, %one ]
  %j = phi i64 [ 0, %ready ], [ %j1, %one ]
  %in = icmp slt i64 %i, %total
  if %in one done
one:
  %u_at = getelementptr float, ptr %pa, i64 %i
  %u = load float, ptr %u_at
  %v_at = getelementptr float, ptr %pb, i64 %j
  %v = load float, ptr %v_at
  %w = OPCODE float %u, %v
  %w_at = getelementptr float, ptr %po, i64 %i
  store float %w, ptr %w_at
  %i1 = add i64 %i, 1
  %j1 = add i64 %j, %step
  goto next
done:
  ret ptr %out
none:
  %nothing = load ptr, ptr @none
  call void @Py_IncRef(ptr %nothing)
  ret ptr %nothing
}
"""


def _written(name: str, opcode: str) -> str:
    one = _ONE.replace("NAME", name).replace("OPCODE", opcode)
    return one.replace("LARGEST", str(LARGEST))


TEXT = ir_text.declare(FUNCTIONS) + ir_text.expand(
    _HEAD + "".join(_written(name, opcode) for name, opcode in OPERATIONS.items())
)

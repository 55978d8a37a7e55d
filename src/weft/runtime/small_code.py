"""LLVM IR of Python builtins for two small float32 arrays: `add(a, b) -> ndarray or None`.

A NumPy ufunc spends 0.3 us on ten elements before it adds the first, and 0.1 us more go to
silencing its warnings.  These look only for the common case: two C-contiguous float32 ndarrays of
one shape (or the second of no dims) with at most 256 elements.  Anything else gives None, and the
caller asks NumPy.  They read `PyArrayObject_fields` (NumPy's stable ABI: data, nd, dimensions,
strides, base, descr, flags behind the object header); `PyArray_NewFromDescr` makes the result.
"""

OPERATIONS = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
EXPORTS = ("weft_small_init", *(f"weft_small_{name}" for name in OPERATIONS))
FUNCTIONS = ("Py_IncRef",)
LARGEST = 256

_HEAD = """
declare void @Py_IncRef(ptr)
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
  %t_at = getelementptr i8, ptr %x, i64 8
  %t = load ptr, ptr %t_at
  %t_is = icmp eq ptr %t, %type
  br i1 %t_is, label %array, label %no
array:
  %d_at = getelementptr i8, ptr %x, i64 56
  %d = load ptr, ptr %d_at
  %d_is = icmp eq ptr %d, %descr
  %f_at = getelementptr i8, ptr %x, i64 64
  %f = load i32, ptr %f_at
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
  br i1 %two, label %first, label %none
first:
  %type = load ptr, ptr @ndarray
  %descr = load ptr, ptr @float32
  %a = load ptr, ptr %args
  %b_at = getelementptr ptr, ptr %args, i64 1
  %b = load ptr, ptr %b_at
  %a_fits = call i1 @fits(ptr %a, ptr %type, ptr %descr)
  br i1 %a_fits, label %second, label %none
second:
  %b_fits = call i1 @fits(ptr %b, ptr %type, ptr %descr)
  br i1 %b_fits, label %ranks, label %none
ranks:
  %na_at = getelementptr i8, ptr %a, i64 24
  %na = load i32, ptr %na_at
  %nb_at = getelementptr i8, ptr %b, i64 24
  %nb = load i32, ptr %nb_at
  %da_at = getelementptr i8, ptr %a, i64 32
  %da = load ptr, ptr %da_at
  %db_at = getelementptr i8, ptr %b, i64 32
  %db = load ptr, ptr %db_at
  %rank = sext i32 %na to i64
  %scalar = icmp eq i32 %nb, 0
  %same = icmp eq i32 %na, %nb
  %either = or i1 %same, %scalar
  br i1 %either, label %dims, label %none
dims:
  %k = phi i64 [ 0, %ranks ], [ %k1, %agreed ]
  %total = phi i64 [ 1, %ranks ], [ %product, %agreed ]
  %more = icmp slt i64 %k, %rank
  br i1 %more, label %dim, label %sized
dim:
  %x_at = getelementptr i64, ptr %da, i64 %k
  %x = load i64, ptr %x_at
  br i1 %scalar, label %agreed, label %compare
compare:
  %y_at = getelementptr i64, ptr %db, i64 %k
  %y = load i64, ptr %y_at
  %equal = icmp eq i64 %x, %y
  br i1 %equal, label %agreed, label %none
agreed:
  %product = mul i64 %total, %x
  %k1 = add i64 %k, 1
  br label %dims
sized:
  %small = icmp ule i64 %total, LARGEST
  br i1 %small, label %make, label %none
make:
  call void @Py_IncRef(ptr %descr)
  %new = load ptr, ptr @new
  %out = call ptr %new(ptr %type, ptr %descr, i32 %na, ptr %da, ptr null, ptr null, i32 0, ptr null)
  %failed = icmp eq ptr %out, null
  br i1 %failed, label %error, label %ready
error:
  ret ptr null
ready:
  %pa_at = getelementptr i8, ptr %a, i64 16
  %pa = load ptr, ptr %pa_at
  %pb_at = getelementptr i8, ptr %b, i64 16
  %pb = load ptr, ptr %pb_at
  %po_at = getelementptr i8, ptr %out, i64 16
  %po = load ptr, ptr %po_at
  %step = select i1 %scalar, i64 0, i64 1
  br label %next
next:
  %i = phi i64 [ 0, %ready ], [ %i1, %one ]
  %j = phi i64 [ 0, %ready ], [ %j1, %one ]
  %in = icmp slt i64 %i, %total
  br i1 %in, label %one, label %done
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
  br label %next
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


TEXT = _HEAD + "".join(_written(name, opcode) for name, opcode in OPERATIONS.items())

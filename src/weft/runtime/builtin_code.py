"""LLVM IR of two Python builtins: `launch(launch, out, ins) -> status` and `address(array) -> int`.

A call through them costs about 0.1 us, through ctypes 2 us. They read an ndarray's data pointer
from its struct (`PyArrayObject.data`, the first field after the object header: NumPy's stable ABI),
after checking the object's type.
"""

from weft.runtime import ir_text

EXPORTS = ("weft_builtin_launch", "weft_builtin_address", "weft_builtin_init")

FUNCTIONS = (
    "PyObject_GetAttr", "PyLong_AsVoidPtr", "PyLong_FromLongLong", "PyLong_FromVoidPtr",
    "Py_DecRef", "PyErr_SetString", "PySequence_Tuple", "PyTuple_Size",
    "PyTuple_GetItem", "PyType_IsSubtype", "PyEval_SaveThread", "PyEval_RestoreThread",
)  # fmt: skip

_MESSAGES = {
    "usage": "launch(launch, out, ins): expected 3 arguments",
    "expected": "launch: expected a numpy.ndarray",
    "no_memory": "launch: out of memory",
}

LAUNCH = """
declare void @weft_run_block(ptr, ptr, i64)

; runs a plan on the pointers that the block holds, without the GIL unless it is quick
define internal void @launch(ptr %plan, ptr %block, i64 %n) nounwind {
entry:
  %n_ints = item i64 %plan 1
  %values = item ptr %plan 4
  %ints_word = add i64 %n, 4
  %ints = getelementptr i64, ptr %block, i64 %ints_word
  %bytes = shl i64 %n_ints, 3
  call void @llvm.memcpy.p0.p0.i64(ptr %ints, ptr %values, i64 %bytes, i1 false)
  %quick = item i64 %plan 5
  if %quick ne 0 held released
held:
  call void @weft_run_block(ptr %plan, ptr %block, i64 %n)
  goto ran
released:
  %state = call ptr @PyEval_SaveThread()
  call void @weft_run_block(ptr %plan, ptr %block, i64 %n)
  call void @PyEval_RestoreThread(ptr %state)
  goto ran
ran:
  ret void
}
"""

_TEXT = """
declare ptr @malloc(i64)
declare void @free(ptr)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
@ndarray = internal global ptr null
@plan_name = internal global ptr null
@type_error = internal global ptr null
@memory_error = internal global ptr null
@detail = internal global ptr null
MESSAGES

define void @weft_builtin_init(ptr %a, ptr %b, ptr %c, ptr %d, ptr %e) nounwind {
  store ptr %a, ptr @ndarray
  store ptr %b, ptr @plan_name
  store ptr %c, ptr @type_error
  store ptr %d, ptr @memory_error
  store ptr %e, ptr @detail
  ret void
}

; the data pointer of an ndarray in `at`; 0 and a TypeError when it is none
define internal i32 @data(ptr %object, ptr %at) nounwind {
entry:
  %type = get ptr %object 8
  %nd = load ptr, ptr @ndarray
  if %type is %nd good check
check:
  %sub = call i32 @PyType_IsSubtype(ptr %type, ptr %nd)
  %is = icmp ne i32 %sub, 0
  if %is good bad
bad:
  %error = load ptr, ptr @type_error
  call void @PyErr_SetString(ptr %error, ptr @expected)
  ret i32 0
good:
  %data = get ptr %object 16
  store ptr %data, ptr %at
  ret i32 1
}

define ptr @weft_builtin_address(ptr %self, ptr %object) nounwind {
entry:
  %slot = alloca ptr
  %ok = call i32 @data(ptr %object, ptr %slot)
  %is = icmp ne i32 %ok, 0
  if %is good bad
bad:
  ret ptr null
good:
  %p = load ptr, ptr %slot
  %r = call ptr @PyLong_FromVoidPtr(ptr %p)
  ret ptr %r
}

define ptr @weft_builtin_launch(ptr %self, ptr %args, i64 %n) nounwind {
entry:
  %few = alloca [256 x i64], align 64
  if %n eq 3 begin wrong
wrong:
  %error = load ptr, ptr @type_error
  call void @PyErr_SetString(ptr %error, ptr @usage)
  ret ptr null
begin:
  %launch = load ptr, ptr %args
  %out = item ptr %args 1
  %given = item ptr %args 2
  %name = load ptr, ptr @plan_name
  %handle = call ptr @PyObject_GetAttr(ptr %launch, ptr %name)
  if %handle is null fail0 opened
fail0:
  ret ptr null
opened:
  %plan = call ptr @PyLong_AsVoidPtr(ptr %handle)
  call void @Py_DecRef(ptr %handle)
  if %plan is null fail0 planned
planned:
  %ins = call ptr @PySequence_Tuple(ptr %given)
  if %ins is null fail0 sized
sized:
  %n_in = call i64 @PyTuple_Size(ptr %ins)
  %n_ints = item i64 %plan 1
  %sum = add i64 %n_in, %n_ints
  %words = add i64 %sum, 4
  if %words ule 256 fill large
large:
  %bytes = shl i64 %words, 3
  %made = call ptr @malloc(i64 %bytes)
  if %made is null memory fill
memory:
  %merror = load ptr, ptr @memory_error
  call void @PyErr_SetString(ptr %merror, ptr @no_memory)
  call void @Py_DecRef(ptr %ins)
  ret ptr null
fill:
  %block = phi ptr [ %few, %sized ], [ %made, %large ]
  %drop = phi ptr [ null, %sized ], [ %made, %large ]
  %b2 = getelementptr i64, ptr %block, i64 2
  %out_ok = call i32 @data(ptr %out, ptr %b2)
  %out_is = icmp ne i32 %out_ok, 0
  if %out_is next fail
fail:
  call void @free(ptr %drop)
  call void @Py_DecRef(ptr %ins)
  ret ptr null
next:
  %i = phi i64 [ 0, %fill ], [ %i1, %stored ]
  if %i slt %n_in item ints
item:
  %object = call ptr @PyTuple_GetItem(ptr %ins, i64 %i)
  %w = add i64 %i, 3
  %w_at = getelementptr i64, ptr %block, i64 %w
  %ok = call i32 @data(ptr %object, ptr %w_at)
  %is = icmp ne i32 %ok, 0
  if %is stored fail
stored:
  %i1 = add i64 %i, 1
  goto next
ints:
  call void @launch(ptr %plan, ptr %block, i64 %n_in)
  %status = load i64, ptr %block
  if %status eq 0 end note
note:
  %d = item i64 %block 1
  %place = load ptr, ptr @detail
  store i64 %d, ptr %place
  goto end
end:
  call void @free(ptr %drop)
  call void @Py_DecRef(ptr %ins)
  %result = call ptr @PyLong_FromLongLong(i64 %status)
  ret ptr %result
}
"""

_STRINGS = "\n".join(
    f'@{n} = internal constant [{len(m) + 1} x i8] c"{m}\\00"' for n, m in _MESSAGES.items()
)
TEXT = ir_text.declare(FUNCTIONS) + ir_text.expand(LAUNCH + _TEXT.replace("MESSAGES", _STRINGS))

"""LLVM IR of two Python builtins: `launch(launch, out, ins) -> status` and `address(array) -> int`.

A call through them costs about 0.1 us, through ctypes 2 us. They read an ndarray's data pointer
from its struct (`PyArrayObject.data`, the first field after the object header: NumPy's stable ABI),
after checking the object's type.
"""

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

_TEXT = """
declare ptr @PyObject_GetAttr(ptr, ptr)
declare ptr @PyLong_AsVoidPtr(ptr)
declare ptr @PyLong_FromLongLong(i64)
declare ptr @PyLong_FromVoidPtr(ptr)
declare void @Py_DecRef(ptr)
declare void @PyErr_SetString(ptr, ptr)
declare ptr @PySequence_Tuple(ptr)
declare i64 @PyTuple_Size(ptr)
declare ptr @PyTuple_GetItem(ptr, i64)
declare i32 @PyType_IsSubtype(ptr, ptr)
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)
declare void @weft_run_block(ptr, ptr, i64)
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
  %type_at = getelementptr i8, ptr %object, i64 8
  %type = load ptr, ptr %type_at
  %nd = load ptr, ptr @ndarray
  %same = icmp eq ptr %type, %nd
  br i1 %same, label %good, label %check
check:
  %sub = call i32 @PyType_IsSubtype(ptr %type, ptr %nd)
  %is = icmp ne i32 %sub, 0
  br i1 %is, label %good, label %bad
bad:
  %error = load ptr, ptr @type_error
  call void @PyErr_SetString(ptr %error, ptr @expected)
  ret i32 0
good:
  %data_at = getelementptr i8, ptr %object, i64 16
  %data = load ptr, ptr %data_at
  store ptr %data, ptr %at
  ret i32 1
}

define ptr @weft_builtin_address(ptr %self, ptr %object) nounwind {
entry:
  %slot = alloca ptr
  %ok = call i32 @data(ptr %object, ptr %slot)
  %is = icmp ne i32 %ok, 0
  br i1 %is, label %good, label %bad
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
  %three = icmp eq i64 %n, 3
  br i1 %three, label %begin, label %wrong
wrong:
  %error = load ptr, ptr @type_error
  call void @PyErr_SetString(ptr %error, ptr @usage)
  ret ptr null
begin:
  %launch = load ptr, ptr %args
  %out_at = getelementptr ptr, ptr %args, i64 1
  %out = load ptr, ptr %out_at
  %ins_at = getelementptr ptr, ptr %args, i64 2
  %given = load ptr, ptr %ins_at
  %name = load ptr, ptr @plan_name
  %handle = call ptr @PyObject_GetAttr(ptr %launch, ptr %name)
  %no_handle = icmp eq ptr %handle, null
  br i1 %no_handle, label %fail0, label %opened
fail0:
  ret ptr null
opened:
  %plan = call ptr @PyLong_AsVoidPtr(ptr %handle)
  call void @Py_DecRef(ptr %handle)
  %no_plan = icmp eq ptr %plan, null
  br i1 %no_plan, label %fail0, label %planned
planned:
  %ins = call ptr @PySequence_Tuple(ptr %given)
  %no_ins = icmp eq ptr %ins, null
  br i1 %no_ins, label %fail0, label %sized
sized:
  %n_in = call i64 @PyTuple_Size(ptr %ins)
  %n_at = getelementptr i64, ptr %plan, i64 1
  %n_ints = load i64, ptr %n_at
  %sum = add i64 %n_in, %n_ints
  %words = add i64 %sum, 4
  %small = icmp ule i64 %words, 256
  br i1 %small, label %fill, label %large
large:
  %bytes = shl i64 %words, 3
  %made = call ptr @malloc(i64 %bytes)
  %none = icmp eq ptr %made, null
  br i1 %none, label %memory, label %fill
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
  br i1 %out_is, label %next, label %fail
fail:
  call void @free(ptr %drop)
  call void @Py_DecRef(ptr %ins)
  ret ptr null
next:
  %i = phi i64 [ 0, %fill ], [ %i1, %stored ]
  %more = icmp slt i64 %i, %n_in
  br i1 %more, label %item, label %ints
item:
  %object = call ptr @PyTuple_GetItem(ptr %ins, i64 %i)
  %w = add i64 %i, 3
  %w_at = getelementptr i64, ptr %block, i64 %w
  %ok = call i32 @data(ptr %object, ptr %w_at)
  %is = icmp ne i32 %ok, 0
  br i1 %is, label %stored, label %fail
stored:
  %i1 = add i64 %i, 1
  br label %next
ints:
  %iw = add i64 %n_in, 4
  %i_at = getelementptr i64, ptr %block, i64 %iw
  %values_at = getelementptr i64, ptr %plan, i64 4
  %values = load ptr, ptr %values_at
  %ib = shl i64 %n_ints, 3
  call void @llvm.memcpy.p0.p0.i64(ptr %i_at, ptr %values, i64 %ib, i1 false)
  %quick_at = getelementptr i64, ptr %plan, i64 5
  %quick = load i64, ptr %quick_at
  %holds = icmp ne i64 %quick, 0
  br i1 %holds, label %held, label %released
held:
  call void @weft_run_block(ptr %plan, ptr %block, i64 %n_in)
  br label %ran
released:
  %state = call ptr @PyEval_SaveThread()
  call void @weft_run_block(ptr %plan, ptr %block, i64 %n_in)
  call void @PyEval_RestoreThread(ptr %state)
  br label %ran
ran:
  %status = load i64, ptr %block
  %zero = icmp eq i64 %status, 0
  br i1 %zero, label %end, label %note
note:
  %d_at = getelementptr i64, ptr %block, i64 1
  %d = load i64, ptr %d_at
  %place = load ptr, ptr @detail
  store i64 %d, ptr %place
  br label %end
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
TEXT = _TEXT.replace("MESSAGES", _STRINGS)

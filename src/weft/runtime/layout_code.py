"""LLVM IR of a Python builtin that runs an op on arrays of layouts met before.

    call(array, ...) -> ndarray, or None: ask the planner

The dictionary of launches by shape, strides and dtype costs a microsecond a call in Python: tuples
are made, hashed and compared, NumPy allocates, the launcher is called.  Here the layouts are
compared with the array's struct in place (`PyArrayObject_fields`, NumPy's stable ABI), the result
is made by `PyArray_NewFromDescr` and the launch runs at once.  A kernel that reports bad data gives
None as well: the long way then finds it again and raises.  A view op has no plan: its result is
made over the operand's memory, which it keeps alive by its `base`, as NumPy's views do.

The builtin's `self` is an int, the address of a table of one word: the first entry, or 0.
Entry, i64 words: 0 next, 1 operands, 2 plan (0: a view), 3 the result's descr, 4 its rank, 5 its
dims, 6 what the operands must be: for each its descr, its rank, its dims, its strides; of a view
7 its strides, 8 its first byte's place in the operand; 9 a callable that makes the result, or 0.
"""

EXPORTS = ("weft_layout_init", "weft_layout_call")
FUNCTIONS = (
    "Py_IncRef", "Py_DecRef", "PyLong_AsVoidPtr", "PyObject_CallNoArgs", "PyEval_SaveThread",
    "PyEval_RestoreThread",
)  # fmt: skip
MOST_WORDS = 128  # of a launch's block

TEXT = """
declare void @Py_IncRef(ptr)
declare void @Py_DecRef(ptr)
declare ptr @PyLong_AsVoidPtr(ptr)
declare ptr @PyObject_CallNoArgs(ptr)
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)
declare void @weft_run_block(ptr, ptr, i64)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
@ndarray = internal global ptr null
@none = internal global ptr null
@new = internal global ptr null
@set_base = internal global ptr null

define void @weft_layout_init(ptr %a, ptr %b, ptr %c, ptr %d) nounwind {
  store ptr %a, ptr @ndarray
  store ptr %b, ptr @none
  store ptr %c, ptr @new
  store ptr %d, ptr @set_base
  ret void
}

define ptr @weft_layout_call(ptr %self, ptr %args, i64 %n) nounwind {
entry:
  %block = alloca [MOST_WORDS x i64], align 64
  %type = load ptr, ptr @ndarray
  %table = call ptr @PyLong_AsVoidPtr(ptr %self)
  br label %kinds
kinds:
  %t = phi i64 [ 0, %entry ], [ %t1, %kind ]
  %t_more = icmp slt i64 %t, %n
  br i1 %t_more, label %kind, label %search
kind:
  %t_at = getelementptr ptr, ptr %args, i64 %t
  %object = load ptr, ptr %t_at
  %class_at = getelementptr i8, ptr %object, i64 8
  %class = load ptr, ptr %class_at
  %is_array = icmp eq ptr %class, %type
  %t1 = add i64 %t, 1
  br i1 %is_array, label %kinds, label %nothing
search:
  %first = load ptr, ptr %table
  br label %try
try:
  %e = phi ptr [ %first, %search ], [ %next, %differs ]
  %end = icmp eq ptr %e, null
  br i1 %end, label %nothing, label %count
count:
  %n_at = getelementptr i64, ptr %e, i64 1
  %n_in = load i64, ptr %n_at
  %as_many = icmp eq i64 %n_in, %n
  %wanted_at = getelementptr i64, ptr %e, i64 6
  %wanted = load ptr, ptr %wanted_at
  br i1 %as_many, label %operands, label %differs
differs:
  %next = load ptr, ptr %e
  br label %try
operands:
  %i = phi i64 [ 0, %count ], [ %i1, %fits ]
  %w = phi ptr [ %wanted, %count ], [ %w_next, %fits ]
  %i_more = icmp slt i64 %i, %n
  br i1 %i_more, label %operand, label %found
operand:
  %x_at = getelementptr ptr, ptr %args, i64 %i
  %x = load ptr, ptr %x_at
  %descr_at = getelementptr i8, ptr %x, i64 56
  %descr = load ptr, ptr %descr_at
  %descr_wanted = load ptr, ptr %w
  %descr_fits = icmp eq ptr %descr, %descr_wanted
  %rank_at = getelementptr i8, ptr %x, i64 24
  %rank32 = load i32, ptr %rank_at
  %rank = sext i32 %rank32 to i64
  %rank_wanted_at = getelementptr i64, ptr %w, i64 1
  %rank_wanted = load i64, ptr %rank_wanted_at
  %rank_fits = icmp eq i64 %rank, %rank_wanted
  %both = and i1 %descr_fits, %rank_fits
  br i1 %both, label %layout, label %differs
layout:
  %dims_at = getelementptr i8, ptr %x, i64 32
  %dims = load ptr, ptr %dims_at
  %strides_at = getelementptr i8, ptr %x, i64 40
  %strides = load ptr, ptr %strides_at
  %dims_wanted = getelementptr i64, ptr %w, i64 2
  %strides_wanted = getelementptr i64, ptr %dims_wanted, i64 %rank
  %w_next = getelementptr i64, ptr %strides_wanted, i64 %rank
  br label %axes
axes:
  %k = phi i64 [ 0, %layout ], [ %k1, %axis ]
  %k_more = icmp slt i64 %k, %rank
  br i1 %k_more, label %axis, label %fits
axis:
  %d_at = getelementptr i64, ptr %dims, i64 %k
  %d = load i64, ptr %d_at
  %dw_at = getelementptr i64, ptr %dims_wanted, i64 %k
  %dw = load i64, ptr %dw_at
  %s_at = getelementptr i64, ptr %strides, i64 %k
  %s = load i64, ptr %s_at
  %sw_at = getelementptr i64, ptr %strides_wanted, i64 %k
  %sw = load i64, ptr %sw_at
  %d_is = icmp eq i64 %d, %dw
  %s_is = icmp eq i64 %s, %sw
  %same = and i1 %d_is, %s_is
  %k1 = add i64 %k, 1
  br i1 %same, label %axes, label %differs
fits:
  %data_at = getelementptr i8, ptr %x, i64 16
  %data = load ptr, ptr %data_at
  %word = add i64 %i, 3
  %word_at = getelementptr i64, ptr %block, i64 %word
  store ptr %data, ptr %word_at
  %i1 = add i64 %i, 1
  br label %operands
found:
  %plan_at = getelementptr i64, ptr %e, i64 2
  %plan = load ptr, ptr %plan_at
  %out_descr_at = getelementptr i64, ptr %e, i64 3
  %out_descr = load ptr, ptr %out_descr_at
  %out_rank_at = getelementptr i64, ptr %e, i64 4
  %out_rank64 = load i64, ptr %out_rank_at
  %out_rank = trunc i64 %out_rank64 to i32
  %out_dims_at = getelementptr i64, ptr %e, i64 5
  %out_dims = load ptr, ptr %out_dims_at
  %new = load ptr, ptr @new
  call void @Py_IncRef(ptr %out_descr)
  %planned = icmp ne ptr %plan, null
  br i1 %planned, label %result, label %view
view:
  %viewed = load ptr, ptr %args
  %viewed_data_at = getelementptr i8, ptr %viewed, i64 16
  %viewed_data = load ptr, ptr %viewed_data_at
  %viewed_flags_at = getelementptr i8, ptr %viewed, i64 64
  %viewed_flags = load i32, ptr %viewed_flags_at
  %writeable = and i32 %viewed_flags, 1024
  %out_strides_at = getelementptr i64, ptr %e, i64 7
  %out_strides = load ptr, ptr %out_strides_at
  %offset_at = getelementptr i64, ptr %e, i64 8
  %offset = load i64, ptr %offset_at
  %begin = getelementptr i8, ptr %viewed_data, i64 %offset
  %seen = call ptr %new(ptr %type, ptr %out_descr, i32 %out_rank,
    ptr %out_dims, ptr %out_strides, ptr %begin, i32 %writeable, ptr null)
  %unseen = icmp eq ptr %seen, null
  br i1 %unseen, label %error, label %based
based:
  %set_base = load ptr, ptr @set_base
  call void @Py_IncRef(ptr %viewed)
  %refused = call i32 %set_base(ptr %seen, ptr %viewed)
  %is_refused = icmp ne i32 %refused, 0
  br i1 %is_refused, label %baseless, label %shown
baseless:
  call void @Py_DecRef(ptr %seen)
  br label %error
shown:
  ret ptr %seen
result:
  %maker_at = getelementptr i64, ptr %e, i64 9
  %maker = load ptr, ptr %maker_at
  %large = icmp ne ptr %maker, null
  br i1 %large, label %ask, label %make
ask:
  call void @Py_DecRef(ptr %out_descr)
  %given = call ptr @PyObject_CallNoArgs(ptr %maker)
  br label %answered
make:
  %fresh = call ptr %new(ptr %type, ptr %out_descr, i32 %out_rank,
    ptr %out_dims, ptr null, ptr null, i32 0, ptr null)
  br label %answered
answered:
  %out = phi ptr [ %given, %ask ], [ %fresh, %make ]
  %failed = icmp eq ptr %out, null
  br i1 %failed, label %error, label %made
error:
  ret ptr null
made:
  %out_data_at = getelementptr i8, ptr %out, i64 16
  %out_data = load ptr, ptr %out_data_at
  %b2 = getelementptr i64, ptr %block, i64 2
  store ptr %out_data, ptr %b2
  %n_ints_at = getelementptr i64, ptr %plan, i64 1
  %n_ints = load i64, ptr %n_ints_at
  %values_at = getelementptr i64, ptr %plan, i64 4
  %values = load ptr, ptr %values_at
  %ints_word = add i64 %n, 4
  %ints_at = getelementptr i64, ptr %block, i64 %ints_word
  %bytes = shl i64 %n_ints, 3
  call void @llvm.memcpy.p0.p0.i64(ptr %ints_at, ptr %values, i64 %bytes, i1 false)
  %quick_at = getelementptr i64, ptr %plan, i64 5
  %quick = load i64, ptr %quick_at
  %holds = icmp ne i64 %quick, 0
  br i1 %holds, label %held, label %released
held:
  call void @weft_run_block(ptr %plan, ptr %block, i64 %n)
  br label %ran
released:
  %state = call ptr @PyEval_SaveThread()
  call void @weft_run_block(ptr %plan, ptr %block, i64 %n)
  call void @PyEval_RestoreThread(ptr %state)
  br label %ran
ran:
  %status = load i64, ptr %block
  %good = icmp eq i64 %status, 0
  br i1 %good, label %done, label %bad
done:
  ret ptr %out
bad:
  call void @Py_DecRef(ptr %out)
  br label %nothing
nothing:
  %nothing_at_all = load ptr, ptr @none
  call void @Py_IncRef(ptr %nothing_at_all)
  ret ptr %nothing_at_all
}
""".replace("MOST_WORDS", str(MOST_WORDS))

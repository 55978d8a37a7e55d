"""LLVM IR of a Python builtin that runs an op on arrays of layouts met before.

    call(array, ...) -> ndarray, or None: the long way

The dictionary of launches by shape, strides and dtype costs a microsecond a call in Python: tuples
are made, hashed and compared, NumPy allocates, the launcher is called.  Here the layouts are
compared with the array's struct in place (`PyArrayObject_fields`, NumPy's stable ABI), the result
is made by `PyArray_NewFromDescr` and the launch runs at once.  A kernel that reports bad data gives
None as well: the long way then finds it again and raises.  A view op has no plan: its result is
made over the operand's memory, which it keeps alive by its `base`, as NumPy's views do.

The builtin's `self` (tensor_code.py's as well) is an int, the address of a table, i64 words: 0 the
first entry, 1 the op (0: none, tensors are left alone), 2 whether it has a gradient, 3 whether its
result is kept, from 4 on the operands kept (bits), by which of three want a gradient (bits), 12
whether it works element by element.
Entry, i64 words: 0 next, 1 operands, 2 plan (0: a view), 3 the result's descr, 4 its rank, 5 its
dims, 6 what the operands must be: for each its descr, its rank, its dims, its strides; of a view
7 its strides, 8 its first byte's place in the operand; 9 a callable that makes the result, or 0;
10 a tuple of the operands' Metas; 11 its tape node: 0 none, 1 made here, 2 Python makes it; 12
bytes of the largest element.
The entry found comes to the front.
"""

from weft.runtime import (
    builtin_code,
    fact_code,
    ir_text,
    join_code,
    match_code,
    tensor_code,
    wish_code,
)

EXPORTS = (
    "weft_layout_init", "weft_layout_aside", "weft_layout_call", "weft_tensor_call",
    "weft_tensor_fresh", "weft_tensor_into", "weft_tensor_overwrite", "weft_match_call",
    "weft_match_promise", "weft_wish_known", "weft_wish_item", "weft_wish_parts", "weft_wish_tell",
    "weft_wish_forget", "weft_wish_made", "weft_wish_made_like",
    "weft_value_get", "weft_value_set", "weft_joined",
    *(f"weft_fact_{name}" for name in fact_code.FACTS),
)  # fmt: skip
FUNCTIONS = (
    "PyDict_GetItemWithError", "PyDict_SetItem", "PyErr_Clear", "PyErr_Occurred",
    "PyEval_RestoreThread", "PyEval_SaveThread", "PyFloat_AsDouble", "PyFloat_FromDouble",
    "PyIter_Next", "PyList_Append", "PyList_GetItem", "PyList_New", "PyList_SetItem", "PyList_Size",
    "PyLong_AsDouble", "PyLong_AsLongLongAndOverflow", "PyLong_AsVoidPtr", "PyLong_FromLongLong",
    "PyLong_FromVoidPtr", "PyObject_CallFunctionObjArgs", "PyObject_CallMethodObjArgs",
    "PyObject_CallNoArgs", "PyObject_GetAttr", "PyObject_GetItem", "PyObject_RichCompareBool",
    "PyObject_Vectorcall", "PySequence_Concat", "PySequence_Tuple", "PyThreadState_Get",
    "PyThreadState_GetID",
    "PyTuple_GetItem", "PyTuple_New", "PyTuple_SetItem", "PyTuple_Size", "PyType_IsSubtype",
    "PyWeakref_NewRef", "Py_DecRef", "Py_IncRef",
)  # fmt: skip
MOST_WORDS = 128  # of a launch's block
_BLOCK_WORDS = MOST_WORDS + 8  # and a number behind them
WORDS = (
    "ndarray", "none", "new", "set_base", "tensor", "parameter", "state", "object_new", "empty",
    "storage", "node", "sequence", "zero", "true", "false", "float", "int", "list", "handle",
    "room_of", "float32", "float64", "int64", "slice", "dots", "dots_too", "dict", "promised",
    "bool", "str", "dtype_class", "device_class",
    *tensor_code.ATTRIBUTES, *tensor_code.HANDLE_SLOTS, *tensor_code.STORAGE_SLOTS,
    *tensor_code.SLOTS, *match_code.WORDS, *fact_code.FACTS, "dtypes", *join_code.WORDS,
)  # fmt: skip

_TEXT = """
@aside = internal global i64 0

; while it is not 0, no layouts are known: a profile wants to see every launch
define void @weft_layout_aside(i64 %on) nounwind {
entry:
  store i64 %on, ptr @aside
  ret void
}

; the entry for these arrays, or null; their addresses go into the block. One of several may be
; null: a number, whose value lies behind the block's words
define internal ptr @find(ptr %table, ptr %arrays, i64 %n, ptr %block) nounwind {
entry:
  %aside = load i64, ptr @aside
  %first = load ptr, ptr %table
  if %aside ne 0 none try
try:
  %e = phi ptr [ %first, %entry ], [ %next, %differs ]
  %before = phi ptr [ %table, %entry ], [ %e, %differs ]
  if %e is null none count
none:
  ret ptr null
count:
  %n_in = item i64 %e 1
  %wanted = item ptr %e 6
  if %n_in eq %n operands differs
differs:
  %next = load ptr, ptr %e
  goto try
operands:
  %i = phi i64 [ 0, %count ], [ %i1, %fits ]
  %w = phi ptr [ %wanted, %count ], [ %w_fits, %fits ]
  if %i slt %n operand found
operand:
  %x = item ptr %arrays %i
  %descr_wanted = load ptr, ptr %w
  %rank_wanted = item i64 %w 1
  if %x is null number array
number:  ; beside arrays, of which the first has its dtype
  %at_front = icmp eq i64 %i, 0
  %one = zext i1 %at_front to i64
  %beside = item ptr %arrays %one
  %its_descr = get ptr %beside 56
  %its_dtype = icmp eq ptr %its_descr, %descr_wanted
  %single = icmp eq i64 %rank_wanted, 0
  %number_fits = and i1 %its_dtype, %single
  %w_after = getelementptr i64, ptr %w, i64 2
  %value = getelementptr i64, ptr %block, i64 MOST_WORDS
  if %number_fits fits differs
array:
  %descr = get ptr %x 56
  %descr_fits = icmp eq ptr %descr, %descr_wanted
  %rank32 = get i32 %x 24
  %rank = sext i32 %rank32 to i64
  %rank_fits = icmp eq i64 %rank, %rank_wanted
  %both = and i1 %descr_fits, %rank_fits
  if %both layout differs
layout:
  %dims = get ptr %x 32
  %strides = get ptr %x 40
  %dims_wanted = getelementptr i64, ptr %w, i64 2
  %strides_wanted = getelementptr i64, ptr %dims_wanted, i64 %rank
  %w_next = getelementptr i64, ptr %strides_wanted, i64 %rank
  goto axes
axes:
  %k = phi i64 [ 0, %layout ], [ %k1, %axis ]
  if %k slt %rank axis laid
axis:
  %d = item i64 %dims %k
  %dw = item i64 %dims_wanted %k
  %s = item i64 %strides %k
  %sw = item i64 %strides_wanted %k
  %d_is = icmp eq i64 %d, %dw
  %s_is = icmp eq i64 %s, %sw
  %same = and i1 %d_is, %s_is
  %k1 = add i64 %k, 1
  if %same axes differs
laid:
  %data_there = get ptr %x 16
  goto fits
fits:
  %data = phi ptr [ %data_there, %laid ], [ %value, %number ]
  %w_fits = phi ptr [ %w_next, %laid ], [ %w_after, %number ]
  %word = add i64 %i, 3
  put ptr %data %block [%word]
  %i1 = add i64 %i, 1
  goto operands
found:
  if %before is %table done move
move:
  %after = load ptr, ptr %e
  store ptr %after, ptr %before
  store ptr %first, ptr %e
  store ptr %e, ptr %table
  goto done
done:
  ret ptr %e
}

; the result; null with the block's status 0 and an exception, or with the status of bad data
define internal ptr @run(ptr %e, ptr %arrays, i64 %n, ptr %block) nounwind {
entry:
  store i64 0, ptr %block
  %type = word ndarray
  %plan = item ptr %e 2
  %descr = item ptr %e 3
  %rank64 = item i64 %e 4
  %rank = trunc i64 %rank64 to i32
  %dims = item ptr %e 5
  %new = word new
  call void @Py_IncRef(ptr %descr)
  if %plan not null result view
view:
  %viewed = load ptr, ptr %arrays
  %data = get ptr %viewed 16
  %flags = get i32 %viewed 64
  %writeable = and i32 %flags, 1024
  %strides = item ptr %e 7
  %offset = item i64 %e 8
  %begin = getelementptr i8, ptr %data, i64 %offset
  %seen = call ptr %new(ptr %type, ptr %descr, i32 %rank, ptr %dims, ptr %strides, ptr %begin,
    i32 %writeable, ptr null)
  if %seen is null error based
based:
  %set_base = word set_base
  call void @Py_IncRef(ptr %viewed)
  %refused = call i32 %set_base(ptr %seen, ptr %viewed)
  %is_refused = icmp ne i32 %refused, 0
  if %is_refused baseless shown
baseless:
  call void @Py_DecRef(ptr %seen)
  goto error
shown:
  ret ptr %seen
result:
  %maker = item ptr %e 9
  if %maker not null ask make
ask:
  call void @Py_DecRef(ptr %descr)
  %given = call ptr @PyObject_CallNoArgs(ptr %maker)
  goto answered
make:
  %fresh = call ptr %new(ptr %type, ptr %descr, i32 %rank, ptr %dims, ptr null, ptr null, i32 0,
    ptr null)
  goto answered
answered:
  %out = phi ptr [ %given, %ask ], [ %fresh, %make ]
  if %out is null error made
error:
  ret ptr null
made:
  %out_data = get ptr %out 16
  put ptr %out_data %block 16
  call void @launch(ptr %plan, ptr %block, i64 %n)
  %status = load i64, ptr %block
  if %status eq 0 done bad
done:
  ret ptr %out
bad:
  call void @Py_DecRef(ptr %out)
  goto error
}

; where an array's elements lie: the first byte, and the byte behind the last
define internal {i64, i64} @extent(ptr %x, i64 %bytes) nounwind {
entry:
  %data = get i64 %x 16
  %rank32 = get i32 %x 24
  %rank = sext i32 %rank32 to i64
  %dims = get ptr %x 32
  %strides = get ptr %x 40
  %behind = add i64 %data, %bytes
  goto axes
axes:
  %k = phi i64 [ 0, %entry ], [ %k1, %axis ]
  %low = phi i64 [ %data, %entry ], [ %low1, %axis ]
  %high = phi i64 [ %behind, %entry ], [ %high1, %axis ]
  if %k slt %rank axis done
axis:
  %d = item i64 %dims %k
  %s = item i64 %strides %k
  %last = sub i64 %d, 1
  %way = mul i64 %last, %s
  %back = call i64 @llvm.smin.i64(i64 %way, i64 0)
  %forth = call i64 @llvm.smax.i64(i64 %way, i64 0)
  %low1 = add i64 %low, %back
  %high1 = add i64 %high, %forth
  %k1 = add i64 %k, 1
  goto axes
done:
  %one = insertvalue {i64, i64} poison, i64 %low, 0
  %both = insertvalue {i64, i64} %one, i64 %high, 1
  ret {i64, i64} %both
}

; whether an entry's result may be written over its first operand: of its layout, element by
; element, and no other operand overlaps it but the array itself
define internal i1 @fits_first(ptr %table, ptr %e, ptr %arrays, i64 %n) nounwind {
entry:
  %pointwise = item i64 %table 12
  %plan = item i64 %e 2
  %is_pointwise = icmp ne i64 %pointwise, 0
  %planned = icmp ne i64 %plan, 0
  %kind = item i64 %e 11
  %floats = icmp eq i64 %kind, 1
  %able = and i1 %is_pointwise, %planned
  %able_too = and i1 %able, %floats
  %x = load ptr, ptr %arrays
  %is_array = icmp ne ptr %x, null
  %ready = and i1 %able_too, %is_array
  if %ready alike no
no:
  ret i1 false
alike:
  %descr = get ptr %x 56
  %rank32 = get i32 %x 24
  %flags = get i32 %x 64
  %writeable = and i32 %flags, 1024
  %rank = sext i32 %rank32 to i64
  %dims = get ptr %x 32
  %strides = get ptr %x 40
  %descr_out = item ptr %e 3
  %rank_out = item i64 %e 4
  %dims_out = item ptr %e 5
  %strides_out = item ptr %e 7
  %same_descr = icmp eq ptr %descr, %descr_out
  %same_rank = icmp eq i64 %rank, %rank_out
  %may_write = icmp ne i32 %writeable, 0
  %some = and i1 %same_descr, %same_rank
  %all = and i1 %some, %may_write
  if %all axes no
axes:
  %k = phi i64 [ 0, %alike ], [ %k1, %axis ]
  if %k slt %rank axis others
axis:
  %d = item i64 %dims %k
  %d_out = item i64 %dims_out %k
  %s = item i64 %strides %k
  %s_out = item i64 %strides_out %k
  %same_d = icmp eq i64 %d, %d_out
  %same_s = icmp eq i64 %s, %s_out
  %same = and i1 %same_d, %same_s
  %k1 = add i64 %k, 1
  if %same axes no
others:
  %bytes = item i64 %e 12
  %mine = call {i64, i64} @extent(ptr %x, i64 %bytes)
  %low = extractvalue {i64, i64} %mine, 0
  %high = extractvalue {i64, i64} %mine, 1
  goto next
next:
  %i = phi i64 [ 1, %others ], [ %i1, %one ], [ %i1, %apart ]
  %i1 = add i64 %i, 1
  if %i slt %n one yes
one:
  %z = item ptr %arrays %i
  %itself = icmp eq ptr %z, %x
  %number = icmp eq ptr %z, null
  %harmless = or i1 %itself, %number
  if %harmless next array
array:
  %its = call {i64, i64} @extent(ptr %z, i64 %bytes)
  %its_low = extractvalue {i64, i64} %its, 0
  %its_high = extractvalue {i64, i64} %its, 1
  %before = icmp ule i64 %its_high, %low
  %behind = icmp uge i64 %its_low, %high
  %disjoint = or i1 %before, %behind
  if %disjoint apart no
apart:
  goto next
yes:
  ret i1 true
}

define ptr @weft_layout_call(ptr %self, ptr %args, i64 %n) nounwind {
entry:
  %block = alloca [MOST_WORDS x i64], align 64
  %type = word ndarray
  %table = call ptr @PyLong_AsVoidPtr(ptr %self)
  goto kinds
kinds:
  %t = phi i64 [ 0, %entry ], [ %t1, %kind ]
  if %t slt %n kind search
kind:
  %object = item ptr %args %t
  %class = get ptr %object 8
  %t1 = add i64 %t, 1
  if %class is %type kinds nothing
search:
  %e = call ptr @find(ptr %table, ptr %args, i64 %n, ptr %block)
  if %e is null nothing known
known:
  %out = call ptr @run(ptr %e, ptr %args, i64 %n, ptr %block)
  if %out not null done failed
failed:
  %status = load i64, ptr %block
  if %status eq 0 done nothing
done:
  ret ptr %out
nothing:
  %none = word none
  call void @Py_IncRef(ptr %none)
  ret ptr %none
}
"""

_PARTS = (tensor_code, match_code, wish_code, fact_code, join_code)
_ALL = ir_text.expand("".join([_TEXT, builtin_code.LAUNCH, *(part.TEXT for part in _PARTS)]), WORDS)
TEXT = ir_text.heads_first(
    ir_text.declare(FUNCTIONS)
    + ir_text.words("weft_layout", WORDS)
    + _ALL.replace("BLOCK_WORDS", str(_BLOCK_WORDS)).replace("MOST_WORDS", str(MOST_WORDS))
)

"""LLVM IR of Python builtins on contiguous tensors: joins of small ones, as `cat` and `stack` give,
taped; and writes over one.

    joined(ops, tensors, dim[, True]) -> Tensor, or None: the long way
    overwrite(tensor[, tensor]) -> True: its memory has the other's values, or zeros; or None

`ops` has the op by dim: it becomes the tape node's.  A fourth argument: the dim is a new one.
Known are lists and tuples of plain tensors of one dtype, contiguous, that fit and are not empty;
nothing has an effect before all is compared.  `overwrite` takes tensors of one shape and dtype, off
the tape, where nobody records.
"""

from weft.runtime.ir_text import TUPLE_ITEMS

SLOTS = ("shape", "np_dtype")  # of a Meta
WORDS = ("meta", *(f"meta.{name}" for name in SLOTS))
MOST_BYTES = 16_384  # of a result; larger ones lie in memory's own blocks

TEXT = f"""
declare void @llvm.memmove.p0.p0.i64(ptr, ptr, i64, i1)

; the array of a plain tensor, borrowed, where it is contiguous; else null
define internal ptr @dense(ptr %x) nounwind {{
entry:
  %none = word none
  %plain = call i1 @is_plain(ptr %x)
  if %plain asks no
no:
  ret ptr null
asks:
  %ghost = slot %x _ghost
  %a = slot %x _a
  %ndarray = word ndarray
  %valued = icmp eq ptr %ghost, %none
  %is_array = call i1 @is_a(ptr %a, ptr %ndarray)
  %both = and i1 %valued, %is_array
  if %both laid no
laid:
  %flags = get i32 %a 64
  %contiguous = trunc i32 %flags to i1
  if %contiguous yes no
yes:
  ret ptr %a
}}

; a Meta; null with an exception
define internal ptr @meta_of(ptr %a) nounwind {{
entry:
  %rank32 = get i32 %a 24
  %rank = sext i32 %rank32 to i64
  %dims = get ptr %a 32
  %descr = get ptr %a 56
  %object_new = word object_new
  %class = word meta
  %empty = word empty
  %made = call ptr %object_new(ptr %class, ptr %empty, ptr null)
  if %made is null error sized
error:
  ret ptr null
sized:
  give ptr %descr %made meta.np_dtype
  %shape = call ptr @PyTuple_New(i64 %rank)
  if %shape is null drop shaped
drop:
  call void @Py_DecRef(ptr %made)
  goto error
shaped:
  fill ptr %shape %made meta.shape
  goto next
next:
  %k = phi i64 [ 0, %shaped ], [ %k1, %set ]
  %k1 = add i64 %k, 1
  if %k slt %rank one done
one:
  %d = item i64 %dims %k
  %number = call ptr @PyLong_FromLongLong(i64 %d)
  if %number is null drop set
set:
  %bad = call i32 @PyTuple_SetItem(ptr %shape, i64 %k, ptr %number)
  goto next
done:
  ret ptr %made
}}

; y is the op of these tensors; not 0 with an exception
define internal i32 @note_join(ptr %y, ptr %op, ptr %tensors, ptr %arrays, i64 %n, i64 %axis,
    i1 %stacked) nounwind {{
entry:
  %none = word none
  %true = word true
  %empty = word empty
  %node = call ptr @new_node(ptr %op)
  if %node is null error begun
error:
  ret i32 -1
begun:
  give ptr %empty %node versions
  give ptr %none %node result
  %edges = call ptr @PyTuple_New(i64 %n)
  %saved = call ptr @PyTuple_New(i64 %n)
  fill ptr %edges %node edges
  fill ptr %saved %node saved
  %no_edges = icmp eq ptr %edges, null
  %no_saved = icmp eq ptr %saved, null
  %lacking = or i1 %no_edges, %no_saved
  if %lacking drop next
drop:
  call void @Py_DecRef(ptr %node)
  goto error
next:
  %i = phi i64 [ 0, %begun ], [ %i1, %kept ]
  %last = phi ptr [ null, %begun ], [ %meta, %kept ]
  %size = phi i64 [ -1, %begun ], [ %d, %kept ]
  %i1 = add i64 %i, 1
  if %i slt %n one whole
one:
  %x = item ptr %tensors %i
  %a = item ptr %arrays %i
  %rg = slot %x _rg
  %fn = slot %x _fn
  %wanted = icmp eq ptr %rg, %true
  %no_fn = icmp eq ptr %fn, null
  %leaf_too = icmp eq ptr %fn, %none
  %leaf = or i1 %no_fn, %leaf_too
  %end = select i1 %leaf, ptr %x, ptr %fn
  %edge = select i1 %wanted, ptr %end, ptr %none
  call void @Py_IncRef(ptr %edge)
  %e_set = call i32 @PyTuple_SetItem(ptr %edges, i64 %i, ptr %edge)
  %first = icmp eq ptr %last, null
  if %stacked same sized
sized:
  %dims = get ptr %a 32
  %its = item i64 %dims %axis
  goto same
same:
  %d = phi i64 [ -2, %one ], [ %its, %sized ]
  %as_last = icmp eq i64 %d, %size
  %not_first = xor i1 %first, true
  %alike = or i1 %stacked, %as_last
  %again = and i1 %alike, %not_first
  if %again repeat make
repeat:
  call void @Py_IncRef(ptr %last)
  goto kept
make:
  %new = call ptr @meta_of(ptr %a)
  if %new is null drop kept
kept:
  %meta = phi ptr [ %last, %repeat ], [ %new, %make ]
  %s_set = call i32 @PyTuple_SetItem(ptr %saved, i64 %i, ptr %meta)
  goto next
whole:
  %ended = call i32 @end_node(ptr %node, ptr %y)
  ret i32 %ended
}}

define ptr @weft_joined(ptr %self, ptr %args, i64 %given) nounwind {{
entry:
  %beyond = alloca i32
  %out_dims = alloca [72 x i64], align 8
  %none = word none
  %true = word true
  %false = word false
  %empty = word empty
  %tuple = get ptr %empty 8
  %list = word list
  %int = word int
  %ndarray = word ndarray
  %ops = load ptr, ptr %args
  %sequence = item ptr %args 1
  %dim = item ptr %args 2
  %stacked = icmp eq i64 %given, 4
  %joins = xor i1 %stacked, true
  %new_dim = zext i1 %stacked to i64
  %is_list = call i1 @is_a(ptr %sequence, ptr %list)
  %is_tuple = call i1 @is_a(ptr %sequence, ptr %tuple)
  %is_int = call i1 @is_a(ptr %dim, ptr %int)
  %listed = or i1 %is_list, %is_tuple
  %fine = and i1 %listed, %is_int
  if %fine modes no
no:
  call void @Py_IncRef(ptr %none)
  ret ptr %none
error:
  ret ptr null
modes:
  %name_recorder = word recorder
  %recorder = call ptr @mode(ptr %name_recorder, ptr %none)
  if %recorder is null error recorded
recorded:
  if %recorder is %none hold no
hold:  ; whatever happens, what is joined stays
  %tensors_of = call ptr @PySequence_Tuple(ptr %sequence)
  if %tensors_of is null error held
held:
  %n = call i64 @PyTuple_Size(ptr %tensors_of)
  %tensors = getelementptr i8, ptr %tensors_of, i64 {TUPLE_ITEMS}
  %arrays_of = call ptr @PyTuple_New(i64 %n)
  %arrays = getelementptr i8, ptr %arrays_of, i64 {TUPLE_ITEMS}
  if %arrays_of is null lose some
lose:
  call void @Py_DecRef(ptr %tensors_of)
  goto error
some:
  if %n ne 0 first nothing
nothing:
  call void @Py_DecRef(ptr %tensors_of)
  call void @Py_DecRef(ptr %arrays_of)
  goto no
first:
  %x0 = load ptr, ptr %tensors
  %a0 = call ptr @dense(ptr %x0)
  if %a0 is null nothing place
place:
  %descr = get ptr %a0 56
  %kind = get i8 %descr 24
  %element = get i64 %descr 40
  %rank32 = get i32 %a0 24
  %rank = sext i32 %rank32 to i64
  %rank_out = add i64 %rank, %new_dim
  %dims0 = get ptr %a0 32
  %wish = call i64 @PyLong_AsLongLongAndOverflow(ptr %dim, ptr %beyond)
  %from_end = add i64 %wish, %rank_out
  %behind = icmp slt i64 %wish, 0
  %axis = select i1 %behind, i64 %from_end, i64 %wish
  %known = call i64 @PyTuple_Size(ptr %ops)
  %within = icmp ult i64 %axis, %rank_out
  %has_op = icmp ult i64 %axis, %known
  %at_last = icmp sle i64 %rank, 64
  %over = load i32, ptr %beyond
  %inside = icmp eq i32 %over, 0
  %placed0 = and i1 %within, %has_op
  %placed1 = and i1 %placed0, %inside
  %placed = and i1 %placed1, %at_last
  if %placed sizes nothing
sizes:  ; elements before and behind the dim
  %k = phi i64 [ 0, %place ], [ %k1, %size ]
  %outer = phi i64 [ 1, %place ], [ %outer1, %size ]
  %inner = phi i64 [ %element, %place ], [ %inner1, %size ]
  %k1 = add i64 %k, 1
  if %k slt %rank size look
size:
  %d0 = item i64 %dims0 %k
  %before = icmp slt i64 %k, %axis
  %at = icmp eq i64 %k, %axis
  %is_dim = and i1 %at, %joins
  %outer_by = select i1 %before, i64 %d0, i64 1
  %outer1 = mul i64 %outer, %outer_by
  %outside = or i1 %before, %is_dim
  %inner_by = select i1 %outside, i64 1, i64 %d0
  %inner1 = mul i64 %inner, %inner_by
  %beside = or i1 %before, %joins
  %shift = xor i1 %beside, true
  %shifted = zext i1 %shift to i64
  %k_out = add i64 %k, %shifted
  put i64 %d0 %out_dims [%k_out]
  goto sizes
look:
  %i = phi i64 [ 0, %sizes ], [ %i1, %fits ]
  %total = phi i64 [ 0, %sizes ], [ %total1, %fits ]
  %wants = phi i1 [ false, %sizes ], [ %wants1, %fits ]
  %i1 = add i64 %i, 1
  if %i slt %n one counted
one:
  %x = item ptr %tensors %i
  %a = call ptr @dense(ptr %x)
  if %a is null nothing alike
alike:
  call void @Py_IncRef(ptr %a)
  %a_set = call i32 @PyTuple_SetItem(ptr %arrays_of, i64 %i, ptr %a)
  %its_descr = get ptr %a 56
  %its_rank = get i32 %a 24
  %dims = get ptr %a 32
  %same_descr = icmp eq ptr %its_descr, %descr
  %same_rank = icmp eq i32 %its_rank, %rank32
  %same = and i1 %same_descr, %same_rank
  if %same axes nothing
axes:
  %j = phi i64 [ 0, %alike ], [ %j1, %dims_fit ]
  %along = phi i64 [ 1, %alike ], [ %along1, %dims_fit ]
  if %j slt %rank each fitting
each:
  %d = item i64 %dims %j
  %dw = item i64 %dims0 %j
  %j1 = add i64 %j, 1
  %j_at = icmp eq i64 %j, %axis
  %j_joins = and i1 %j_at, %joins
  %along1 = select i1 %j_joins, i64 %d, i64 %along
  %equal = icmp eq i64 %d, %dw
  %free = or i1 %equal, %j_joins
  if %free dims_fit nothing
dims_fit:
  goto axes
fitting:
  %rg = slot %x _rg
  %wanted = icmp eq ptr %rg, %true
  %wants1 = or i1 %wants, %wanted
  %total1 = add i64 %total, %along
  if %along eq 0 nothing fits
fits:
  goto look
counted:
  put i64 %total %out_dims [%axis]
  %row = mul i64 %inner, %total
  %bytes = mul i64 %outer, %row
  %small = icmp ule i64 %bytes, {MOST_BYTES}
  %filled = icmp ne i64 %bytes, 0
  %able = and i1 %small, %filled
  if %able taping nothing
taping:  ; kinds f and V (bfloat16) are taped here, c (complex) by Python
  %is_float = icmp eq i8 %kind, 102
  %is_half = icmp eq i8 %kind, 86
  %is_complex = icmp eq i8 %kind, 99
  %real = or i1 %is_float, %is_half
  %taped = and i1 %wants, %real
  %by_python = and i1 %wants, %is_complex
  if %by_python nothing watch
watch:
  %name_grad = word grad
  %grad = call ptr @mode(ptr %name_grad, ptr %true)
  %off = icmp eq ptr %grad, %false
  %on = xor i1 %off, true
  %tape = and i1 %taped, %on
  if %tape watched make
watched:
  %node_class = word node
  %name_watch = word watch
  %watcher = call ptr @PyObject_GetAttr(ptr %node_class, ptr %name_watch)
  if %watcher is null fail unwatched
unwatched:
  call void @Py_DecRef(ptr %watcher)
  if %watcher is %none make nothing
make:
  call void @Py_IncRef(ptr %descr)
  %new = word new
  %rank_out32 = trunc i64 %rank_out to i32
  %out = call ptr %new(ptr %ndarray, ptr %descr, i32 %rank_out32, ptr %out_dims, ptr null,
    ptr null, i32 0, ptr null)
  if %out is null fail copy
copy:
  %data = get ptr %out 16
  goto piece
piece:
  %p = phi i64 [ 0, %copy ], [ %p1, %pieced ]
  %to = phi ptr [ %data, %copy ], [ %to1, %pieced ]
  %p1 = add i64 %p, 1
  if %p slt %n rows copied
rows:
  %z = item ptr %arrays %p
  %z_data = get ptr %z 16
  %z_dims = get ptr %z 32
  if %stacked single long
long:
  %z_along = item i64 %z_dims %axis
  goto single
single:
  %count = phi i64 [ 1, %rows ], [ %z_along, %long ]
  %chunk = mul i64 %count, %inner
  %to1 = getelementptr i8, ptr %to, i64 %chunk
  goto next_row
next_row:
  %o = phi i64 [ 0, %single ], [ %o1, %one_row ]
  %o1 = add i64 %o, 1
  if %o slt %outer one_row pieced
one_row:
  %from_at = mul i64 %o, %chunk
  %to_at = mul i64 %o, %row
  %from = getelementptr i8, ptr %z_data, i64 %from_at
  %there = getelementptr i8, ptr %to, i64 %to_at
  call void @llvm.memcpy.p0.p0.i64(ptr %there, ptr %from, i64 %chunk, i1 false)
  goto next_row
pieced:
  goto piece
copied:
  %y = call ptr @fresh()
  if %y is null lose_out own
lose_out:
  call void @Py_DecRef(ptr %out)
  goto fail
own:
  fill ptr %out %y _a
  if %tape note done
note:
  %op = call ptr @PyTuple_GetItem(ptr %ops, i64 %axis)
  %bad = call i32 @note_join(ptr %y, ptr %op, ptr %tensors, ptr %arrays, i64 %n, i64 %axis,
    i1 %stacked)
  %is_bad = icmp ne i32 %bad, 0
  if %is_bad drop done
drop:
  call void @Py_DecRef(ptr %y)
  goto fail
fail:
  call void @Py_DecRef(ptr %tensors_of)
  call void @Py_DecRef(ptr %arrays_of)
  goto error
done:
  call void @Py_DecRef(ptr %tensors_of)
  call void @Py_DecRef(ptr %arrays_of)
  ret ptr %y
}}

define ptr @weft_tensor_overwrite(ptr %self, ptr %args, i64 %n) nounwind {{
entry:
  %beyond = alloca i32
  %none = word none
  %true = word true
  %false = word false
  %t = load ptr, ptr %args
  %a = call ptr @dense(ptr %t)
  if %a is null nothing mine
mine:
  %rg = slot %t _rg
  %base = get ptr %a 48
  %flags = get i32 %a 64
  %writeable = and i32 %flags, 1024
  %free = icmp eq ptr %rg, %false
  %own = icmp eq ptr %base, null  ; else it may have a mark (memory.py)
  %may = icmp ne i32 %writeable, 0
  %both = and i1 %free, %own
  %all = and i1 %both, %may
  if %all mode nothing
mode:
  %name_recorder = word recorder
  %recorder = call ptr @mode(ptr %name_recorder, ptr %none)
  if %recorder is %none source busy
busy:
  if %recorder is null error nothing
error:
  ret ptr null
source:
  %descr = get ptr %a 56
  %data = get ptr %a 16
  %rank32 = get i32 %a 24
  %rank = sext i32 %rank32 to i64
  %dims = get ptr %a 32
  %each = get i64 %descr 40
  if %n eq 1 count other
other:
  %given = item ptr %args 1
  %b = call ptr @dense(ptr %given)
  if %b is null nothing alike
alike:
  %b_rg = slot %given _rg
  %b_descr = get ptr %b 56
  %b_rank = get i32 %b 24
  %from = get ptr %b 16
  %b_free = icmp eq ptr %b_rg, %false
  %same = icmp eq ptr %b_descr, %descr
  %level = icmp eq i32 %b_rank, %rank32
  %fit = and i1 %b_free, %same
  %fits = and i1 %fit, %level
  if %fits count nothing
count:
  %seen = phi ptr [ %a, %source ], [ %b, %alike ]
  %source_at = phi ptr [ null, %source ], [ %from, %alike ]
  %its = get ptr %seen 32
  goto axes
axes:
  %k = phi i64 [ 0, %count ], [ %k1, %axis ]
  %bytes = phi i64 [ %each, %count ], [ %bytes1, %axis ]
  if %k slt %rank axis write
axis:
  %d = item i64 %dims %k
  %d_its = item i64 %its %k
  %bytes1 = mul i64 %bytes, %d
  %k1 = add i64 %k, 1
  if %d eq %d_its axes nothing
write:
  %st0 = slot %t _st
  %old = icmp ne ptr %st0, null
  %made_before = icmp ne ptr %st0, %none
  %has = and i1 %old, %made_before
  if %has stored store
store:
  %new = call ptr @memory()
  if %new is null error keep
keep:
  renew ptr %new %t _st
  call void @Py_DecRef(ptr %new)
  goto stored
stored:
  %st = phi ptr [ %st0, %write ], [ %new, %keep ]
  %version = slot %st version
  %count0 = call i64 @PyLong_AsLongLongAndOverflow(ptr %version, ptr %beyond)
  %count1 = add i64 %count0, 1
  %number = call ptr @PyLong_FromLongLong(i64 %count1)
  if %number is null error move
move:
  renew ptr %number %st version
  call void @Py_DecRef(ptr %number)
  if %source_at is null clear copy
clear:
  call void @llvm.memset.p0.i64(ptr %data, i8 0, i64 %bytes, i1 false)
  goto done
copy:
  call void @llvm.memmove.p0.p0.i64(ptr %data, ptr %source_at, i64 %bytes, i1 false)
  goto done
done:
  call void @Py_IncRef(ptr %true)
  ret ptr %true
nothing:
  call void @Py_IncRef(ptr %none)
  ret ptr %none
}}
"""

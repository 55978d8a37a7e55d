"""LLVM IR of the Python builtin that joins small tensors: what `cat` and `stack` give, taped.

    joined(ops, tensors, dim[, True]) -> Tensor, or None: the long way

`ops` has the op by dim: it becomes the tape node's.  A fourth argument: the dim is a new one.
Known are lists and tuples of plain tensors of one dtype, contiguous, that fit and are not empty;
nothing has an effect before all is compared.
"""

from weft.runtime.ir_text import TUPLE_ITEMS

MOST_BYTES = 16_384  # of a result; larger ones lie in memory's own blocks

_TEXT = """
; the array of a plain tensor, borrowed, where it is contiguous; else null
define internal ptr @dense(ptr %x) nounwind {
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
}

; a Meta; null with an exception
define internal ptr @meta_of(ptr %a) nounwind {
entry:
  %class = word meta
  %descr = get ptr %a 56
  %name_shape = word shape
  %shape = call ptr @PyObject_GetAttr(ptr %a, ptr %name_shape)
  %no_shape = icmp eq ptr %shape, null
  if %no_shape done make
make:
  %made = call ptr (ptr, ...) @PyObject_CallFunctionObjArgs(ptr %class, ptr %shape, ptr %descr,
    ptr null)
  call void @Py_DecRef(ptr %shape)
  goto done
done:
  %meta = phi ptr [ null, %entry ], [ %made, %make ]
  ret ptr %meta
}

; y is the op of these tensors; not 0 with an exception
define internal i32 @note_join(ptr %y, ptr %op, ptr %tensors, ptr %arrays, i64 %n,
    i1 %stacked) nounwind {
entry:
  %none = word none
  %true = word true
  %empty = word empty
  %node = call ptr @new_node(ptr %op)
  %no_node = icmp eq ptr %node, null
  if %no_node error begun
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
  %i1 = add i64 %i, 1
  %more = icmp slt i64 %i, %n
  if %more one whole
one:
  %x = item ptr %tensors %i
  %a = item ptr %arrays %i
  %rg = slot %x _rg
  %fn = field %x _fn
  call void @Py_DecRef(ptr %fn)  ; x holds it
  %wanted = icmp eq ptr %rg, %true
  %leaf = icmp eq ptr %fn, %none
  %end = select i1 %leaf, ptr %x, ptr %fn
  %edge = select i1 %wanted, ptr %end, ptr %none
  call void @Py_IncRef(ptr %edge)
  %e_set = call i32 @PyTuple_SetItem(ptr %edges, i64 %i, ptr %edge)
  %first = icmp eq i64 %i, 0
  %apart = xor i1 %stacked, true
  %makes = or i1 %first, %apart
  call void @Py_IncRef(ptr %last)
  if %makes make kept
make:
  call void @Py_DecRef(ptr %last)
  %new = call ptr @meta_of(ptr %a)
  %no_new = icmp eq ptr %new, null
  if %no_new drop kept
kept:
  %meta = phi ptr [ %last, %one ], [ %new, %make ]
  %s_set = call i32 @PyTuple_SetItem(ptr %saved, i64 %i, ptr %meta)
  goto next
whole:
  %ended = call i32 @end_node(ptr %node, ptr %y)
  ret i32 %ended
}

define ptr @weft_joined(ptr %self, ptr %args, i64 %given) nounwind {
entry:
  %beyond = alloca i32
  %out_dims = alloca [80 x i64], align 8
  %about = alloca [13 x i64], align 8
  %none = word none
  %true = word true
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
  %lost_mode = icmp eq ptr %recorder, null
  %idle = icmp eq ptr %recorder, %none
  if %lost_mode error recorded
recorded:
  if %idle hold no
hold:  ; whatever happens, what is joined stays
  %tensors_of = call ptr @PySequence_Tuple(ptr %sequence)
  %no_tensors = icmp eq ptr %tensors_of, null
  if %no_tensors error held
held:
  %n = call i64 @PyTuple_Size(ptr %tensors_of)
  %tensors = getelementptr i8, ptr %tensors_of, i64 TUPLE_ITEMS
  %arrays_of = call ptr @PyTuple_New(i64 %n)
  %arrays = getelementptr i8, ptr %arrays_of, i64 TUPLE_ITEMS
  %no_arrays = icmp eq ptr %arrays_of, null
  if %no_arrays lose some
lose:
  call void @Py_DecRef(ptr %tensors_of)
  goto error
some:
  %any = icmp ne i64 %n, 0
  if %any first nothing
nothing:
  call void @Py_DecRef(ptr %tensors_of)
  call void @Py_DecRef(ptr %arrays_of)
  goto no
first:
  %x0 = load ptr, ptr %tensors
  %a0 = call ptr @dense(ptr %x0)
  %unfit = icmp eq ptr %a0, null
  if %unfit nothing place
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
  %over = load i32, ptr %beyond
  %inside = icmp eq i32 %over, 0
  %placed0 = and i1 %within, %has_op
  %placed = and i1 %placed0, %inside
  if %placed sizes nothing
sizes:  ; elements before and behind the dim
  %k = phi i64 [ 0, %place ], [ %k1, %size ]
  %outer = phi i64 [ 1, %place ], [ %outer1, %size ]
  %inner = phi i64 [ %element, %place ], [ %inner1, %size ]
  %k1 = add i64 %k, 1
  %k_more = icmp slt i64 %k, %rank
  if %k_more size look
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
  %more = icmp slt i64 %i, %n
  if %more one counted
one:
  %x = item ptr %tensors %i
  %a = call ptr @dense(ptr %x)
  %no_a = icmp eq ptr %a, null
  if %no_a nothing alike
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
  %j_more = icmp slt i64 %j, %rank
  if %j_more each fitting
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
  %bare = icmp eq i64 %along, 0
  if %bare nothing fits
fits:
  goto look
counted:
  put i64 %total %out_dims [%axis]
  %row = mul i64 %inner, %total
  %bytes = mul i64 %outer, %row
  %small = icmp ule i64 %bytes, MOST_BYTES
  %filled = icmp ne i64 %bytes, 0
  %able = and i1 %small, %filled
  if %able taping nothing
taping:  ; as of an op of one operand; not of kinds b, i, u
  %is_bool = icmp eq i8 %kind, 98
  %is_signed = icmp eq i8 %kind, 105
  %is_unsigned = icmp eq i8 %kind, 117
  %whole = or i1 %is_bool, %is_signed
  %untaped = or i1 %whole, %is_unsigned
  %taped = xor i1 %untaped, true
  %taped64 = zext i1 %taped to i64
  put i64 1 %about 16
  put i64 %taped64 %about 88
  %wants64 = zext i1 %wants to i64
  %decision = call i32 @taping(ptr %about, ptr %about, i64 1, i64 %wants64, i1 false)
  %tape = trunc i32 %decision to i1
  %raised = icmp eq i32 %decision, -2
  if %raised fail asked
asked:
  %by_python = icmp slt i32 %decision, 0
  if %by_python nothing make
make:
  call void @Py_IncRef(ptr %descr)
  %new = word new
  %rank_out32 = trunc i64 %rank_out to i32
  %out = call ptr %new(ptr %ndarray, ptr %descr, i32 %rank_out32, ptr %out_dims, ptr null,
    ptr null, i32 0, ptr null)
  %no_out = icmp eq ptr %out, null
  if %no_out fail copy
copy:
  %data = get ptr %out 16
  goto piece
piece:
  %p = phi i64 [ 0, %copy ], [ %p1, %pieced ]
  %to = phi ptr [ %data, %copy ], [ %to1, %pieced ]
  %p1 = add i64 %p, 1
  %p_more = icmp slt i64 %p, %n
  if %p_more rows copied
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
  %o_more = icmp slt i64 %o, %outer
  if %o_more one_row pieced
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
  %no_y = icmp eq ptr %y, null
  if %no_y lose_out own
lose_out:
  call void @Py_DecRef(ptr %out)
  goto fail
own:
  fill ptr %out %y _a
  if %tape note done
note:
  %op = call ptr @PyTuple_GetItem(ptr %ops, i64 %axis)
  %bad = call i32 @note_join(ptr %y, ptr %op, ptr %tensors, ptr %arrays, i64 %n,
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
}
"""
TEXT = _TEXT.replace("TUPLE_ITEMS", str(TUPLE_ITEMS)).replace("MOST_BYTES", str(MOST_BYTES))

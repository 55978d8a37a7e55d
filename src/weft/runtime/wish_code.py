"""LLVM IR of the Python builtins by which functions of views, cat and stack skip their own checks.

    known(tensor, function, wish, ...) -> Tensor, or None: the long way
    item(tensor, index) -> Tensor, or None
    joined(ops, tensors, dim[, True]) -> Tensor, or None

`known` looks up which op a function (a number) made of a shape and a wish before and runs the op's
native form (tensor_code.py).  A wish is spelt in words: ints, None, `...`, tuples and slices of
these; nothing else is known.  `item` off the tape is NumPy's own view of the value.

`joined` copies what small tensors have: lists and tuples of plain ones of one dtype, contiguous,
that fit and are not empty; else nothing has an effect.  `ops` has by dim what the tape node's op
is.  A fourth argument: the dim is a new one.

A key, i64 words: 0 how many words it has, 1 the op's table, from 2 on the shape, the function and
the wish as spelt.  `tell(block, table, shape, function, wish, ...)` spells one and lists it.

Long because a line of IR says little.
"""

from weft.runtime.ir_text import TUPLE_ITEMS

MOST_BYTES = 16_384  # of a joined result; larger ones lie in memory's own blocks
MOST_WORDS = 32
MOST_KEYS = 4096  # of 8192 places

TEXT = f"""
@keys = internal global [8192 x ptr] zeroinitializer

; an object as words from %at on: the place behind them, or -1
define internal i64 @spell(ptr %x, ptr %words, i64 %at) nounwind {{
entry:
  %beyond = alloca i32
  %class = get ptr %x 8
  %next = add i64 %at, 1
  %full = icmp sge i64 %at, {MOST_WORDS}
  if %full other kinds
other:
  ret i64 -1
kinds:
  %int = word int
  %is_int = icmp eq ptr %class, %int
  if %is_int whole ask_slice
whole:
  %value = call i64 @PyLong_AsLongLongAndOverflow(ptr %x, ptr %beyond)
  %odd = call i64 @odd(i64 %value)
  %back = ashr i64 %odd, 1
  %over = load i32, ptr %beyond
  %inside = icmp eq i32 %over, 0
  %same = icmp eq i64 %back, %value
  %fits = and i1 %inside, %same
  if %fits write other
ask_slice:
  %slice = word slice
  %is_slice = icmp eq ptr %class, %slice
  if %is_slice parts ask_single
ask_single:
  %none = word none
  %dots = word dots
  %is_none = icmp eq ptr %x, %none
  %is_dots = icmp eq ptr %x, %dots
  %single = or i1 %is_none, %is_dots
  %address = ptrtoint ptr %x to i64
  if %single write ask_tuple
ask_tuple:
  %empty = word empty
  %tuple = get ptr %empty 8
  %is_tuple = call i32 @PyType_IsSubtype(ptr %class, ptr %tuple)
  %sized = icmp ne i32 %is_tuple, 0
  if %sized count other
count:
  %n = call i64 @PyTuple_Size(ptr %x)
  %n16 = shl i64 %n, 4
  %head = or i64 %n16, 2
  goto items
parts:
  goto items
items:
  %some = phi i64 [ %n, %count ], [ 3, %parts ]
  %first = phi i64 [ {TUPLE_ITEMS}, %count ], [ 16, %parts ]  ; bytes behind the object's begin
  %kind = phi i64 [ %head, %count ], [ 4, %parts ]
  put i64 %kind %words [%at]
  %object = getelementptr i8, ptr %x, i64 %first
  goto each
each:
  %i = phi i64 [ 0, %items ], [ %i1, %spelt ]
  %place = phi i64 [ %next, %items ], [ %behind, %spelt ]
  %more = icmp slt i64 %i, %some
  if %more one done
one:
  %part = item ptr %object %i
  %behind = call i64 @spell(ptr %part, ptr %words, i64 %place)
  %i1 = add i64 %i, 1
  %bad = icmp slt i64 %behind, 0
  if %bad other spelt
spelt:
  goto each
done:
  ret i64 %place
write:
  %word = phi i64 [ %odd, %whole ], [ %address, %ask_single ]
  put i64 %word %words [%at]
  ret i64 %next
}}

define internal i64 @odd(i64 %value) nounwind {{
  %twice = shl i64 %value, 1
  %odd = or i64 %twice, 1
  ret i64 %odd
}}

; the place in @keys of the key with these words, or of none
define internal ptr @place_of(ptr %words, i64 %n) nounwind {{
entry:
  goto mix
mix:
  %i = phi i64 [ 0, %entry ], [ %i1, %mixed ]
  %hash = phi i64 [ %n, %entry ], [ %hash1, %mixed ]
  %more = icmp slt i64 %i, %n
  if %more mixed begin
mixed:
  %word = item i64 %words %i
  %with = xor i64 %hash, %word
  %times = mul i64 %with, -7046029254386353131
  %high = lshr i64 %times, 32
  %hash1 = xor i64 %times, %high
  %i1 = add i64 %i, 1
  goto mix
begin:
  %first = and i64 %hash, 8191
  goto probe
probe:
  %p = phi i64 [ %first, %begin ], [ %p2, %differs ]
  %at = getelementptr ptr, ptr @keys, i64 %p
  %key = load ptr, ptr %at
  %free = icmp eq ptr %key, null
  if %free found taken
found:
  ret ptr %at
taken:
  %length = load i64, ptr %key
  %long = icmp eq i64 %length, %n
  %its = getelementptr i64, ptr %key, i64 2
  if %long compare differs
differs:
  %p1 = add i64 %p, 1
  %p2 = and i64 %p1, 8191
  goto probe
compare:
  %j = phi i64 [ 0, %taken ], [ %j1, %one ]
  %j_more = icmp slt i64 %j, %n
  if %j_more one found
one:
  %a = item i64 %words %j
  %b = item i64 %its %j
  %j1 = add i64 %j, 1
  %alike = icmp eq i64 %a, %b
  if %alike compare differs
}}

; objects as words from %at on: the place behind the last, or -1
define internal i64 @spell_all(ptr %objects, i64 %n, ptr %words, i64 %from) nounwind {{
entry:
  goto next
next:
  %i = phi i64 [ 0, %entry ], [ %i1, %one ]
  %at = phi i64 [ %from, %entry ], [ %behind, %one ]
  %bad = icmp slt i64 %at, 0
  %all = icmp sge i64 %i, %n
  %over = or i1 %bad, %all
  if %over done one
one:
  %x = item ptr %objects %i
  %behind = call i64 @spell(ptr %x, ptr %words, i64 %at)
  %i1 = add i64 %i, 1
  goto next
done:
  ret i64 %at
}}

define ptr @weft_wish_tell(ptr %self, ptr %args, i64 %n) nounwind {{
  %first = load ptr, ptr %args
  %block = call ptr @PyLong_AsVoidPtr(ptr %first)
  %words = getelementptr i64, ptr %block, i64 2
  %second = item ptr %args 1
  %table = call ptr @PyLong_AsVoidPtr(ptr %second)
  %objects = getelementptr ptr, ptr %args, i64 2
  %count = sub i64 %n, 2
  %length = call i64 @spell_all(ptr %objects, i64 %count, ptr %words, i64 0)
  %unspelt = icmp slt i64 %length, 0
  if %unspelt no list
list:
  store i64 %length, ptr %block
  put ptr %table %block 8
  %place = call ptr @place_of(ptr %words, i64 %length)
  %old = load ptr, ptr %place
  %new = icmp eq ptr %old, null
  if %new store look
store:
  store ptr %block, ptr %place
  goto yes
look:  ; an op that was made again has another table
  %its = item ptr %old 1
  %known = icmp eq ptr %its, %table
  if %known no renew
renew:
  put ptr %table %old 8
  goto yes
yes:
  %true = word true
  call void @Py_IncRef(ptr %true)
  ret ptr %true
no:
  %false = word false
  call void @Py_IncRef(ptr %false)
  ret ptr %false
}}

; `known` of a plain tensor; a %function that is not 0 stands before the wish
define internal ptr @view_of(ptr %args, ptr %wish, i64 %n, i64 %function) nounwind {{
entry:
  %words = alloca [{MOST_WORDS + 1} x i64], align 64
  %none = word none
  %x = load ptr, ptr %args
  %plain = call i1 @is_plain(ptr %x)
  if %plain sized nothing
sized:
  %ghost = slot %x _ghost
  %valued = icmp eq ptr %ghost, %none
  if %valued value promise
value:
  %a = slot %x _a
  %ndarray = word ndarray
  %is_array = call i1 @is_a(ptr %a, ptr %ndarray)
  if %is_array shape nothing
shape:
  %rank32 = get i32 %a 24
  %rank = sext i32 %rank32 to i64
  %dims = get ptr %a 32
  %rank16 = shl i64 %rank, 4
  %head = or i64 %rank16, 2
  store i64 %head, ptr %words
  %many = icmp sge i64 %rank, {MOST_WORDS - 2}
  if %many nothing axes
axes:
  %k = phi i64 [ 0, %shape ], [ %k1, %axis ]
  %k1 = add i64 %k, 1
  %more = icmp slt i64 %k, %rank
  if %more axis shaped
axis:
  %d = item i64 %dims %k
  %odd = call i64 @odd(i64 %d)
  put i64 %odd %words [%k1]
  goto axes
promise:
  %ghost_class = word ghost_class
  %is_ghost = call i1 @is_a(ptr %ghost, ptr %ghost_class)
  if %is_ghost promised nothing
promised:
  %its_shape = slot %ghost ghost.shape
  %behind = call i64 @spell(ptr %its_shape, ptr %words, i64 0)
  %unspelt = icmp slt i64 %behind, 0
  if %unspelt nothing shaped
shaped:
  %at = phi i64 [ %k1, %axes ], [ %behind, %promised ]
  put i64 %function %words [%at]
  %named = icmp ne i64 %function, 0
  %one = zext i1 %named to i64
  %from = add i64 %at, %one
  %length = call i64 @spell_all(ptr %wish, i64 %n, ptr %words, i64 %from)
  %bad = icmp slt i64 %length, 0
  if %bad nothing search
search:
  %place = call ptr @place_of(ptr %words, i64 %length)
  %key = load ptr, ptr %place
  %new = icmp eq ptr %key, null
  if %new nothing run
run:
  %table = item ptr %key 1
  %y = call ptr @tensor_call(ptr %table, ptr %args, i64 1, i1 false)
  ret ptr %y
nothing:
  call void @Py_IncRef(ptr %none)
  ret ptr %none
}}

define ptr @weft_wish_known(ptr %self, ptr %args, i64 %n) nounwind {{
  %wish = getelementptr ptr, ptr %args, i64 1
  %count = sub i64 %n, 1
  %y = call ptr @view_of(ptr %args, ptr %wish, i64 %count, i64 0)
  ret ptr %y
}}

; whether NumPy reads a part of an index as torch does, but for errors
define internal i1 @plain_part(ptr %x) nounwind {{
entry:
  %beyond = alloca i32
  %class = get ptr %x 8
  %int = word int
  %none = word none
  %dots = word dots
  %slice = word slice
  %is_int = icmp eq ptr %class, %int
  %is_none = icmp eq ptr %x, %none
  %is_dots = icmp eq ptr %x, %dots
  %one = or i1 %is_int, %is_none
  %single = or i1 %one, %is_dots
  %is_slice = icmp eq ptr %class, %slice
  if %is_slice sliced done
sliced:
  %step = get ptr %x 32
  %no_step = icmp eq ptr %step, %none
  %step_int = call i1 @is_a(ptr %step, ptr %int)
  if %step_int number done
number:
  %value = call i64 @PyLong_AsLongLongAndOverflow(ptr %step, ptr %beyond)
  %forward = icmp sgt i64 %value, 0
  goto done
done:
  %fine = phi i1 [ %single, %entry ], [ %no_step, %sliced ], [ %forward, %number ]
  ret i1 %fine
}}

define ptr @weft_wish_item(ptr %self, ptr %args, i64 %n) nounwind {{
entry:
  %none = word none
  %true = word true
  %false = word false
  %two = icmp eq i64 %n, 2
  if %two given nothing
given:
  %x = load ptr, ptr %args
  %index = item ptr %args 1
  %plain = call i1 @is_plain(ptr %x)
  if %plain modes nothing
modes:
  %name_recorder = word recorder
  %recorder = call ptr @mode(ptr %name_recorder, ptr %none)
  %idle = icmp eq ptr %recorder, %none
  %lost_mode = icmp eq ptr %recorder, null
  if %lost_mode error recorded
error:
  ret ptr null
recorded:
  if %idle asks by_op
asks:
  %name_grad = word grad
  %grad = call ptr @mode(ptr %name_grad, ptr %true)
  %graded = icmp ne ptr %grad, %false
  %rg = slot %x _rg
  %untaped = icmp eq ptr %rg, %false
  %off = xor i1 %graded, true
  %free = or i1 %untaped, %off
  if %free valued by_op
by_op:
  %wish = getelementptr ptr, ptr %args, i64 1
  %known = call ptr @view_of(ptr %args, ptr %wish, i64 1, i64 1)
  ret ptr %known
valued:
  %a = slot %x _a
  %ndarray = word ndarray
  %is_array = call i1 @is_a(ptr %a, ptr %ndarray)
  %empty = word empty
  %tuple = get ptr %empty 8
  %several = call i1 @is_a(ptr %index, ptr %tuple)
  if %is_array parts nothing
parts:
  if %several count alone
count:
  %some = call i64 @PyTuple_Size(ptr %index)
  %items = getelementptr i8, ptr %index, i64 {TUPLE_ITEMS}
  goto each
each:
  %i = phi i64 [ 0, %count ], [ %i1, %part ]
  %more = icmp slt i64 %i, %some
  if %more part view
part:
  %this = item ptr %items %i
  %i1 = add i64 %i, 1
  %plain_this = call i1 @plain_part(ptr %this)
  if %plain_this each nothing
alone:
  %plain_index = call i1 @plain_part(ptr %index)
  if %plain_index view nothing
view:
  call void @Py_IncRef(ptr %a)
  %got = call ptr @PyObject_GetItem(ptr %a, ptr %index)
  %failed = icmp eq ptr %got, null
  if %failed refused seen
refused:  ; to be said in torch's words
  call void @PyErr_Clear()
  call void @Py_DecRef(ptr %a)
  goto nothing
seen:
  %is_view = call i1 @is_a(ptr %got, ptr %ndarray)
  if %is_view wrap single
single:  ; a number of NumPy's, where `...` behind the index asks for a view
  call void @Py_DecRef(ptr %got)
  if %several own_index pack
pack:
  %made = call ptr @PyTuple_New(i64 1)
  %unmade = icmp eq ptr %made, null
  if %unmade refused packed
packed:
  call void @Py_IncRef(ptr %index)
  %set = call i32 @PyTuple_SetItem(ptr %made, i64 0, ptr %index)
  goto join
own_index:
  call void @Py_IncRef(ptr %index)
  goto join
join:
  %whole = phi ptr [ %index, %own_index ], [ %made, %packed ]
  %rest = word dots_too
  %full = call ptr @PySequence_Concat(ptr %whole, ptr %rest)
  call void @Py_DecRef(ptr %whole)
  %no_full = icmp eq ptr %full, null
  if %no_full refused again
again:
  %element = call ptr @PyObject_GetItem(ptr %a, ptr %full)
  call void @Py_DecRef(ptr %full)
  %lost = icmp eq ptr %element, null
  if %lost refused wrap
wrap:
  %value = phi ptr [ %got, %seen ], [ %element, %again ]
  call void @Py_DecRef(ptr %a)
  %y = call ptr @fresh()
  %no_y = icmp eq ptr %y, null
  if %no_y lose own
lose:
  call void @Py_DecRef(ptr %value)
  ret ptr null
own:
  fill ptr %value %y _a
  %unlinked = call i32 @link(ptr %y, ptr %x, i1 %graded)
  %is_unlinked = icmp ne i32 %unlinked, 0
  if %is_unlinked drop done
drop:
  call void @Py_DecRef(ptr %y)
  ret ptr null
done:
  ret ptr %y
nothing:
  call void @Py_IncRef(ptr %none)
  ret ptr %none
}}

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
}}

; y is the op of these tensors; not 0 with an exception
define internal i32 @note_join(ptr %y, ptr %op, ptr %tensors, ptr %arrays, i64 %n,
    i1 %stacked) nounwind {{
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
}}

define ptr @weft_joined(ptr %self, ptr %args, i64 %given) nounwind {{
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
  %tensors = getelementptr i8, ptr %tensors_of, i64 {TUPLE_ITEMS}
  %arrays_of = call ptr @PyTuple_New(i64 %n)
  %arrays = getelementptr i8, ptr %arrays_of, i64 {TUPLE_ITEMS}
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
  %small = icmp ule i64 %bytes, {MOST_BYTES}
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
}}
"""

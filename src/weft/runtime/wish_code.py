"""LLVM IR of the Python builtins by which functions of views skip their own checks.

    known(tensor, function, wish, ...) -> Tensor, or None: the long way
    parts(tensor, function, wish, ...) -> several, a tuple, or None
    item(tensor, index) -> Tensor, or None
    made(function, wish, ...) -> a new Tensor, or None
    made_like(tensor, function, wish, ...) -> a new one, or None

`known` looks up which op a function (a number) made of a shape and a wish before and runs the op's
native form (tensor_code.py).  A wish is spelt in words: numbers, None, `...`, dtypes, devices and
strings (by their address), tuples and slices of these; nothing else is known.  `item` off the tape
is NumPy's own view of the value.  `made` and `made_like` run what makes a tensor of a wish, and of
the shape and dtype of a contiguous tensor, without an op: not where somebody records.

A key, i64 words: 0 how many words it has, 1 the op's table, from 2 on the shape, the function and
the wish as spelt; of `made` there is None for a shape, of `made_like` the address of NumPy's dtype
lies behind it.  `tell(block, table, shape, function, wish, ...)` spells one and lists it.
"""

from weft.runtime.ir_text import TUPLE_ITEMS

MOST_WORDS = 32
MOST_KEYS = 4096  # of 8192 places
SHAPE = 1 << 20  # the function whose view of a shape is its Size

TEXT = f"""
@keys = internal global [8192 x ptr] zeroinitializer
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)

; an object as words from %at on: the place behind them, or -1
define internal i64 @spell(ptr %x, ptr %words, i64 %at) nounwind {{
entry:
  %beyond = alloca i32
  %class = get ptr %x 8
  %next = add i64 %at, 1
  if %at sge {MOST_WORDS} other kinds
other:
  ret i64 -1
kinds:
  %int = word int
  if %class is %int whole ask_slice
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
  if %class is %slice parts ask_single
ask_single:
  %none = word none
  %dots = word dots
  %bool = word bool
  %is_none = icmp eq ptr %x, %none
  %is_dots = icmp eq ptr %x, %dots
  %is_bool = icmp eq ptr %class, %bool
  %str = word str
  %dtype = word dtype_class
  %device = word device_class
  %is_str = icmp eq ptr %class, %str
  %is_dtype = icmp eq ptr %class, %dtype
  %is_device = icmp eq ptr %class, %device
  %either = or i1 %is_none, %is_dots
  %of_two = or i1 %either, %is_bool
  %of_them = or i1 %is_str, %is_dtype
  %of_those = or i1 %of_them, %is_device
  %single = or i1 %of_two, %of_those
  %address = ptrtoint ptr %x to i64
  if %single write ask_float
ask_float:
  %float = word float
  if %class is %float real ask_tuple
real:
  %double = call double @PyFloat_AsDouble(ptr %x)
  put i64 6 %words [%at]
  put double %double %words [%next]
  %after = add i64 %next, 1
  ret i64 %after
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
  if %i slt %some one done
one:
  %part = item ptr %object %i
  %behind = call i64 @spell(ptr %part, ptr %words, i64 %place)
  %i1 = add i64 %i, 1
  if %behind slt 0 other spelt
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
  if %i slt %n mixed begin
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
  if %key is null found taken
found:
  ret ptr %at
taken:
  %length = load i64, ptr %key
  %its = getelementptr i64, ptr %key, i64 2
  if %length eq %n compare differs
differs:
  %p1 = add i64 %p, 1
  %p2 = and i64 %p1, 8191
  goto probe
compare:
  %j = phi i64 [ 0, %taken ], [ %j1, %one ]
  if %j slt %n one found
one:
  %a = item i64 %words %j
  %b = item i64 %its %j
  %j1 = add i64 %j, 1
  if %a eq %b compare differs
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
  if %length slt 0 no list
list:
  store i64 %length, ptr %block
  put ptr %table %block 8
  %place = call ptr @place_of(ptr %words, i64 %length)
  %old = load ptr, ptr %place
  if %old is null store look
store:
  store ptr %block, ptr %place
  goto yes
look:  ; an op that was made again has another table
  %its = item ptr %old 1
  if %its is %table no renew
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

; nothing is known any more
define ptr @weft_wish_forget(ptr %self, ptr %args, i64 %n) nounwind {{
  call void @llvm.memset.p0.i64(ptr @keys, i8 0, i64 65536, i1 false)
  %none = word none
  call void @Py_IncRef(ptr %none)
  ret ptr %none
}}

; a tensor's shape as words: the place behind them, or -1
define internal i64 @spell_shape(ptr %x, ptr %words) nounwind {{
entry:
  %none = word none
  %ghost = slot %x _ghost
  if %ghost is %none value promise
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
  if %k slt %rank axis shaped
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
  ret i64 %behind
nothing:
  ret i64 -1
shaped:
  ret i64 %k1
}}

; the key of a plain tensor and a wish, or null; a %function that is not 0 stands before the wish
define internal ptr @key_of(ptr %x, ptr %wish, i64 %n, i64 %function) nounwind {{
entry:
  %words = alloca [{MOST_WORDS + 2} x i64], align 64
  %plain = call i1 @is_plain(ptr %x)
  if %plain sized nothing
sized:
  %at = call i64 @spell_shape(ptr %x, ptr %words)
  if %at slt 0 nothing shaped
shaped:
  put i64 %function %words [%at]
  %named = icmp ne i64 %function, 0
  %one = zext i1 %named to i64
  %from = add i64 %at, %one
  %length = call i64 @spell_all(ptr %wish, i64 %n, ptr %words, i64 %from)
  if %length slt 0 nothing search
search:
  %place = call ptr @place_of(ptr %words, i64 %length)
  %key = load ptr, ptr %place
  ret ptr %key
nothing:
  ret ptr null
}}

; `known` of a plain tensor
define internal ptr @view_of(ptr %args, ptr %wish, i64 %n, i64 %function) nounwind {{
entry:
  %x = load ptr, ptr %args
  %key = call ptr @key_of(ptr %x, ptr %wish, i64 %n, i64 %function)
  if %key is null nothing run
run:
  %table = item ptr %key 1
  %y = call ptr @tensor_call(ptr %table, ptr %args, i64 1, i1 false)
  ret ptr %y
nothing:
  %none = word none
  call void @Py_IncRef(ptr %none)
  ret ptr %none
}}

; the views that a function of several ops gives, a tuple; or None
define ptr @weft_wish_parts(ptr %self, ptr %args, i64 %n) nounwind {{
entry:
  %none = word none
  %x = load ptr, ptr %args
  %wish = getelementptr ptr, ptr %args, i64 1
  %count = sub i64 %n, 1
  %key = call ptr @key_of(ptr %x, ptr %wish, i64 %count, i64 0)
  if %key is null nothing modes
modes:
  %name_recorder = word recorder
  %recorder = call ptr @mode(ptr %name_recorder, ptr %none)
  if %recorder is %none begin recorded
recorded:
  if %recorder is null error nothing
error:
  ret ptr null
begin:
  %tables = item ptr %key 1
  %some = load i64, ptr %tables
  %all = call ptr @PyTuple_New(i64 %some)
  if %all is null error next
next:
  %i = phi i64 [ 0, %begin ], [ %i1, %made ]
  %i1 = add i64 %i, 1
  if %i slt %some one done
one:
  %table = item ptr %tables %i1
  %y = call ptr @tensor_call(ptr %table, ptr %args, i64 1, i1 false)
  %failed = icmp eq ptr %y, null
  %unknown = icmp eq ptr %y, %none
  %bad = or i1 %failed, %unknown
  if %bad drop made
made:
  %set = call i32 @PyTuple_SetItem(ptr %all, i64 %i, ptr %y)
  goto next
drop:
  call void @Py_DecRef(ptr %all)
  ret ptr %y
done:
  ret ptr %all
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

; what makes a tensor of the words and a wish behind them; or None
define internal ptr @make(ptr %words, i64 %at, ptr %wish, i64 %n) nounwind {{
entry:
  %none = word none
  %length = call i64 @spell_all(ptr %wish, i64 %n, ptr %words, i64 %at)
  if %length slt 0 nothing modes
modes:
  %empty = word empty
  %name_devices = word devices
  %devices = call ptr @mode(ptr %name_devices, ptr %empty)
  if %devices is null error placed
error:
  ret ptr null
placed:
  if %devices is %empty search nothing
search:
  %place = call ptr @place_of(ptr %words, i64 %length)
  %key = load ptr, ptr %place
  if %key is null nothing run
run:
  %table = item ptr %key 1
  %y = call ptr @tensor_call(ptr %table, ptr null, i64 0, i1 false)
  ret ptr %y
nothing:
  call void @Py_IncRef(ptr %none)
  ret ptr %none
}}

define ptr @weft_wish_made(ptr %self, ptr %args, i64 %n) nounwind {{
  %words = alloca [{MOST_WORDS + 2} x i64], align 64
  %none = word none
  store ptr %none, ptr %words
  %y = call ptr @make(ptr %words, i64 1, ptr %args, i64 %n)
  ret ptr %y
}}

define ptr @weft_wish_made_like(ptr %self, ptr %args, i64 %n) nounwind {{
entry:
  %words = alloca [{MOST_WORDS + 2} x i64], align 64
  %x = load ptr, ptr %args
  %a = call ptr @dense(ptr %x)
  if %a is null nothing dense
dense:
  %at = call i64 @spell_shape(ptr %x, ptr %words)
  if %at slt 0 nothing shaped
shaped:
  %descr = get i64 %a 56
  %odd = call i64 @odd(i64 %descr)
  put i64 %odd %words [%at]
  %next = add i64 %at, 1
  %wish = getelementptr i64, ptr %args, i64 1
  %count = sub i64 %n, 1
  %y = call ptr @make(ptr %words, i64 %next, ptr %wish, i64 %count)
  ret ptr %y
nothing:
  %none = word none
  call void @Py_IncRef(ptr %none)
  ret ptr %none
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
  if %class is %slice sliced done
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
  if %n eq 2 given nothing
given:
  %x = load ptr, ptr %args
  %index = item ptr %args 1
  %plain = call i1 @is_plain(ptr %x)
  if %plain modes nothing
modes:
  %name_recorder = word recorder
  %recorder = call ptr @mode(ptr %name_recorder, ptr %none)
  if %recorder is null error recorded
error:
  ret ptr null
recorded:
  if %recorder is %none asks by_op
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
  if %i slt %some part view
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
  if %got is null refused seen
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
  if %made is null refused packed
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
  if %full is null refused again
again:
  %element = call ptr @PyObject_GetItem(ptr %a, ptr %full)
  call void @Py_DecRef(ptr %full)
  if %element is null refused wrap
wrap:
  %value = phi ptr [ %got, %seen ], [ %element, %again ]
  call void @Py_DecRef(ptr %a)
  %y = call ptr @fresh()
  if %y is null lose own
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
"""

; The LLVM IR of the builtins, in the short forms of ir_text.py. A section is what a module asks for by
; `ir_text.section`: launch and builtin (builtin_code.py), ops on arrays and tensors (layout_code.py), views,
; joins, facts and made tensors (wish_code.py), matched calls (match_code.py), a module's attributes and call
; (module_calls.py), small draws (random_code.py).

== launch
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

== builtin
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

== layout
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
  %real = icmp ne i64 %kind, 2
  %able = and i1 %is_pointwise, %planned
  %able_too = and i1 %able, %real
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

== tensor
declare i64 @llvm.ctpop.i64(i64)
declare i64 @llvm.cttz.i64(i64, i1)
declare i64 @llvm.smin.i64(i64, i64)
declare i64 @llvm.smax.i64(i64, i64)

define internal void @release(ptr %objects, i64 %n) nounwind {
entry:
  goto next
next:
  %i = phi i64 [ 0, %entry ], [ %i1, %one ]
  if %i slt %n one done
one:
  %x = item ptr %objects %i
  call void @Py_DecRef(ptr %x)
  %i1 = add i64 %i, 1
  goto next
done:
  ret void
}

; 1 for True, 0 for False, -1 for anything else, as for an exception
define internal i32 @truth(ptr %x) nounwind {
entry:
  if %x is null odd given
odd:
  call void @PyErr_Clear()
  ret i32 -1
given:
  call void @Py_DecRef(ptr %x)
  %true = word true
  %false = word false
  %yes = icmp eq ptr %x, %true
  %no = icmp eq ptr %x, %false
  %one = select i1 %no, i32 0, i32 -1
  %r = select i1 %yes, i32 1, i32 %one
  ret i32 %r
}

@thread = internal global i64 0
@modes = internal global ptr null

; a mode of this thread, borrowed, or its default; null with an exception. The dictionary of the
; thread that asked last is kept: `threading.local` takes three times as long to find it
define internal ptr @mode(ptr %name, ptr %default) nounwind {
entry:
  goto again
again:
  %here = call ptr @PyThreadState_Get()
  %id = call i64 @PyThreadState_GetID(ptr %here)
  %last = load i64, ptr @thread
  if %id eq %last look find
find:
  %state = word state
  %name_dict = word __dict__
  %found = call ptr @PyObject_GetAttr(ptr %state, ptr %name_dict)
  if %found is null error keep
error:
  ret ptr null
keep:
  %old = load ptr, ptr @modes
  store ptr %found, ptr @modes
  store i64 %id, ptr @thread
  call void @Py_DecRef(ptr %old)
  goto again
look:
  %dict = load ptr, ptr @modes
  %set = call ptr @PyDict_GetItemWithError(ptr %dict, ptr %name)
  %unset = icmp eq ptr %set, null
  %is = select i1 %unset, ptr %default, ptr %set
  ret ptr %is
}

; a tensor whose places hold what a new one's do, its value is not there yet; null with an exception
define internal ptr @fresh() nounwind {
entry:
  %object_new = word object_new
  %tensor = word tensor
  %empty = word empty
  %y = call ptr %object_new(ptr %tensor, ptr %empty, ptr null)
  if %y is null error fill
error:
  ret ptr null
fill:
  %none = word none
  %false = word false
  give ptr %none %y _ghost
  give ptr %none %y _st
  give ptr %none %y _base
  give ptr %none %y _fn
  give ptr %false %y _rg
  give ptr %false %y _held
  ret ptr %y
}

; a tensor's value, for Python; of a ghost `promised` gives it
define ptr @weft_value_get(ptr %x, ptr %nothing) nounwind {
entry:
  %a = slot %x _a
  if %a is null ask there
ask:
  %promised = word promised
  %answer = call ptr (ptr, ...) @PyObject_CallFunctionObjArgs(ptr %promised, ptr %x, ptr null)
  ret ptr %answer
there:
  call void @Py_IncRef(ptr %a)
  ret ptr %a
}

define i32 @weft_value_set(ptr %x, ptr %value, ptr %nothing) nounwind {
entry:
  %old = slot %x _a
  call void @Py_IncRef(ptr %value)
  fill ptr %value %x _a
  call void @Py_DecRef(ptr %old)
  ret i32 0
}

define ptr @weft_tensor_fresh(ptr %self, ptr %nothing) nounwind {
  %y = call ptr @fresh()
  ret ptr %y
}

; a new Storage; null with an exception
define internal ptr @memory() nounwind {
entry:
  %object_new = word object_new
  %storage = word storage
  %empty = word empty
  %st = call ptr %object_new(ptr %storage, ptr %empty, ptr null)
  if %st is null made fill
fill:
  %none = word none
  %zero = word zero
  %room = word room_of
  give ptr %none %st views
  give ptr %zero %st version
  give ptr %room %st room
  goto made
made:
  ret ptr %st
}

define internal i1 @is_plain(ptr %x) nounwind {
entry:
  %class = get ptr %x 8
  %tensor = word tensor
  %parameter = word parameter
  %is_tensor = icmp eq ptr %class, %tensor
  %is_parameter = icmp eq ptr %class, %parameter
  %plain = or i1 %is_tensor, %is_parameter
  ret i1 %plain
}

; whether an object has a tensor's places
define internal i1 @is_handle(ptr %x) nounwind {
entry:
  %plain = call i1 @is_plain(ptr %x)
  if %plain yes ask
yes:
  ret i1 true
ask:
  %class = get ptr %x 8
  %handle = word handle
  %below = call i32 @PyType_IsSubtype(ptr %class, ptr %handle)
  %is = icmp ne i32 %below, 0
  ret i1 %is
}

; dispatch.link_view: not 0 with an exception
define internal i32 @link(ptr %y, ptr %x, i1 %graded) nounwind {
entry:
  %beyond = alloca i32
  %none = word none
  %old = field %x _st
  if %old not %none stored first
fail0:
  ret i32 -1
first:
  call void @Py_DecRef(ptr %old)
  %made = call ptr @memory()
  if %made is null fail0 own
own:
  renew ptr %made %x _st
  goto stored
stored:
  %st = phi ptr [ %old, %entry ], [ %made, %own ]
  renew ptr %st %y _st
  %above = field %x _base
  %whole = icmp eq ptr %above, %none
  %base = select i1 %whole, ptr %x, ptr %above
  renew ptr %base %y _base
  call void @Py_DecRef(ptr %above)  ; y holds it now, or x is the caller's
  if %graded watched done
fail1:
  call void @Py_DecRef(ptr %st)
  ret i32 -1
watched:
  %is_base = call i1 @is_handle(ptr %base)
  if %is_base placed done
placed:
  %fn = field %base _fn
  %rg = field %base _rg
  %wants = call i32 @truth(ptr %rg)
  call void @Py_DecRef(ptr %fn)
  %unmade_here = icmp eq ptr %fn, %none
  %leaf = icmp eq i32 %wants, 1
  %still = and i1 %unmade_here, %leaf
  if %still done listed
listed:
  %class = get ptr %st 8
  %storage = word storage
  if %class is %storage open call
open:
  %views = field %st views
  if %views is %none begin sized
begin:  ; the first one
  call void @Py_DecRef(ptr %views)
  %list = call ptr @PyList_New(i64 1)
  if %list is null fail1 first_ref
first_ref:
  %ref1 = call ptr @PyWeakref_NewRef(ptr %y, ptr null)
  if %ref1 is null unlist hang1
unlist:
  call void @Py_DecRef(ptr %list)
  goto fail1
hang1:
  %set1 = call i32 @PyList_SetItem(ptr %list, i64 0, ptr %ref1)
  renew ptr %list %st views
  call void @Py_DecRef(ptr %list)
  goto done
sized:
  %count = call i64 @PyList_Size(ptr %views)
  %last = sub i64 %count, 1
  if %count slt 0 unsized long
long:
  if %count eq 0 ask seen
seen:
  %last_ref = call ptr @PyList_GetItem(ptr %views, i64 %last)
  call void @Py_IncRef(ptr %last_ref)
  %last_view = call ptr @PyObject_CallNoArgs(ptr %last_ref)
  call void @Py_DecRef(ptr %last_ref)
  if %last_view is null unsized alive
unsized:
  call void @Py_DecRef(ptr %views)
  goto fail1
alive:
  call void @Py_DecRef(ptr %last_view)
  if %last_view is %none again ask
again:  ; the last one's place, as in a loop
  %ref = call ptr @PyWeakref_NewRef(ptr %y, ptr null)
  if %ref is null unsized hang
hang:
  %bad_set = call i32 @PyList_SetItem(ptr %views, i64 %last, ptr %ref)
  goto noted
noted:
  %bad = phi i32 [ %bad_set, %hang ], [ %bad_add, %add ]
  call void @Py_DecRef(ptr %views)
  %is_bad = icmp ne i32 %bad, 0
  if %is_bad fail1 done
ask:
  %room = slot %st room
  %limit = call i64 @PyLong_AsLongLongAndOverflow(ptr %room, ptr %beyond)
  if %count slt %limit append crowded
append:  ; several that live
  %more_ref = call ptr @PyWeakref_NewRef(ptr %y, ptr null)
  if %more_ref is null unsized add
add:
  %bad_add = call i32 @PyList_Append(ptr %views, ptr %more_ref)
  call void @Py_DecRef(ptr %more_ref)
  goto noted
crowded:
  call void @Py_DecRef(ptr %views)
  goto call
call:
  %name_add = word add_view
  %answer = call ptr (ptr, ptr, ...) @PyObject_CallMethodObjArgs(ptr %st, ptr %name_add, ptr %y,
    ptr null)
  goto asked
asked:
  if %answer is null fail1 answered
answered:
  call void @Py_DecRef(ptr %answer)
  goto done
done:
  call void @Py_DecRef(ptr %st)
  ret i32 0
}

; whether a call's result gets a tape node (bit 0) and is made with gradients on (bit 1, where that
; was asked); -1: Python has a say, -2: an exception
define internal i32 @taping(ptr %table, ptr %e, i64 %n, i64 %wants, i1 %is_view) nounwind {
entry:
  if %wants ne 0 rules ask
rules:
  if %table is null python known
python:
  ret i32 -1
known:
  %differentiable64 = item i64 %table 2
  %differentiable = icmp ne i64 %differentiable64, 0
  %tape64 = item i64 %e 11
  %floats = icmp ne i64 %tape64, 0
  %both = and i1 %differentiable, %floats
  goto ask
ask:
  %would = phi i1 [ false, %entry ], [ %both, %known ]
  %kind = phi i64 [ 0, %entry ], [ %tape64, %known ]
  %matters = or i1 %would, %is_view
  if %matters mode plain
plain:
  ret i32 0
mode:
  %name_grad = word grad
  %true = word true
  %grad = call ptr @mode(ptr %name_grad, ptr %true)
  call void @Py_IncRef(ptr %grad)
  %grad32 = call i32 @truth(ptr %grad)
  %unsaid = icmp slt i32 %grad32, 0
  if %unsaid python said
said:
  %is_graded = icmp ne i32 %grad32, 0
  %noting = and i1 %is_graded, %would
  if %noting able untaped
untaped:
  %bits = shl i32 %grad32, 1
  ret i32 %bits
able:
  %most = item i64 %table 13
  %few = icmp sle i64 %n, %most
  %simple = icmp eq i64 %kind, 1
  %fine = and i1 %few, %simple
  if %fine watch python
watch:
  %nodes = word node
  %name_watch = word watch
  %watcher = call ptr @PyObject_GetAttr(ptr %nodes, ptr %name_watch)
  if %watcher is null error watching
error:
  ret i32 -2
watching:
  call void @Py_DecRef(ptr %watcher)
  %none = word none
  if %watcher is %none taped python
taped:
  ret i32 3
}

; a node of an op with what all begin with; null with an exception
define internal ptr @new_node(ptr %op) nounwind {
entry:
  %none = word none
  %object_new = word object_new
  %empty = word empty
  %class = word node
  %node = call ptr %object_new(ptr %class, ptr %empty, ptr null)
  if %node is null done begun
begun:
  give ptr %op %node op
  give ptr %none %node hooks
  give ptr %none %node post
  give ptr %none %node line
  goto done
done:
  ret ptr %node
}

; the node gets its number and is y's, which takes the caller's reference; not 0 with an exception
define internal i32 @end_node(ptr %node, ptr %y) nounwind {
entry:
  %sequence = word sequence
  %seq = call ptr @PyIter_Next(ptr %sequence)
  if %seq is null done whole
whole:
  fill ptr %seq %node seq
  renew ptr %node %y _fn
  %true = word true
  renew ptr %true %y _rg
  goto done
done:
  %failed = phi i32 [ -1, %entry ], [ 0, %whole ]
  call void @Py_DecRef(ptr %node)
  ret i32 %failed
}

; dispatch.record of up to three tensors and numbers (bits): not 0 with an exception; y has its
; value, or it is promised
define internal i32 @record(ptr %y, ptr %args, i64 %n, i64 %wants, i64 %numbers, ptr %table,
    ptr %e, i1 %promised) nounwind {
entry:
  %none = word none
  %empty = word empty
  %op = item ptr %table 1
  %node = call ptr @new_node(ptr %op)
  if %node is null fail0 begun
fail0:
  ret i32 -1
fail:
  call void @Py_DecRef(ptr %node)
  ret i32 -1
begun:
  %edges = call ptr @PyTuple_New(i64 %n)
  if %edges is null fail edged
edged:
  fill ptr %edges %node edges
  goto next_edge
next_edge:
  %i = phi i64 [ 0, %edged ], [ %i1, %set_edge ]
  if %i slt %n edge save
edge:
  %x = item ptr %args %i
  %shifted = lshr i64 %wants, %i
  %bit = and i64 %shifted, 1
  if %bit ne 0 flows stops
flows:
  %fn = field %x _fn
  goto end
end:
  if %fn is %none leaves set_edge
leaves:
  call void @Py_IncRef(ptr %x)
  call void @Py_DecRef(ptr %fn)
  goto set_edge
stops:
  call void @Py_IncRef(ptr %none)
  goto set_edge
set_edge:
  %target = phi ptr [ %fn, %end ], [ %x, %leaves ], [ %none, %stops ]
  %e_set = call i32 @PyTuple_SetItem(ptr %edges, i64 %i, ptr %target)
  %i1 = add i64 %i, 1
  goto next_edge
save:
  %first_wants = and i64 %wants, 7
  %keep_word = add i64 %first_wants, 4
  %may_keep = item i64 %table %keep_word
  %above = shl i64 -1, %n
  %others = or i64 %above, %numbers
  %below = xor i64 %others, -1
  %keep = and i64 %may_keep, %below
  %apart = or i64 %keep, %numbers
  %metas = item ptr %e 10
  %result_too = item i64 %table 3
  %keeps = icmp ne i64 %apart, 0
  if %keeps some bare
bare:
  call void @Py_IncRef(ptr %metas)
  goto saved
some:
  %mixed = call ptr @PyTuple_New(i64 %n)
  if %mixed is null fail saved
saved:
  %kept = phi ptr [ %metas, %bare ], [ %mixed, %some ]
  fill ptr %kept %node saved
  %values = call i64 @llvm.ctpop.i64(i64 %keep)
  %count = add i64 %values, %result_too
  if %count eq 0 unversioned versioned
unversioned:
  call void @Py_IncRef(ptr %empty)
  goto versions
versioned:
  %several = call ptr @PyTuple_New(i64 %count)
  if %several is null fail versions
versions:
  %counts = phi ptr [ %empty, %unversioned ], [ %several, %versioned ]
  fill ptr %counts %node versions
  if %keeps next_kept result
next_kept:
  %j = phi i64 [ 0, %versions ], [ %j1, %keep_next ]
  %p = phi i64 [ 0, %versions ], [ %p_next, %keep_next ]
  if %j slt %n one_kept result
one_kept:
  %shifted_keep = lshr i64 %keep, %j
  %keep_bit = and i64 %shifted_keep, 1
  if %keep_bit ne 0 value unkept
unkept:
  %shifted_number = lshr i64 %numbers, %j
  %number_bit = and i64 %shifted_number, 1
  %its = item ptr %args %j
  if %number_bit ne 0 described shape
shape:
  %its_shape = call ptr @PyTuple_GetItem(ptr %metas, i64 %j)
  goto described
described:
  %meta = phi ptr [ %its, %unkept ], [ %its_shape, %shape ]
  call void @Py_IncRef(ptr %meta)
  %m_set = call i32 @PyTuple_SetItem(ptr %kept, i64 %j, ptr %meta)
  goto keep_next
value:
  %z = item ptr %args %j
  call void @Py_IncRef(ptr %z)
  %z_set = call i32 @PyTuple_SetItem(ptr %kept, i64 %j, ptr %z)
  %st = field %z _st
  if %st is %none fresh written
fresh:
  %zero = word zero
  call void @Py_IncRef(ptr %zero)
  call void @Py_DecRef(ptr %st)
  goto version
written:
  %st_class = get ptr %st 8
  %storage = word storage
  if %st_class is %storage counted strange_memory
strange_memory:  ; never written to
  call void @Py_DecRef(ptr %st)
  %nothing = word zero
  call void @Py_IncRef(ptr %nothing)
  goto version
counted:
  %number = field %st version
  call void @Py_DecRef(ptr %st)
  goto version
version:
  %of = phi ptr [ %zero, %fresh ], [ %number, %counted ], [ %nothing, %strange_memory ]
  %v_set = call i32 @PyTuple_SetItem(ptr %counts, i64 %p, ptr %of)
  %p1 = add i64 %p, 1
  goto keep_next
keep_next:
  %p_next = phi i64 [ %p, %described ], [ %p1, %version ]
  %j1 = add i64 %j, 1
  goto next_kept
result:
  if %result_too ne 0 alias no_result
no_result:
  call void @Py_IncRef(ptr %none)
  goto resulted
alias:
  %memory = call ptr @memory()
  if %memory is null fail owned
owned:
  renew ptr %memory %y _st
  %zero_last = word zero
  call void @Py_IncRef(ptr %zero_last)
  %l_set = call i32 @PyTuple_SetItem(ptr %counts, i64 %values, ptr %zero_last)
  if %promised promise pair
part:
  call void @Py_DecRef(ptr %memory)
  goto fail
pair:  ; (array, storage), of which the engine makes a tensor
  %both = call ptr @PyTuple_New(i64 2)
  if %both is null part paired
paired:
  %a = field %y _a
  %a_set = call i32 @PyTuple_SetItem(ptr %both, i64 0, ptr %a)
  %m_kept = call i32 @PyTuple_SetItem(ptr %both, i64 1, ptr %memory)
  fill ptr %both %node result
  goto sequenced
promise:  ; another tensor of the same promise
  %twin = call ptr @fresh()
  if %twin is null part twinned
twinned:
  fill ptr %twin %node result
  %ghost = field %y _ghost
  renew ptr %ghost %twin _ghost
  call void @Py_DecRef(ptr %ghost)
  renew ptr %memory %twin _st
  call void @Py_DecRef(ptr %memory)
  goto sequenced
resulted:
  fill ptr %none %node result
  goto sequenced
sequenced:
  %ended = call i32 @end_node(ptr %node, ptr %y)
  ret i32 %ended
}

define ptr @weft_tensor_call(ptr %self, ptr %args, i64 %n) nounwind {
  %table = call ptr @PyLong_AsVoidPtr(ptr %self)
  %y = call ptr @tensor_call(ptr %table, ptr %args, i64 %n, i1 false)
  ret ptr %y
}

define ptr @weft_tensor_into(ptr %self, ptr %args, i64 %n) nounwind {
  %table = call ptr @PyLong_AsVoidPtr(ptr %self)
  %done = call ptr @tensor_call(ptr %table, ptr %args, i64 %n, i1 true)
  ret ptr %done
}

define internal ptr @tensor_call(ptr %table, ptr %args, i64 %n, i1 %into) nounwind {
entry:
  %block = alloca [BLOCK_WORDS x i64], align 64
  %arrays = alloca [8 x ptr], align 8
  %renewed = alloca [8 x ptr], align 8
  %beyond = alloca i32
  %tensor = word tensor
  %parameter = word parameter
  %none = word none
  %n_and = add i64 %n, 1
  %full = icmp eq i64 %n, 8
  %n_held = select i1 %full, i64 8, i64 %n_and  ; a number's object may be the last
  store [8 x ptr] zeroinitializer, ptr %arrays
  if %n ule 8 kinds nothing
kinds:
  %t = phi i64 [ 0, %entry ], [ %t1, %kind ], [ %t1, %number ]
  %numbers = phi i64 [ 0, %entry ], [ %numbers, %kind ], [ %numbers1, %number ]
  if %t slt %n kind modes
kind:
  %object = item ptr %args %t
  %class = get ptr %object 8
  %is_tensor = icmp eq ptr %class, %tensor
  %is_parameter = icmp eq ptr %class, %parameter
  %plain = or i1 %is_tensor, %is_parameter
  %t1 = add i64 %t, 1
  if %plain kinds perhaps
perhaps:  ; a number beside tensors
  %float = word float
  %int = word int
  %is_float = icmp eq ptr %class, %float
  %is_int = icmp eq ptr %class, %int
  %is_number = or i1 %is_float, %is_int
  %between = sub i64 %n, 2
  %is_few = icmp ult i64 %between, 6
  %first_number = icmp eq i64 %numbers, 0
  %beside = and i1 %is_few, %first_number
  %number_fits = and i1 %is_number, %beside
  %flag = shl i64 1, %t
  %numbers1 = or i64 %numbers, %flag
  if %number_fits number nothing
number:
  goto kinds
modes:
  %op = item ptr %table 1
  if %op is null opless asks
opless:  ; a maker
  if %n eq 0 asks nothing
asks:
  %name_recorder = word recorder
  %recorder = call ptr @mode(ptr %name_recorder, ptr %none)
  if %recorder is null error idle
error:
  ret ptr null
idle:
  if %recorder is %none values recorded
recorded:
  %for_python = icmp eq ptr %op, null
  %left_to_it = or i1 %for_python, %into
  if %left_to_it nothing compiled
compiled:  ; a compiled function's
  %match_class = get ptr %recorder 8
  %session_class = word session_class
  if %match_class is %session_class matching unmatched
matching:
  %matched = call ptr @match(ptr %recorder, ptr %op, ptr %args, i64 %n)
  if %matched is %none missing given
given:
  ret ptr %matched
missing:
  %awaits = call i1 @awaits_other(ptr %recorder, ptr %op)
  if %awaits nothing unmatched
unmatched:  ; recorder.known(op, tensors)
  if %numbers eq 0 ask_known nothing
ask_known:
  %name_known = word known
  %known = call ptr @PyObject_GetAttr(ptr %recorder, ptr %name_known)
  if %known not null pack unasked
unasked:
  call void @PyErr_Clear()
  goto nothing
pack:
  %tensors = call ptr @PyTuple_New(i64 %n)
  if %tensors is null unpacked packing
unpacked:
  call void @Py_DecRef(ptr %known)
  goto error
packing:
  %q = phi i64 [ 0, %pack ], [ %q1, %packed ]
  if %q slt %n packed call
packed:
  %part = item ptr %args %q
  call void @Py_IncRef(ptr %part)
  %q_set = call i32 @PyTuple_SetItem(ptr %tensors, i64 %q, ptr %part)
  %q1 = add i64 %q, 1
  goto packing
call:
  %answer = call ptr (ptr, ...) @PyObject_CallFunctionObjArgs(ptr %known, ptr %op, ptr %tensors,
    ptr null)
  call void @Py_DecRef(ptr %known)
  call void @Py_DecRef(ptr %tensors)
  ret ptr %answer
values:
  %v = phi i64 [ 0, %idle ], [ %v1, %got ], [ %v1, %no_array ]
  %v1 = add i64 %v, 1
  if %v slt %n value valued_all
value:
  %x = item ptr %args %v
  %v_shifted = lshr i64 %numbers, %v
  %v_bit = and i64 %v_shifted, 1
  if %v_bit ne 0 no_array array
no_array:
  goto values
array:
  %a = field %x _a
  put ptr %a %arrays [%v]
  %a_class = get ptr %a 8
  %ndarray = word ndarray
  if %a_class is %ndarray got strange
got:
  goto values
strange:  ; None: a ghost
  call void @release(ptr %arrays, i64 %v1)
  goto nothing
valued_all:
  if %numbers ne 0 count search
count:  ; the number in the first tensor's dtype, behind the block's words
  %place = call i64 @llvm.cttz.i64(i64 %numbers, i1 true)
  %at_front = icmp eq i64 %place, 0
  %other = zext i1 %at_front to i64
  %given_number = item ptr %args %place
  %its_array = item ptr %arrays %other
  %its_descr = get ptr %its_array 56
  %its_number = getelementptr i64, ptr %block, i64 MOST_WORDS
  %int_class = word int
  %number_class = get ptr %given_number 8
  %whole = icmp eq ptr %number_class, %int_class
  %long_descr = word int64
  if %its_descr is %long_descr beside_ints beside_floats
beside_floats:
  if %whole from_int from_float
beside_ints:
  if %whole as_int leave
as_int:
  %int64 = call i64 @PyLong_AsLongLongAndOverflow(ptr %given_number, ptr %beyond)
  %overflows = load i32, ptr %beyond
  %within = icmp eq i32 %overflows, 0
  if %within keep_int leave
keep_int:
  store i64 %int64, ptr %its_number
  call void @Py_IncRef(ptr %given_number)
  put ptr %given_number %arrays [%n]
  goto search
from_int:
  %int_value = call double @PyLong_AsDouble(ptr %given_number)
  %small_enough = fcmp olt double %int_value, 9007199254740992.0
  %large_enough = fcmp ogt double %int_value, -9007199254740992.0
  %exact = and i1 %small_enough, %large_enough
  if %exact ranged inexact
ranged:
  %perhaps_failed = fcmp oeq double %int_value, -1.0
  if %perhaps_failed occurred make_float
occurred:
  %overflow = call ptr @PyErr_Occurred()
  if %overflow not null inexact make_float
inexact:
  call void @PyErr_Clear()
  goto leave
make_float:  ; as the tape of Python's way has it
  %made_float = call ptr @PyFloat_FromDouble(double %int_value)
  if %made_float is null fail convert
from_float:
  %float_value = call double @PyFloat_AsDouble(ptr %given_number)
  call void @Py_IncRef(ptr %given_number)
  goto convert
convert:
  %held = phi ptr [ %made_float, %make_float ], [ %given_number, %from_float ]
  %double = phi double [ %int_value, %make_float ], [ %float_value, %from_float ]
  put ptr %held %arrays [%n]
  %bytes = shl i64 %n, 3
  call void @llvm.memcpy.p0.p0.i64(ptr %renewed, ptr %args, i64 %bytes, i1 false)
  put ptr %held %renewed [%place]
  %single_descr = word float32
  %double_descr = word float64
  if %its_descr is %single_descr single wide
single:
  %float32 = fptrunc double %double to float
  store float %float32, ptr %its_number
  goto search
wide:
  store double %double, ptr %its_number
  if %its_descr is %double_descr search leave
search:
  %operands = phi ptr [ %args, %valued_all ], [ %args, %keep_int ], [ %renewed, %single ],
    [ %renewed, %wide ]
  %e = call ptr @find(ptr %table, ptr %arrays, i64 %n, ptr %block)
  if %e is null leave wishes
leave:
  call void @release(ptr %arrays, i64 %n_held)
  goto nothing
wishes:
  %i = phi i64 [ 0, %search ], [ %i1, %noted ], [ %i1, %wish ]
  %wants = phi i64 [ 0, %search ], [ %wants1, %noted ], [ %wants, %wish ]
  if %i slt %n wish wished
wish:
  %i1 = add i64 %i, 1
  %i_shifted = lshr i64 %numbers, %i
  %i_bit = and i64 %i_shifted, 1
  if %i_bit ne 0 wishes asked
asked:
  %z = item ptr %args %i
  %rg = field %z _rg
  %wish32 = call i32 @truth(ptr %rg)
  %odd = icmp slt i32 %wish32, 0
  if %odd leave noted
noted:
  %wish64 = zext i32 %wish32 to i64
  %bit = shl i64 %wish64, %i
  %wants1 = or i64 %wants, %bit
  goto wishes
wished:
  if %into write make
write:  ; the result's memory is the first operand's: nothing is taped
  if %wants ne 0 free fits_in
free:
  %name_mode = word grad
  %on = word true
  %taping = call ptr @mode(ptr %name_mode, ptr %on)
  call void @Py_IncRef(ptr %taping)
  %taping32 = call i32 @truth(ptr %taping)
  %off = icmp eq i32 %taping32, 0
  if %off fits_in leave
fits_in:
  %may = call i1 @fits_first(ptr %table, ptr %e, ptr %arrays, i64 %n)
  if %may over leave
over:
  %first = load ptr, ptr %arrays
  %place_out = get ptr %first 16
  put ptr %place_out %block 16
  store i64 0, ptr %block
  %plan_in = item ptr %e 2
  call void @launch(ptr %plan_in, ptr %block, i64 %n)
  %status_in = load i64, ptr %block
  if %status_in eq 0 written leave
written:
  call void @release(ptr %arrays, i64 %n_held)
  %true = word true
  call void @Py_IncRef(ptr %true)
  ret ptr %true
make:
  %plan = item ptr %e 2
  %is_view = icmp eq ptr %plan, null
  %decision = call i32 @taping(ptr %table, ptr %e, i64 %n, i64 %wants, i1 %is_view)
  %raised_early = icmp eq i32 %decision, -2
  if %raised_early fail decided
decided:
  %by_python = icmp slt i32 %decision, 0
  if %by_python leave go
go:
  %tape = trunc i32 %decision to i1
  %graded = icmp sgt i32 %decision, 1
  %out = call ptr @run(ptr %e, ptr %arrays, i64 %n, ptr %block)
  if %out not null wrap failed
failed:
  %status = load i64, ptr %block
  if %status eq 0 fail leave
wrap:
  %y = call ptr @fresh()
  if %y is null lose own
lose:
  call void @Py_DecRef(ptr %out)
  goto fail
own:
  fill ptr %out %y _a
  if %is_view view linked
view:
  %x0 = load ptr, ptr %args
  %unlinked = call i32 @link(ptr %y, ptr %x0, i1 %graded)
  %is_unlinked = icmp ne i32 %unlinked, 0
  if %is_unlinked drop linked
linked:
  if %tape note done
note:
  %unnoted = call i32 @record(ptr %y, ptr %operands, i64 %n, i64 %wants, i64 %numbers,
    ptr %table, ptr %e, i1 false)
  %is_unnoted = icmp ne i32 %unnoted, 0
  if %is_unnoted drop done
done:
  call void @release(ptr %arrays, i64 %n_held)
  ret ptr %y
drop:
  call void @Py_DecRef(ptr %y)
  goto fail
fail:
  call void @release(ptr %arrays, i64 %n_held)
  ret ptr null
nothing:
  call void @Py_IncRef(ptr %none)
  ret ptr %none
}

== wish
declare void @llvm.memmove.p0.p0.i64(ptr, ptr, i64, i1)

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
}

; y is the op of these tensors; not 0 with an exception
define internal i32 @note_join(ptr %y, ptr %op, ptr %tensors, ptr %arrays, i64 %n, i64 %axis,
    i1 %stacked) nounwind {
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
}

define ptr @weft_joined(ptr %self, ptr %args, i64 %given) nounwind {
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
  %tensors = getelementptr i8, ptr %tensors_of, i64 <TUPLE_ITEMS>
  %arrays_of = call ptr @PyTuple_New(i64 %n)
  %arrays = getelementptr i8, ptr %arrays_of, i64 <TUPLE_ITEMS>
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
  %small = icmp ule i64 %bytes, <MOST_BYTES>
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
}

define ptr @weft_tensor_overwrite(ptr %self, ptr %args, i64 %n) nounwind {
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
}

@keys = internal global [8192 x ptr] zeroinitializer
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)

; an object as words from %at on: the place behind them, or -1
define internal i64 @spell(ptr %x, ptr %words, i64 %at) nounwind {
entry:
  %beyond = alloca i32
  %class = get ptr %x 8
  %next = add i64 %at, 1
  if %at sge <MOST_WORDS> other kinds
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
  %first = phi i64 [ <TUPLE_ITEMS>, %count ], [ 16, %parts ]  ; bytes behind the object's begin
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
}

define internal i64 @odd(i64 %value) nounwind {
  %twice = shl i64 %value, 1
  %odd = or i64 %twice, 1
  ret i64 %odd
}

; the place in @keys of the key with these words, or of none
define internal ptr @place_of(ptr %words, i64 %n) nounwind {
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
}

; objects as words from %at on: the place behind the last, or -1
define internal i64 @spell_all(ptr %objects, i64 %n, ptr %words, i64 %from) nounwind {
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
}

define ptr @weft_wish_tell(ptr %self, ptr %args, i64 %n) nounwind {
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
}

; nothing is known any more
define ptr @weft_wish_forget(ptr %self, ptr %args, i64 %n) nounwind {
  call void @llvm.memset.p0.i64(ptr @keys, i8 0, i64 65536, i1 false)
  %none = word none
  call void @Py_IncRef(ptr %none)
  ret ptr %none
}

; a tensor's shape as words: the place behind them, or -1
define internal i64 @spell_shape(ptr %x, ptr %words) nounwind {
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
  if %rank sge <MOST_DIMS> nothing axes
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
}

; the key of a plain tensor and a wish, or null; a %function that is not 0 stands before the wish
define internal ptr @key_of(ptr %x, ptr %wish, i64 %n, i64 %function) nounwind {
entry:
  %words = alloca [<ROOM> x i64], align 64
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
}

; `known` of a plain tensor
define internal ptr @view_of(ptr %args, ptr %wish, i64 %n, i64 %function) nounwind {
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
}

; the views that a function of several ops gives, a tuple; or None
define ptr @weft_wish_parts(ptr %self, ptr %args, i64 %n) nounwind {
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
}

define ptr @weft_wish_known(ptr %self, ptr %args, i64 %n) nounwind {
  %wish = getelementptr ptr, ptr %args, i64 1
  %count = sub i64 %n, 1
  %y = call ptr @view_of(ptr %args, ptr %wish, i64 %count, i64 0)
  ret ptr %y
}

; what makes a tensor of the words and a wish behind them; or None
define internal ptr @make(ptr %words, i64 %at, ptr %wish, i64 %n) nounwind {
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
}

define ptr @weft_wish_made(ptr %self, ptr %args, i64 %n) nounwind {
  %words = alloca [<ROOM> x i64], align 64
  %none = word none
  store ptr %none, ptr %words
  %y = call ptr @make(ptr %words, i64 1, ptr %args, i64 %n)
  ret ptr %y
}

define ptr @weft_wish_made_like(ptr %self, ptr %args, i64 %n) nounwind {
entry:
  %words = alloca [<ROOM> x i64], align 64
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
}

; whether NumPy reads a part of an index as torch does, but for errors
define internal i1 @plain_part(ptr %x) nounwind {
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
}

define ptr @weft_wish_item(ptr %self, ptr %args, i64 %n) nounwind {
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
  %items = getelementptr i8, ptr %index, i64 <TUPLE_ITEMS>
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
}

define ptr @weft_fact_dim(ptr %x, ptr %nothing) nounwind {
entry:
  %none = word none
  %a = slot %x _a
  %ndarray = word ndarray
  %is_array = call i1 @is_a(ptr %a, ptr %ndarray)
  if %is_array known ask
known:
  %rank32 = get i32 %a 24
  %rank = sext i32 %rank32 to i64
  %dims = get ptr %a 32
  %descr = get ptr %a 56
  %number = call ptr @PyLong_FromLongLong(i64 %rank)
  ret ptr %number
ask:
  %python = word dim
  %answer = call ptr (ptr, ...) @PyObject_CallFunctionObjArgs(ptr %python, ptr %x, ptr null)
  ret ptr %answer
}

define ptr @weft_fact_numel(ptr %x, ptr %nothing) nounwind {
entry:
  %none = word none
  %a = slot %x _a
  %ndarray = word ndarray
  %is_array = call i1 @is_a(ptr %a, ptr %ndarray)
  if %is_array known ask
known:
  %rank32 = get i32 %a 24
  %rank = sext i32 %rank32 to i64
  %dims = get ptr %a 32
  %descr = get ptr %a 56
  goto each
each:
  %k = phi i64 [ 0, %known ], [ %k1, %one ]
  %count = phi i64 [ 1, %known ], [ %count1, %one ]
  if %k slt %rank one all
one:
  %d = item i64 %dims %k
  %count1 = mul i64 %count, %d
  %k1 = add i64 %k, 1
  goto each
all:
  %number = call ptr @PyLong_FromLongLong(i64 %count)
  ret ptr %number
ask:
  %python = word numel
  %answer = call ptr (ptr, ...) @PyObject_CallFunctionObjArgs(ptr %python, ptr %x, ptr null)
  ret ptr %answer
}

define ptr @weft_fact___len__(ptr %x, ptr %nothing) nounwind {
entry:
  %none = word none
  %a = slot %x _a
  %ndarray = word ndarray
  %is_array = call i1 @is_a(ptr %a, ptr %ndarray)
  if %is_array known ask
known:
  %rank32 = get i32 %a 24
  %rank = sext i32 %rank32 to i64
  %dims = get ptr %a 32
  %descr = get ptr %a 56
  if %rank ne 0 first ask
first:
  %d = load i64, ptr %dims
  %number = call ptr @PyLong_FromLongLong(i64 %d)
  ret ptr %number
ask:
  %python = word __len__
  %answer = call ptr (ptr, ...) @PyObject_CallFunctionObjArgs(ptr %python, ptr %x, ptr null)
  ret ptr %answer
}

define ptr @weft_fact_shape(ptr %x, ptr %nothing) nounwind {
entry:
  %none = word none
  %words = alloca [<FACT_ROOM> x i64], align 64
  %at = call i64 @spell_shape(ptr %x, ptr %words)
  if %at slt 0 ask shaped
shaped:
  put i64 <SHAPE> %words [%at]
  %length = add i64 %at, 1
  %place = call ptr @place_of(ptr %words, i64 %length)
  %key = load ptr, ptr %place
  if %key is null ask told
told:
  %size = item ptr %key 1
  call void @Py_IncRef(ptr %size)
  ret ptr %size
ask:
  %python = word shape
  %answer = call ptr (ptr, ...) @PyObject_CallFunctionObjArgs(ptr %python, ptr %x, ptr null)
  ret ptr %answer
}

define ptr @weft_fact_dtype(ptr %x, ptr %nothing) nounwind {
entry:
  %none = word none
  %a = slot %x _a
  %ndarray = word ndarray
  %is_array = call i1 @is_a(ptr %a, ptr %ndarray)
  if %is_array known ask
known:
  %rank32 = get i32 %a 24
  %rank = sext i32 %rank32 to i64
  %dims = get ptr %a 32
  %descr = get ptr %a 56
  %pairs = word dtypes
  goto next
next:
  %pair = phi ptr [ %pairs, %known ], [ %behind, %other ]
  %its = load ptr, ptr %pair
  if %its is null ask compare
compare:
  if %its is %descr found other
other:
  %behind = getelementptr ptr, ptr %pair, i64 2
  goto next
found:
  %dtype = item ptr %pair 1
  call void @Py_IncRef(ptr %dtype)
  ret ptr %dtype
ask:
  %python = word dtype
  %answer = call ptr (ptr, ...) @PyObject_CallFunctionObjArgs(ptr %python, ptr %x, ptr null)
  ret ptr %answer
}

define ptr @weft_fact_item(ptr %x, ptr %nothing) nounwind {
entry:
  %none = word none
  %a = slot %x _a
  %ndarray = word ndarray
  %is_array = call i1 @is_a(ptr %a, ptr %ndarray)
  if %is_array known ask
known:
  %rank32 = get i32 %a 24
  %rank = sext i32 %rank32 to i64
  %dims = get ptr %a 32
  %descr = get ptr %a 56
  goto each
each:
  %k = phi i64 [ 0, %known ], [ %k1, %one ]
  %count = phi i64 [ 1, %known ], [ %count1, %one ]
  if %k slt %rank one all
one:
  %d = item i64 %dims %k
  %count1 = mul i64 %count, %d
  %k1 = add i64 %k, 1
  goto each
all:
  if %count eq 1 modes ask
modes:
  %name_recorder = word recorder
  %recorder = call ptr @mode(ptr %name_recorder, ptr %none)
  if %recorder is %none kinds recorded
recorded:
  if %recorder is null error ask
error:
  ret ptr null
kinds:
  %data = get ptr %a 16
  %f32 = word float32
  %f64 = word float64
  %i64 = word int64
  if %descr is %f32 float more_kinds
float:
  %short = load float, ptr %data, align 1
  %wide = fpext float %short to double
  goto real
more_kinds:
  if %descr is %f64 double last_kind
double:
  %long = load double, ptr %data, align 1
  goto real
real:
  %value = phi double [ %wide, %float ], [ %long, %double ]
  %made = call ptr @PyFloat_FromDouble(double %value)
  ret ptr %made
last_kind:
  if %descr is %i64 whole ask_bool
ask_bool:
  %kind = get i8 %descr 24
  %is_bool = icmp eq i8 %kind, 98
  if %is_bool flag ask
flag:
  %byte = load i8, ptr %data
  %set = icmp ne i8 %byte, 0
  %true = word true
  %false = word false
  %truth = select i1 %set, ptr %true, ptr %false
  call void @Py_IncRef(ptr %truth)
  ret ptr %truth
whole:
  %integer = load i64, ptr %data, align 1
  %number = call ptr @PyLong_FromLongLong(i64 %integer)
  ret ptr %number
ask:
  %python = word item
  %answer = call ptr (ptr, ...) @PyObject_CallFunctionObjArgs(ptr %python, ptr %x, ptr null)
  ret ptr %answer
}

define ptr @weft_fact_detach(ptr %x, ptr %nothing) nounwind {
entry:
  %none = word none
  %a = slot %x _a
  %ndarray = word ndarray
  %is_array = call i1 @is_a(ptr %a, ptr %ndarray)
  if %is_array known ask
known:
  %rank32 = get i32 %a 24
  %rank = sext i32 %rank32 to i64
  %dims = get ptr %a 32
  %descr = get ptr %a 56
  %ghost = slot %x _ghost
  if %ghost is %none make ask
make:
  %y = call ptr @fresh()
  if %y is null done own
own:
  give ptr %a %y _a
  %bad = call i32 @link(ptr %y, ptr %x, i1 false)
  %is_bad = icmp ne i32 %bad, 0
  if %is_bad drop linked
linked:  ; what owns the memory, off the tape
  %base = slot %y _base
  %handle = call i1 @is_handle(ptr %base)
  if %handle promise strange
promise:
  %promised = slot %base _ghost
  if %promised is %none whole strange
whole:
  %memory = slot %base _a
  if %memory is null strange above
above:
  %owner = call ptr @fresh()
  if %owner is null drop owned
owned:
  %st = slot %y _st
  give ptr %memory %owner _a
  renew ptr %st %owner _st
  renew ptr %owner %y _base
  call void @Py_DecRef(ptr %owner)
  goto done
strange:
  call void @Py_DecRef(ptr %y)
  goto ask
drop:
  call void @Py_DecRef(ptr %y)
  goto done
done:
  %r = phi ptr [ null, %make ], [ %y, %owned ], [ null, %drop ]
  ret ptr %r
ask:
  %python = word detach
  %answer = call ptr (ptr, ...) @PyObject_CallFunctionObjArgs(ptr %python, ptr %x, ptr null)
  ret ptr %answer
}

== match
; whether the object is there and of the class itself
define internal i1 @is_a(ptr %x, ptr %class) nounwind {
entry:
  if %x is null no yes
no:
  ret i1 false
yes:
  %its = get ptr %x 8
  %same = icmp eq ptr %its, %class
  ret i1 %same
}

; memory.root
define internal ptr @root(ptr %a) nounwind {
entry:
  %ndarray = word ndarray
  goto up
up:
  %at = phi ptr [ %a, %entry ], [ %above, %upper ]
  %above = get ptr %at 48
  if %above is null own upper
own:
  ret ptr %at
upper:
  %view = call i1 @is_a(ptr %above, ptr %ndarray)
  if %view up strange
strange:
  ret ptr %above
}

; whether the storage and the root are those of no tensor that the call has met; as then: of none
; of those whose memory is another than then
define internal i1 @apart(ptr %outside, ptr %others, i1 %as_then, ptr %st, ptr %root) nounwind {
entry:
  %list = select i1 %as_then, ptr %others, ptr %outside
  %ndarray = word ndarray
  %n = call i64 @PyList_Size(ptr %list)
  goto next
next:
  %i = phi i64 [ 0, %entry ], [ %i1, %differs ]
  %i1 = add i64 %i, 1
  if %i slt %n one all
one:
  %x = call ptr @PyList_GetItem(ptr %list, i64 %i)
  %a = slot %x _a
  %its = slot %x _st
  %there = call i1 @is_a(ptr %a, ptr %ndarray)
  if %there value no
value:
  %its_root = call ptr @root(ptr %a)
  %same_st = icmp eq ptr %its, %st
  %same_root = icmp eq ptr %its_root, %root
  %same = or i1 %same_st, %same_root
  if %same no differs
differs:
  goto next
all:
  ret i1 true
no:
  ret i1 false
}

; Session.first_use of a tensor in a memory that the call has not met, where its place and layout
; are these: 1, else 0 and nothing is noted; -1 with an exception
define internal i32 @meet(ptr %session, ptr %x, ptr %w) nounwind {
entry:
  %none = word none
  %outside = slot %session session.outside
  %others = slot %session session.others
  %memories = slot %session session._memories
  %handles = slot %session session._handles
  %places = slot %session session._places
  %serial_object = slot %session session.serial
  %a = slot %x _a
  %ndarray = word ndarray
  %dict = word dict
  %list_class = word list
  %int = word int
  %dict0 = call i1 @is_a(ptr %memories, ptr %dict)
  %dict1 = call i1 @is_a(ptr %handles, ptr %dict)
  %dict2 = call i1 @is_a(ptr %places, ptr %dict)
  %is_array = call i1 @is_a(ptr %a, ptr %ndarray)
  %is_int = call i1 @is_a(ptr %serial_object, ptr %int)
  %is_list = call i1 @is_a(ptr %others, ptr %list_class)
  %dicts = and i1 %dict0, %dict1
  %dicts_too = and i1 %dicts, %dict2
  %untabled = icmp eq ptr %memories, %none
  %either = or i1 %dicts_too, %untabled
  %lists = and i1 %is_int, %is_list
  %placed = and i1 %either, %lists
  %ready = and i1 %placed, %is_array
  if %ready array differs
differs:
  ret i32 0
array:
  %place = load i64, ptr %w
  %met = call i64 @PyList_Size(ptr %outside)
  %descr = get ptr %a 56
  %descr_wanted = item ptr %w 1
  %rank32 = get i32 %a 24
  %rank = sext i32 %rank32 to i64
  %rank_wanted = item i64 %w 2
  %place_is = icmp eq i64 %place, %met
  %descr_is = icmp eq ptr %descr, %descr_wanted
  %rank_is = icmp eq i64 %rank, %rank_wanted
  %some = and i1 %place_is, %descr_is
  %all = and i1 %some, %rank_is
  %dims = get ptr %a 32
  %strides = get ptr %a 40
  %dims_wanted = getelementptr i64, ptr %w, i64 7
  %strides_wanted = getelementptr i64, ptr %dims_wanted, i64 %rank
  if %all axes differs
axes:
  %i = phi i64 [ 0, %array ], [ %i1, %axis ]
  if %i slt %rank axis storage
axis:
  %d = item i64 %dims %i
  %dw = item i64 %dims_wanted %i
  %s = item i64 %strides %i
  %sw = item i64 %strides_wanted %i
  %d_is = icmp eq i64 %d, %dw
  %s_is = icmp eq i64 %s, %sw
  %same = and i1 %d_is, %s_is
  %i1 = add i64 %i, 1
  if %same axes differs
storage:
  %old = slot %x _st
  %unmade = icmp eq ptr %old, null
  %unowned = icmp eq ptr %old, %none
  %lacking = or i1 %unmade, %unowned
  if %lacking own base
own:
  %made = call ptr @memory()
  if %made is null error owned
error:
  ret i32 -1
owned:
  renew ptr %made %x _st
  call void @Py_DecRef(ptr %made)
  goto base
base:
  %st = phi ptr [ %old, %storage ], [ %made, %owned ]
  %root = call ptr @root(ptr %a)
  %data = get ptr %a 16
  %serial_ptr = call ptr @PyLong_AsVoidPtr(ptr %serial_object)
  if %untabled then names
then:
  %serial_then = item ptr %w 3
  %st_then = item ptr %w 4
  %root_then = item ptr %w 5
  %data_then = item ptr %w 6
  %then0 = icmp eq ptr %serial_ptr, %serial_then
  %then1 = icmp eq ptr %st, %st_then
  %then2 = icmp eq ptr %root, %root_then
  %then3 = icmp eq ptr %data, %data_then
  %then4 = and i1 %then0, %then1
  %then5 = and i1 %then2, %then3
  %as_then = and i1 %then4, %then5
  %count = call i64 @PyList_Size(ptr %others)
  %few = icmp slt i64 %count, 8
  %worth = or i1 %as_then, %few
  if %worth compare differs
compare:
  %is_apart = call i1 @apart(ptr %outside, ptr %others, i1 %as_then, ptr %st, ptr %root)
  if %is_apart alone differs
alone:
  if %as_then append other
other:
  %r6 = call i32 @PyList_Append(ptr %others, ptr %x)
  %r6_is = icmp eq i32 %r6, 0
  if %r6_is append error
append:
  %r7 = call i32 @PyList_Append(ptr %outside, ptr %x)
  %r7_is = icmp eq i32 %r7, 0
  if %r7_is appended error
appended:
  ret i32 1
names:
  %name = call ptr @PyLong_FromVoidPtr(ptr %st)
  %root_name = call ptr @PyLong_FromVoidPtr(ptr %root)
  %id = call ptr @PyLong_FromVoidPtr(ptr %x)
  %number = call ptr @PyLong_FromLongLong(i64 %met)
  %list = call ptr @PyList_New(i64 1)
  %name_seen = call ptr @PyDict_GetItemWithError(ptr %memories, ptr %name)
  %root_seen = call ptr @PyDict_GetItemWithError(ptr %memories, ptr %root_name)
  %name_new = icmp eq ptr %name_seen, null
  %root_new = icmp eq ptr %root_seen, null
  %new = and i1 %name_new, %root_new
  if %new note release
note:
  call void @Py_IncRef(ptr %x)
  %r0 = call i32 @PyList_SetItem(ptr %list, i64 0, ptr %x)
  %r1 = call i32 @PyDict_SetItem(ptr %memories, ptr %name, ptr %name)
  %r2 = call i32 @PyDict_SetItem(ptr %memories, ptr %root_name, ptr %name)
  %r3 = call i32 @PyDict_SetItem(ptr %handles, ptr %name, ptr %list)
  %r4 = call i32 @PyDict_SetItem(ptr %places, ptr %id, ptr %number)
  %r5 = call i32 @PyList_Append(ptr %outside, ptr %x)
  put ptr %serial_ptr %w 24
  put ptr %st %w 32
  put ptr %root %w 40
  put ptr %data %w 48
  goto release
release:
  %answer = phi i32 [ 0, %names ], [ 1, %note ]
  call void @Py_DecRef(ptr %name)
  call void @Py_DecRef(ptr %root_name)
  call void @Py_DecRef(ptr %id)
  call void @Py_DecRef(ptr %number)
  call void @Py_DecRef(ptr %list)
  %raised = call ptr @PyErr_Occurred()
  %failed = icmp ne ptr %raised, null
  %result = select i1 %failed, i32 -1, i32 %answer
  ret i32 %result
}

; whether one call alone has come next so far, of another op
define internal i1 @awaits_other(ptr %session, ptr %op) nounwind {
entry:
  %cursor = slot %session session.cursor
  %trie_class = word trie_class
  %at_node = call i1 @is_a(ptr %cursor, ptr %trie_class)
  if %at_node node no
no:
  ret i1 false
node:
  %child = slot %cursor trie.next
  %children = slot %cursor trie.children
  %dict = word dict
  %has_child = call i1 @is_a(ptr %child, ptr %trie_class)
  %has_children = call i1 @is_a(ptr %children, ptr %dict)
  %both = and i1 %has_child, %has_children
  if %both ask no
ask:
  %count = get i64 %children 16
  %its = slot %child trie.op
  if %count eq 1 alone no
alone:
  if %its is %op no yes
yes:
  ret i1 true
}

; a new reference, null with an exception, or None as a borrowed reference: the long way
define internal ptr @match(ptr %session, ptr %op, ptr %args, i64 %n) nounwind {
entry:
  %none = word none
  %tensor = word tensor
  %parameter = word parameter
  %true = word true
  %matching = slot %session session.matching
  %matches = icmp eq ptr %matching, %true
  %cursor = slot %session session.cursor
  %outside = slot %session session.outside
  %numbers_list = slot %session session.numbers
  %ghosts = slot %session session.ghosts
  %trie_class = word trie_class
  %at_node = call i1 @is_a(ptr %cursor, ptr %trie_class)
  %list = word list
  %outside_list = call i1 @is_a(ptr %outside, ptr %list)
  %number_list = call i1 @is_a(ptr %numbers_list, ptr %list)
  %ghost_list = call i1 @is_a(ptr %ghosts, ptr %list)
  %lists1 = and i1 %outside_list, %number_list
  %lists2 = and i1 %lists1, %ghost_list
  %places = and i1 %at_node, %lists2
  %ready = and i1 %matches, %places
  if %ready path nothing
nothing:
  ret ptr %none
path:
  %child = slot %cursor trie.next
  %has_child = call i1 @is_a(ptr %child, ptr %trie_class)
  if %has_child known nothing
known:
  %native = slot %child trie.native
  %no_native = icmp eq ptr %native, null
  %not_native = icmp eq ptr %native, %none
  %unarmed = or i1 %no_native, %not_native
  if %unarmed nothing armed
armed:
  %e = call ptr @PyLong_AsVoidPtr(ptr %native)
  %op_wanted = load ptr, ptr %e
  %n_wanted = item i64 %e 1
  %op_is = icmp eq ptr %op_wanted, %op
  %n_is = icmp eq i64 %n_wanted, %n
  %call_is = and i1 %op_is, %n_is
  %met = call i64 @PyList_Size(ptr %outside)
  if %call_is operands nothing
operands:
  %i = phi i64 [ 0, %armed ], [ %i1, %fits ]
  %wants = phi i64 [ 0, %armed ], [ %wants1, %fits ]
  %numbers = phi i64 [ 0, %armed ], [ %numbers1, %fits ]
  %firsts = phi i64 [ 0, %armed ], [ %firsts1, %fits ]
  if %i slt %n operand tape
operand:
  %x = item ptr %args %i
  %class = get ptr %x 8
  %thrice = mul i64 %i, 3
  %w_kind = add i64 %thrice, 12
  %w_value = add i64 %thrice, 13
  %kind = item i64 %e %w_kind
  %value = item i64 %e %w_value
  %flag = shl i64 1, %i
  if %kind eq 3 number object
number:
  %class_word = ptrtoint ptr %class to i64
  %class_is = icmp eq i64 %class_word, %value
  %numbers_too = or i64 %numbers, %flag
  if %class_is fits nothing
object:
  %is_tensor = icmp eq ptr %class, %tensor
  %is_parameter = icmp eq ptr %class, %parameter
  %plain = or i1 %is_tensor, %is_parameter
  if %plain asked nothing
asked:
  %ghost = field %x _ghost
  call void @Py_DecRef(ptr %ghost)  ; x holds it
  if %ghost is %none from_outside promised
from_outside:
  %is_known = icmp eq i64 %kind, 1
  %is_first = icmp eq i64 %kind, 2
  %firsts_too = or i64 %firsts, %flag
  if %is_known listed first
first:
  if %is_first wished nothing
listed:
  if %value ult %met place nothing
place:
  %there = call ptr @PyList_GetItem(ptr %outside, i64 %value)
  if %there is %x wished nothing
promised:
  %g_class = get ptr %ghost 8
  %ghost_class = word ghost_class
  %pending_class = word pending_class
  %is_ghost = icmp eq ptr %g_class, %ghost_class
  %is_pending = icmp eq ptr %g_class, %pending_class
  %is_ours = or i1 %is_ghost, %is_pending
  if %is_ours ours nothing
ours:
  %whose = slot %ghost ghost.session
  if %whose is %session numbered nothing
numbered:
  %k_object = slot %ghost ghost.k
  %int = word int
  %k_int = call i1 @is_a(ptr %k_object, ptr %int)
  if %k_int counted_k nothing
counted_k:
  %k_ptr = call ptr @PyLong_AsVoidPtr(ptr %k_object)
  %k = ptrtoint ptr %k_ptr to i64
  %inverse = xor i64 %value, -1
  %result_wanted = icmp eq i64 %kind, 0
  %outside_wanted = icmp eq i64 %kind, 1
  %k_wanted = select i1 %result_wanted, i64 %value, i64 %inverse
  %k_is = icmp eq i64 %k, %k_wanted
  %one_wanted = or i1 %result_wanted, %outside_wanted
  %fitting = and i1 %k_is, %one_wanted
  if %fitting wished nothing
wished:
  %firsts_now = phi i64 [ %firsts_too, %first ], [ %firsts, %place ], [ %firsts, %counted_k ]
  %rg = field %x _rg
  %wish32 = call i32 @truth(ptr %rg)
  %odd = icmp slt i32 %wish32, 0
  %wish64 = zext i32 %wish32 to i64
  %bit = shl i64 %wish64, %i
  %wants_too = or i64 %wants, %bit
  if %odd nothing fits
fits:
  %wants1 = phi i64 [ %wants, %number ], [ %wants_too, %wished ]
  %numbers1 = phi i64 [ %numbers_too, %number ], [ %numbers, %wished ]
  %firsts1 = phi i64 [ %firsts, %number ], [ %firsts_now, %wished ]
  %i1 = add i64 %i, 1
  goto operands
tape:
  %about = item ptr %e 2
  %view64 = item i64 %e 3
  %is_view = icmp ne i64 %view64, 0
  %decision = call i32 @taping(ptr %about, ptr %e, i64 %n, i64 %wants, i1 %is_view)
  %raised = icmp eq i32 %decision, -2
  if %raised error asked_all
error:
  ret ptr null
asked_all:
  %by_python = icmp slt i32 %decision, 0
  if %by_python nothing decided
decided:
  %taped = trunc i32 %decision to i1
  %graded = icmp sgt i32 %decision, 1
  call void @Py_IncRef(ptr %child)
  goto meet
meet:
  %j = phi i64 [ 0, %decided ], [ %j1, %met_one ]
  if %j slt %n one make
one:
  %shifted = lshr i64 %firsts, %j
  %first_bit = and i64 %shifted, 1
  %j1 = add i64 %j, 1
  if %first_bit ne 0 meeting met_one
meeting:
  %new = item ptr %args %j
  %j_thrice = mul i64 %j, 3
  %w_layout = add i64 %j_thrice, 14
  %layout = item ptr %e %w_layout
  if %layout is null by_key by_layout
by_layout:
  %noted = call i32 @meet(ptr %session, ptr %new, ptr %layout)
  %is_noted = icmp sgt i32 %noted, 0
  if %is_noted met_one not_met
not_met:
  %unmet = icmp slt i32 %noted, 0
  if %unmet lose forget
by_key:
  %name_ref = word _ref
  %key = call ptr (ptr, ptr, ...) @PyObject_CallMethodObjArgs(ptr %session, ptr %name_ref, ptr %new,
    ptr null)
  if %key is null lose compare
compare:
  %w_key = add i64 %j_thrice, 13
  %key_wanted = item ptr %e %w_key
  %alike = call i32 @PyObject_RichCompareBool(ptr %key, ptr %key_wanted, i32 2)
  call void @Py_DecRef(ptr %key)
  %uncompared = icmp slt i32 %alike, 0
  if %uncompared lose compared
compared:
  %differs = icmp eq i32 %alike, 0
  if %differs forget met_one
met_one:
  goto meet
forget:
  %count = call ptr @PyLong_FromLongLong(i64 %met)
  if %count is null lose counted
counted:
  %name_forget = word _forget
  %forgot = call ptr (ptr, ptr, ...) @PyObject_CallMethodObjArgs(ptr %session, ptr %name_forget,
    ptr %count, ptr null)
  call void @Py_DecRef(ptr %count)
  if %forgot is null lose forgotten
forgotten:
  call void @Py_DecRef(ptr %forgot)
  call void @Py_DecRef(ptr %child)
  ret ptr %none
lose:
  call void @Py_DecRef(ptr %child)
  ret ptr null
make:
  %object_new = word object_new
  %empty = word empty
  %y = call ptr @fresh()
  if %y is null lose promise
promise:
  %kind_of_ghost = word ghost_class
  %made = call ptr %object_new(ptr %kind_of_ghost, ptr %empty, ptr null)
  if %made is null drop filled
drop:
  call void @Py_DecRef(ptr %y)
  goto lose
filled:
  give ptr %session %made ghost.session
  give ptr %none %made ghost.array
  %m_k = item ptr %e 4
  give ptr %m_k %made ghost.k
  %m_shape = item ptr %e 5
  give ptr %m_shape %made ghost.shape
  %m_strides = item ptr %e 6
  give ptr %m_strides %made ghost.strides
  %m_dtype = item ptr %e 7
  give ptr %m_dtype %made ghost.dtype
  %m_offset = item ptr %e 8
  give ptr %m_offset %made ghost.offset
  %viewed = load ptr, ptr %args
  if %is_view outer whole
outer:
  %above = field %viewed _ghost
  call void @Py_DecRef(ptr %above)
  %above_class = get ptr %above 8
  %ghosts_class = word ghost_class
  if %above_class is %ghosts_class inner whole
inner:  ; of this session, as it was an operand
  %inner_outer = slot %above ghost.outer
  %no_outer = icmp eq ptr %inner_outer, null
  %some_outer = select i1 %no_outer, ptr %none, ptr %inner_outer
  goto whole
whole:
  %of = phi ptr [ %none, %filled ], [ %viewed, %outer ], [ %some_outer, %inner ]
  give ptr %of %made ghost.outer
  renew ptr %made %y _ghost
  if %is_view link taping
part:
  call void @Py_DecRef(ptr %made)
  goto drop
link:
  %unlinked = call i32 @link(ptr %y, ptr %viewed, i1 %graded)
  %is_unlinked = icmp ne i32 %unlinked, 0
  if %is_unlinked part taping
taping:
  if %taped note go
note:
  %unnoted = call i32 @record(ptr %y, ptr %args, i64 %n, i64 %wants, i64 %numbers, ptr %about,
    ptr %e, i1 true)
  %is_unnoted = icmp ne i32 %unnoted, 0
  if %is_unnoted part go
go:  ; a finalizer may have run, and have called ops
  %cursor_now = slot %session session.cursor
  %numbers_now = slot %session session.numbers
  %ghosts_now = slot %session session.ghosts
  %in_place = icmp eq ptr %cursor_now, %cursor
  %numbers_there = call i1 @is_a(ptr %numbers_now, ptr %list)
  %ghosts_there = call i1 @is_a(ptr %ghosts_now, ptr %list)
  %lists_there = and i1 %numbers_there, %ghosts_there
  %undisturbed = and i1 %in_place, %lists_there
  if %undisturbed collect disturbed
disturbed:
  call void @Py_DecRef(ptr %made)
  call void @Py_DecRef(ptr %y)
  call void @Py_DecRef(ptr %child)
  goto nothing
collect:
  %q = phi i64 [ 0, %go ], [ %q1, %collected ]
  if %q slt %n pick moved
pick:
  %q_shifted = lshr i64 %numbers, %q
  %q_bit = and i64 %q_shifted, 1
  %is_number = icmp ne i64 %q_bit, 0
  %q1 = add i64 %q, 1
  if %is_number append collected
append:
  %its = item ptr %args %q
  %unlisted = call i32 @PyList_Append(ptr %numbers_now, ptr %its)
  %is_unlisted = icmp ne i32 %unlisted, 0
  if %is_unlisted part collected
collected:
  goto collect
moved:
  %unkept = call i32 @PyList_Append(ptr %ghosts_now, ptr %made)
  %is_unkept = icmp ne i32 %unkept, 0
  if %is_unkept part kept
kept:
  call void @Py_DecRef(ptr %made)
  %left = slot %session session.cursor
  fill ptr %child %session session.cursor
  call void @Py_DecRef(ptr %left)
  ret ptr %y
}

define ptr @weft_match_call(ptr %self, ptr %given, i64 %n_given) nounwind {
entry:
  %args = alloca [8 x ptr], align 8
  if %n_given eq 3 typed nothing
typed:
  %session = load ptr, ptr %given
  %op = item ptr %given 1
  %tuple = item ptr %given 2
  %class = get ptr %session 8
  %session_class = word session_class
  if %class is %session_class sized nothing
sized:
  %n = call i64 @PyTuple_Size(ptr %tuple)
  %less = sub i64 %n, 1
  if %less ult 8 next odd
odd:
  call void @PyErr_Clear()  ; where it is no tuple
  goto nothing
next:
  %i = phi i64 [ 0, %sized ], [ %i1, %taken ]
  if %i slt %n taken matched
taken:
  %x = call ptr @PyTuple_GetItem(ptr %tuple, i64 %i)
  put ptr %x %args [%i]
  %i1 = add i64 %i, 1
  goto next
matched:
  %y = call ptr @match(ptr %session, ptr %op, ptr %args, i64 %n)
  %none = word none
  if %y is %none nothing done
done:
  ret ptr %y
nothing:
  %none_too = word none
  call void @Py_IncRef(ptr %none_too)
  ret ptr %none_too
}

define ptr @weft_match_promise(ptr %self, ptr %args, i64 %n_given) nounwind {
entry:
  %none = word none
  %list = word list
  %session_class = word session_class
  %pending_class = word pending_class
  %object_new = word object_new
  %empty = word empty
  %zero = word zero
  if %n_given eq 2 typed nothing
typed:
  %session = load ptr, ptr %args
  %handles = item ptr %args 1
  %is_session = call i1 @is_a(ptr %session, ptr %session_class)
  %is_list = call i1 @is_a(ptr %handles, ptr %list)
  %both = and i1 %is_session, %is_list
  if %both simple nothing
simple:
  %n = call i64 @PyList_Size(ptr %handles)
  %pendings = slot %session session._pendings
  %pending = slot %session session.pending
  %places = slot %session session._places
  %dict = word dict
  %list0 = call i1 @is_a(ptr %pendings, ptr %list)
  %list1 = call i1 @is_a(ptr %pending, ptr %list)
  %dict0 = call i1 @is_a(ptr %places, ptr %dict)
  %lists = and i1 %list0, %list1
  %ready = and i1 %lists, %dict0
  if %ready look nothing
look:  ; whether each is a promise, or the whole of its memory
  %i = phi i64 [ 0, %simple ], [ %i1, %one ], [ %i1, %value ]
  %i1 = add i64 %i, 1
  if %i slt %n ask make
ask:
  %x = call ptr @PyList_GetItem(ptr %handles, i64 %i)
  %is_handle = call i1 @is_handle(ptr %x)
  if %is_handle one nothing
one:
  %ghost = slot %x _ghost
  if %ghost is %none value look
value:
  %base = slot %x _base
  if %base is %none look nothing
make:
  %j = phi i64 [ 0, %look ], [ %j1, %next ], [ %j1, %kept ]
  %j1 = add i64 %j, 1
  if %j slt %n next done
next:
  %h = call ptr @PyList_GetItem(ptr %handles, i64 %j)
  %its = slot %h _ghost
  %a = slot %h _a
  %unpromised = icmp eq ptr %its, %none
  %present = icmp ne ptr %a, null
  %open = and i1 %unpromised, %present
  if %open place make
place:
  %id = call ptr @PyLong_FromVoidPtr(ptr %h)
  if %id is null error find
error:
  ret ptr null
find:
  %at = call ptr @PyDict_GetItemWithError(ptr %places, ptr %id)
  call void @Py_DecRef(ptr %id)
  if %at is null nothing number
number:
  %at_ptr = call ptr @PyLong_AsVoidPtr(ptr %at)
  %at_int = ptrtoint ptr %at_ptr to i64
  %inverse = xor i64 %at_int, -1
  %k = call ptr @PyLong_FromLongLong(i64 %inverse)
  if %k is null error new
new:
  %made = call ptr %object_new(ptr %pending_class, ptr %empty, ptr null)
  if %made is null error filled
filled:
  fill ptr %k %made ghost.k
  fill ptr %a %made ghost.array
  fill ptr null %h _a
  give ptr %session %made ghost.session
  give ptr %zero %made ghost.offset
  give ptr %none %made ghost.outer
  renew ptr %made %h _ghost
  %bad = call i32 @PyList_Append(ptr %pendings, ptr %made)
  %worse = call i32 @PyList_Append(ptr %pending, ptr %h)
  call void @Py_DecRef(ptr %made)
  %failed = or i32 %bad, %worse
  %is_bad = icmp ne i32 %failed, 0
  if %is_bad error kept
kept:
  goto make
done:
  %true = word true
  call void @Py_IncRef(ptr %true)
  ret ptr %true
nothing:
  call void @Py_IncRef(ptr %none)
  ret ptr %none
}

== module
; what Module's `__getattr__` is in Python, CPython's search of an attribute that may not be there, the
; slot by which a call goes to Python, what is told of a call that is not known
@in_python = internal global [4 x ptr] zeroinitializer
@calls = internal global [4096 x ptr] zeroinitializer
@misses = internal global i64 0

define void @weft_module_init(ptr %words) nounwind {
  call void @llvm.memcpy.p0.p0.i64(ptr @in_python, ptr %words, i64 32, i1 false)
  ret void
}

; tp_getattro: as object's, then in the three dicts of a Module
define ptr @weft_module_attribute(ptr %self, ptr %name) nounwind {
entry:
  %search = load ptr, ptr getelementptr (ptr, ptr @in_python, i64 1)
  %usual = call ptr %search(ptr %self, ptr %name, ptr null, i32 1)
  if %usual is null absent given
given:
  ret ptr %usual
absent:
  %error = call ptr @PyErr_Occurred()
  if %error is null begin failed
failed:
  ret ptr null
begin:
  %names = alloca [3 x ptr], align 8
  %first = word _parameters
  %second = word _modules
  %third = word _buffers
  put ptr %first %names [0]
  put ptr %second %names [1]
  put ptr %third %names [2]
  goto next
next:
  %i = phi i64 [ 0, %begin ], [ %i1, %other ]
  if %i slt 3 one python
one:
  %which = item ptr %names %i
  %place = call ptr %search(ptr %self, ptr %which, ptr null, i32 1)
  if %place is null unset placed
unset:
  call void @PyErr_Clear()
  goto python
placed:
  %kind = get ptr %place 8
  %dict = word dict
  if %kind is %dict ask odd
odd:
  call void @Py_DecRef(ptr %place)
  goto python
ask:
  %found = call ptr @PyDict_GetItemWithError(ptr %place, ptr %name)
  if %found is null other have
have:
  call void @Py_IncRef(ptr %found)
  call void @Py_DecRef(ptr %place)
  ret ptr %found
other:
  call void @Py_DecRef(ptr %place)
  %i1 = add i64 %i, 1
  goto next
python:
  %getattr = load ptr, ptr @in_python
  %last = call ptr (ptr, ...) @PyObject_CallFunctionObjArgs(ptr %getattr, ptr %self, ptr %name, ptr null)
  ret ptr %last
}

; dims of a tensor or of a promise of this thread's call, else -1
define internal i64 @rank_of(ptr %x) nounwind {
entry:
  %plain = call i1 @is_plain(ptr %x)
  if %plain kind unknown
unknown:
  ret i64 -1
kind:
  %none = word none
  %ghost = slot %x _ghost
  if %ghost is %none value promise
value:
  %a = slot %x _a
  %ndarray = word ndarray
  %is_array = call i1 @is_a(ptr %a, ptr %ndarray)
  if %is_array array unknown
array:
  %rank32 = get i32 %a 24
  %rank = sext i32 %rank32 to i64
  ret i64 %rank
promise:
  %ghost_class = word ghost_class
  %is_ghost = call i1 @is_a(ptr %ghost, ptr %ghost_class)
  if %is_ghost shaped unknown
shaped:
  %shape = slot %ghost ghost.shape
  %dims = get i64 %shape 16
  ret i64 %dims
}

; tp_call: module(x) at once where it is one op and all is as it was told
define ptr @weft_module_call(ptr %self, ptr %args, ptr %kw) nounwind {
entry:
  %operands = alloca [8 x ptr], align 8
  %address = ptrtoint ptr %self to i64
  %low = lshr i64 %address, 4
  %high = lshr i64 %address, 14
  %mixed = xor i64 %low, %high
  %slot = and i64 %mixed, 4095
  %at = getelementptr ptr, ptr @calls, i64 %slot
  %e = load ptr, ptr %at
  if %e is null missed mine
mine:
  %owner = load ptr, ptr %e
  if %owner is %self given missed
given:
  %n_args = get i64 %args 16
  if %n_args eq 1 positional missed
positional:
  if %kw is null begin missed
begin:
  %pairs = item i64 %e 5
  %looked = getelementptr i64, ptr %e, i64 13
  goto next
next:
  %i = phi i64 [ 0, %begin ], [ %i1, %compare ]
  %pair = phi ptr [ %looked, %begin ], [ %pair1, %compare ]
  if %i slt %pairs compare same
compare:
  %where = load ptr, ptr %pair
  %is = load i64, ptr %where
  %was = item i64 %pair 1
  %pair1 = getelementptr i64, ptr %pair, i64 2
  %i1 = add i64 %i, 1
  if %is eq %was next missed
same:
  %x = get ptr %args <TUPLE_ITEMS>
  %wanted = item i64 %e 3
  %rank = call i64 @rank_of(ptr %x)
  if %wanted eq %rank fits some
some:
  if %wanted eq 0 fits missed
fits:
  %none = word none
  %name = word autocast
  %narrow = call ptr @mode(ptr %name, ptr %none)
  if %narrow is %none take lowered
lowered:
  if %narrow is null error missed
error:
  ret ptr null
take:
  %table = item ptr %e 1
  %n = item i64 %e 2
  %keep = item ptr %e 4
  call void @Py_IncRef(ptr %keep)
  call void @Py_IncRef(ptr %x)
  store ptr %x, ptr %operands
  goto fill
fill:
  %j = phi i64 [ 1, %take ], [ %j1, %filled ]
  if %j slt %n filled run
filled:
  %from = add i64 %j, 5
  %operand = item ptr %e %from
  call void @Py_IncRef(ptr %operand)
  put ptr %operand %operands [%j]
  %j1 = add i64 %j, 1
  goto fill
run:
  %y = call ptr @tensor_call(ptr %table, ptr %operands, i64 %n, i1 false)
  call void @release(ptr %operands, i64 %n)
  call void @Py_DecRef(ptr %keep)
  if %y is %none unknown done
done:
  ret ptr %y
unknown:
  call void @Py_DecRef(ptr %y)
  goto python
missed:
  %old = load i64, ptr @misses
  %m = add i64 %old, 1
  store i64 %m, ptr @misses
  %rest = urem i64 %m, 13
  if %rest eq 0 tell python
tell:
  %told = load ptr, ptr getelementptr (ptr, ptr @in_python, i64 3)
  %answer = call ptr (ptr, ...) @PyObject_CallFunctionObjArgs(ptr %told, ptr %self, ptr %args, ptr null)
  if %answer is null error answered
answered:
  call void @Py_DecRef(ptr %answer)
  goto python
python:
  %usual = load ptr, ptr getelementptr (ptr, ptr @in_python, i64 2)
  %r = call ptr %usual(ptr %self, ptr %args, ptr %kw)
  ret ptr %r
}

define void @weft_module_know(i64 %slot, ptr %entry) nounwind {
  %at = getelementptr ptr, ptr @calls, i64 %slot
  store ptr %entry, ptr %at
  ret void
}

== small
declare void @weft_mt_words(ptr, ptr, i64)
declare void @weft_mt_uniform24(ptr, ptr, i64)
declare void @weft_mt_uniform53(ptr, ptr, i64)
declare void @weft_mt_below(ptr, ptr, i64, i64)
declare void @weft_mt_shuffle(ptr, ptr, i64)
declare void @weft_normal_pairs(ptr, i64)
declare void @weft_map_log1p(ptr, i64)
declare void @weft_box_muller(ptr, i64, float, float)

define internal i1 @ask(ptr %ints, ptr %name, ptr %given) nounwind {
entry:
  %generator = load ptr, ptr %ints
  %lock = slot %generator lock
  %got = call ptr (ptr, ptr, ...) @PyObject_CallMethodObjArgs(ptr %lock, ptr %name, ptr %given,
    ptr null)
  %true = word true
  if %got is null error said
error:
  call void @PyErr_Clear()
  ret i1 false
said:
  call void @Py_DecRef(ptr %got)
  %yes = icmp eq ptr %got, %true
  ret i1 %yes
}

define internal void @end(ptr %ints) nounwind {
  %name = word release
  %done = call i1 @ask(ptr %ints, ptr %name, ptr null)
  ret void
}

; the state, which is this stage's until `end`; null where it cannot be
define internal ptr @begin(ptr %ints) nounwind {
entry:
  %name = word acquire
  %false = word false
  %ours = call i1 @ask(ptr %ints, ptr %name, ptr %false)
  if %ours look no
look:
  %state = item ptr %ints 1
  %aside = get i32 %state <ASIDE>
  %free = icmp eq i32 %aside, 0
  if %free yes back
back:
  call void @end(ptr %ints)
  goto no
yes:
  ret ptr %state
no:
  ret ptr null
}

define void @weft_made_copy(ptr %args, i32 %thread, i32 %threads) nounwind {
  %out = item ptr %args 2
  %from = item ptr %args 4
  %bytes = item i64 %args 5
  call void @llvm.memcpy.p0.p0.i64(ptr %out, ptr %from, i64 %bytes, i1 false)
  ret void
}

; launches one after another, as random_code.chain spells them: 0 a stage (0: the end), 1 words of its
; block (none: the last one's), 2 how many of them are pointers, the words; of each pointer its place,
; the word of our block that it is counted from, and the bytes
define internal void @chain(ptr %args, i64 %own) nounwind {
entry:
  %block = alloca [<CHAINED> x i64], align 64
  %steps = item ptr %args %own
  goto next
next:
  %at = phi ptr [ %steps, %entry ], [ %p, %run ]
  %stage = load ptr, ptr %at
  if %stage is null done step
step:
  %n = item i64 %at 1
  %pointers = item i64 %at 2
  %words = getelementptr i64, ptr %at, i64 3
  %bytes = shl i64 %n, 3
  call void @llvm.memcpy.p0.p0.i64(ptr %block, ptr %words, i64 %bytes, i1 false)
  %first = getelementptr i64, ptr %words, i64 %n
  goto pointing
pointing:
  %p = phi ptr [ %first, %step ], [ %p1, %point ]
  %left = phi i64 [ %pointers, %step ], [ %left1, %point ]
  if %left ne 0 point run
point:
  %place = load i64, ptr %p
  %from = item i64 %p 1
  %behind = item i64 %p 2
  %base = item i64 %args %from
  %pointer = add i64 %base, %behind
  put i64 %pointer %block [%place]
  %p1 = getelementptr i64, ptr %p, i64 3
  %left1 = sub i64 %left, 1
  goto pointing
run:
  call void %stage(ptr %block, i32 0, i32 1)
  %status = load i64, ptr %block
  if %status eq 0 next failed
failed:
  %detail = item i64 %block 1
  store i64 %status, ptr %args
  put i64 %detail %args [1]
  goto done
done:
  ret void
}

define void @weft_made_order(ptr %args, i32 %thread, i32 %threads) nounwind {
entry:
  %order = alloca [<SORTED> x i64], align 64
  %out = item ptr %args 2
  %in = item ptr %args 3
  %n = item i64 %args 5
  %width = item i64 %args 6
  %k = item i64 %args 7
  %descending64 = item i64 %args 8
  %descending = trunc i64 %descending64 to i1
  %bytes = shl i64 %k, 3
  goto row
row:
  %r = phi i64 [ 0, %entry ], [ %r1, %sorted ]
  %start = mul i64 %r, %width
  %x = getelementptr float, ptr %in, i64 %start
  if %r slt %n next done
next:
  %i = phi i64 [ 0, %row ], [ %i1, %placed ]
  if %i slt %width one sorted
one:
  %v_at = getelementptr float, ptr %x, i64 %i
  %v = load float, ptr %v_at
  %v_number = fcmp ord float %v, %v
  goto look
look:
  %j = phi i64 [ %i, %one ], [ %j1, %move ]
  %j1 = sub i64 %j, 1
  if %j sgt 0 compare placed
compare:
  %before = item i64 %order %j1
  %u_at = getelementptr float, ptr %x, i64 %before
  %u = load float, ptr %u_at
  %less = fcmp ult float %v, %u
  %more = fcmp ugt float %v, %u
  %u_number = fcmp ord float %u, %u
  %up = and i1 %less, %v_number
  %down = and i1 %more, %u_number
  %first = select i1 %descending, i1 %down, i1 %up
  if %first move placed
move:
  put i64 %before %order [%j]
  goto look
placed:
  put i64 %i %order [%j]
  %i1 = add i64 %i, 1
  goto next
sorted:
  %r_start = mul i64 %r, %k
  %to = getelementptr i64, ptr %out, i64 %r_start
  call void @llvm.memcpy.p0.p0.i64(ptr %to, ptr %order, i64 %bytes, i1 false)
  %r1 = add i64 %r, 1
  goto row
done:
  ret void
}

define void @weft_draw_uniform(ptr %args, i32 %thread, i32 %threads) nounwind {
entry:
  %buffer = alloca [<BUFFER> x i8], align 64
  %out = item ptr %args 2
  %in = item ptr %args 3
  %ints = getelementptr i64, ptr %args, i64 4
  %n = item i64 %ints 2
  %width = item i64 %ints 3
  %state = call ptr @begin(ptr %ints)
  if %state is null busy draw
busy:
  store i64 1, ptr %args
  ret void
draw:
  call void @weft_mt_uniform24(ptr %state, ptr %out, i64 %n)
  call void @end(ptr %ints)
  ret void
}

define void @weft_draw_normal(ptr %args, i32 %thread, i32 %threads) nounwind {
entry:
  %buffer = alloca [<BUFFER> x i8], align 64
  %out = item ptr %args 2
  %in = item ptr %args 3
  %ints = getelementptr i64, ptr %args, i64 4
  %n = item i64 %ints 2
  %width = item i64 %ints 3
  %state = call ptr @begin(ptr %ints)
  if %state is null busy draw
busy:
  store i64 1, ptr %args
  ret void
draw:
  %mean = item double %ints 3
  %std = item double %ints 4
  call void @weft_mt_uniform24(ptr %state, ptr %out, i64 %n)
  %mean32 = fptrunc double %mean to float
  %std32 = fptrunc double %std to float
  %blocks = lshr i64 %n, 4
  call void @weft_box_muller(ptr %out, i64 %blocks, float %mean32, float %std32)
  %over = and i64 %n, 15
  if %over ne 0 tail drawn
tail:
  call void @weft_mt_uniform24(ptr %state, ptr %buffer, i64 16)
  call void @weft_box_muller(ptr %buffer, i64 1, float %mean32, float %std32)
  %start = sub i64 %n, 16
  %last = getelementptr float, ptr %out, i64 %start
  call void @llvm.memcpy.p0.p0.i64(ptr %last, ptr %buffer, i64 64, i1 false)
  goto drawn
drawn:
  call void @end(ptr %ints)
  ret void
}

define void @weft_draw_normal_serial(ptr %args, i32 %thread, i32 %threads) nounwind {
entry:
  %buffer = alloca [<BUFFER> x i8], align 64
  %out = item ptr %args 2
  %in = item ptr %args 3
  %ints = getelementptr i64, ptr %args, i64 4
  %n = item i64 %ints 2
  %width = item i64 %ints 3
  %state = call ptr @begin(ptr %ints)
  if %state is null busy draw
busy:
  store i64 1, ptr %args
  ret void
draw:
  %mean = item double %ints 3
  %std = item double %ints 4
  %waits32 = get i32 %state <WAITS>
  %waits = zext i32 %waits32 to i64
  %missing = sub i64 %n, %waits
  %odd = and i64 %missing, 1
  %count = add i64 %missing, %odd
  %first = getelementptr double, ptr %buffer, i64 1
  call void @weft_mt_uniform53(ptr %state, ptr %first, i64 %count)
  call void @weft_normal_pairs(ptr %first, i64 %count)
  %waiting = get double %state <WAITING>
  store double %waiting, ptr %buffer
  %skip = sub i64 1, %waits
  goto each
each:
  %each_i = phi i64 [ 0, %draw ], [ %each_next, %each_one ]
  if %each_i slt %n each_one each_done
each_one:
  %each_next = add i64 %each_i, 1
  %place = add i64 %each_i, %skip
  %z = item double %buffer %place
  %scaled = fmul double %z, %std
  %moved = fadd double %scaled, %mean
  %float = fptrunc double %moved to float
  %float_at = getelementptr float, ptr %out, i64 %each_i
  store float %float, ptr %float_at
  goto each
each_done:
  %spare = item double %buffer %count
  put double %spare %state <WAITING>
  %odd32 = trunc i64 %odd to i32
  put i32 %odd32 %state <WAITS>
  call void @end(ptr %ints)
  ret void
}

define void @weft_draw_whole(ptr %args, i32 %thread, i32 %threads) nounwind {
entry:
  %buffer = alloca [<BUFFER> x i8], align 64
  %out = item ptr %args 2
  %in = item ptr %args 3
  %ints = getelementptr i64, ptr %args, i64 4
  %n = item i64 %ints 2
  %width = item i64 %ints 3
  %state = call ptr @begin(ptr %ints)
  if %state is null busy draw
busy:
  store i64 1, ptr %args
  ret void
draw:
  %low = item i64 %ints 3
  %span = item i64 %ints 4
  call void @weft_mt_words(ptr %state, ptr %buffer, i64 %n)
  goto each
each:
  %each_i = phi i64 [ 0, %draw ], [ %each_next, %each_one ]
  if %each_i slt %n each_one each_done
each_one:
  %each_next = add i64 %each_i, 1
  %word_at = getelementptr i32, ptr %buffer, i64 %each_i
  %word32 = load i32, ptr %word_at
  %word = zext i32 %word32 to i64
  %rest = urem i64 %word, %span
  %number = add i64 %rest, %low
  put i64 %number %out [%each_i]
  goto each
each_done:
  call void @end(ptr %ints)
  ret void
}

define void @weft_draw_permutation(ptr %args, i32 %thread, i32 %threads) nounwind {
entry:
  %buffer = alloca [<BUFFER> x i8], align 64
  %out = item ptr %args 2
  %in = item ptr %args 3
  %ints = getelementptr i64, ptr %args, i64 4
  %n = item i64 %ints 2
  %width = item i64 %ints 3
  %state = call ptr @begin(ptr %ints)
  if %state is null busy draw
busy:
  store i64 1, ptr %args
  ret void
draw:
  goto each
each:
  %each_i = phi i64 [ 0, %draw ], [ %each_next, %each_one ]
  if %each_i slt %n each_one each_done
each_one:
  %each_next = add i64 %each_i, 1
  put i64 %each_i %out [%each_i]
  goto each
each_done:
  %swaps = sub i64 %n, 1
  call void @weft_mt_words(ptr %state, ptr %buffer, i64 %swaps)
  call void @weft_mt_shuffle(ptr %out, ptr %buffer, i64 %n)
  call void @end(ptr %ints)
  ret void
}

define void @weft_draw_bernoulli(ptr %args, i32 %thread, i32 %threads) nounwind {
entry:
  %buffer = alloca [<BUFFER> x i8], align 64
  %out = item ptr %args 2
  %in = item ptr %args 3
  %ints = getelementptr i64, ptr %args, i64 4
  %n = item i64 %ints 2
  %width = item i64 %ints 3
  %state = call ptr @begin(ptr %ints)
  if %state is null busy draw
busy:
  store i64 1, ptr %args
  ret void
draw:
  %limit = item i64 %ints 3
  %hit = item double %ints 4
  %hit32 = fptrunc double %hit to float
  call void @weft_mt_below(ptr %state, ptr %buffer, i64 %n, i64 %limit)
  goto each
each:
  %each_i = phi i64 [ 0, %draw ], [ %each_next, %each_one ]
  if %each_i slt %n each_one each_done
each_one:
  %each_next = add i64 %each_i, 1
  %byte_at = getelementptr i8, ptr %buffer, i64 %each_i
  %byte = load i8, ptr %byte_at
  %is = icmp ne i8 %byte, 0
  %float = select i1 %is, float %hit32, float 0.0
  %float_at = getelementptr float, ptr %out, i64 %each_i
  store float %float, ptr %float_at
  goto each
each_done:
  call void @end(ptr %ints)
  ret void
}

define void @weft_draw_bernoulli_of(ptr %args, i32 %thread, i32 %threads) nounwind {
entry:
  %buffer = alloca [<BUFFER> x i8], align 64
  %out = item ptr %args 2
  %in = item ptr %args 3
  %ints = getelementptr i64, ptr %args, i64 5
  %n = item i64 %ints 2
  %width = item i64 %ints 3
  goto check
check:
  %c = phi i64 [ 0, %entry ], [ %c1, %checked ]
  %c_start = mul i64 %c, %width
  if %c slt %n check_next fine
check_next:
  %d = phi i64 [ 0, %check ], [ %d1, %fits ]
  %top = phi float [ 0.0, %check ], [ %top1, %fits ]
  if %d slt %width check_one checked
check_one:
  %c_at = add i64 %c_start, %d
  %q_at = getelementptr float, ptr %in, i64 %c_at
  %q = load float, ptr %q_at
  %least = fcmp oge float %q, 0.0
  %most = fcmp ole float %q, 1.0
  %inside = and i1 %least, %most
  if %inside fits busy
fits:
  %higher = fcmp ogt float %q, %top
  %top1 = select i1 %higher, float %q, float %top
  %d1 = add i64 %d, 1
  goto check_next
checked:
  %c1 = add i64 %c, 1
  %some = fcmp oge float %top, 0.0
  if %some check busy
fine:
  %state = call ptr @begin(ptr %ints)
  if %state is null busy draw
busy:
  store i64 1, ptr %args
  ret void
draw:
  call void @weft_mt_uniform24(ptr %state, ptr %out, i64 %n)
  goto each
each:
  %each_i = phi i64 [ 0, %draw ], [ %each_next, %each_one ]
  if %each_i slt %n each_one each_done
each_one:
  %each_next = add i64 %each_i, 1
  %at = getelementptr float, ptr %out, i64 %each_i
  %u = load float, ptr %at
  %p_at = getelementptr float, ptr %in, i64 %each_i
  %p = load float, ptr %p_at
  %is = fcmp olt float %u, %p
  %float = select i1 %is, float 1.0, float 0.0
  %float_at = getelementptr float, ptr %out, i64 %each_i
  store float %float, ptr %float_at
  goto each
each_done:
  call void @end(ptr %ints)
  ret void
}

define void @weft_draw_multinomial(ptr %args, i32 %thread, i32 %threads) nounwind {
entry:
  %buffer = alloca [<BUFFER> x i8], align 64
  %out = item ptr %args 2
  %in = item ptr %args 3
  %ints = getelementptr i64, ptr %args, i64 5
  %n = item i64 %ints 2
  %width = item i64 %ints 3
  goto check
check:
  %c = phi i64 [ 0, %entry ], [ %c1, %checked ]
  %c_start = mul i64 %c, %width
  if %c slt %n check_next fine
check_next:
  %d = phi i64 [ 0, %check ], [ %d1, %fits ]
  %top = phi float [ 0.0, %check ], [ %top1, %fits ]
  if %d slt %width check_one checked
check_one:
  %c_at = add i64 %c_start, %d
  %q_at = getelementptr float, ptr %in, i64 %c_at
  %q = load float, ptr %q_at
  %least = fcmp oge float %q, 0.0
  %most = fcmp olt float %q, 0x7FF0000000000000
  %inside = and i1 %least, %most
  if %inside fits busy
fits:
  %higher = fcmp ogt float %q, %top
  %top1 = select i1 %higher, float %q, float %top
  %d1 = add i64 %d, 1
  goto check_next
checked:
  %c1 = add i64 %c, 1
  %some = fcmp ogt float %top, 0.0
  if %some check busy
fine:
  %state = call ptr @begin(ptr %ints)
  if %state is null busy draw
busy:
  store i64 1, ptr %args
  ret void
draw:
  %total = mul i64 %n, %width
  call void @weft_mt_uniform53(ptr %state, ptr %buffer, i64 %total)
  goto each
each:
  %each_i = phi i64 [ 0, %draw ], [ %each_next, %each_one ]
  if %each_i slt %total each_one each_done
each_one:
  %each_next = add i64 %each_i, 1
  %u = item double %buffer %each_i
  %minus = fneg double %u
  put double %minus %buffer [%each_i]
  goto each
each_done:
  call void @weft_map_log1p(ptr %buffer, i64 %total)
  goto row
row:
  %r = phi i64 [ 0, %each_done ], [ %r1, %picked ]
  %start = mul i64 %r, %width
  if %r slt %n score drawn
score:
  %j = phi i64 [ 0, %row ], [ %j1, %scored ]
  %best = phi float [ 0xFFF0000000000000, %row ], [ %best1, %scored ]
  %which = phi i64 [ 0, %row ], [ %which1, %scored ]
  if %j slt %width scored picked
scored:
  %at = add i64 %start, %j
  %log = item double %buffer %at
  %rate = fneg double %log
  %rate32 = fptrunc double %rate to float
  %w_at = getelementptr float, ptr %in, i64 %at
  %w = load float, ptr %w_at
  %s = fdiv float %w, %rate32
  %number = fcmp ord float %best, %best  ; the first NaN stays
  %above = fcmp ugt float %s, %best
  %wins = and i1 %number, %above
  %best1 = select i1 %wins, float %s, float %best
  %which1 = select i1 %wins, i64 %j, i64 %which
  %j1 = add i64 %j, 1
  goto score
picked:
  put i64 %which %out [%r]
  %r1 = add i64 %r, 1
  goto row
drawn:
  call void @end(ptr %ints)
  ret void
}

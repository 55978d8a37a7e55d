"""LLVM IR of the Python builtin that runs an op on tensors of layouts met before, with the tape.

    quick(tensor, ...) -> Tensor, or None: the long way
    into(tensor, ...) -> True: the first one's memory has the result; or None

What `dispatch.apply` does for tensors of the plain classes (and a Python number, which takes the
first one's dtype: float32, float64, of ints int64) while nobody records: the arrays' call
(layout_code.py, which this is part of), then the view's link to its base or the tape node, filled
in place.  Before anything ran it gives None wherever Python has a say: other classes, ghosts, a
watch on nodes, a recorder (a compiled function's may know the call: match_code.py, then its
`known`).  `tests/runtime/test_quick.py` compares it with the Python.

Long because a line of IR says little: the call, a view's link and the tape node are here.
"""

ATTRIBUTES = (  # their names' objects
    "add_view", "recorder", "grad", "watch", "known", "__dict__", "devices",
)  # fmt: skip
HANDLE_SLOTS = ("_a", "_rg", "_fn", "_st", "_base", "_ghost", "_held")  # of a tensor
STORAGE_SLOTS = ("version", "views", "room")
SLOTS = ("op", "edges", "saved", "versions", "result", "seq", "hooks", "post", "line")

TEXT = """
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
  %three = icmp sle i64 %n, 3
  %simple = icmp eq i64 %kind, 1
  %fine = and i1 %three, %simple
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
  %keep_word = add i64 %wants, 4
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
"""

"""LLVM IR that matches a call inside a compiled function with the one its path expects next.

    match(session, op, (operand, ...)) -> Tensor, or None: the long way
    promise(session, [tensor, ...]) -> True, or None: record.promise_handles by Python

What `Session.apply` and `dispatch.record` (compile/record.py, ops/dispatch.py) do where the trie's
node has a `next` whose call this is: the op by identity, operands as results, outside tensors or
numbers in the places that it names.  Gives the ghost, with its link to a base and its tape node.
Until all is compared nothing has an effect but that outside tensors met for the first time
become known, and these are forgotten where one is not as expected.

The node's `native` is an int, the address of i64 words: 0 the op, 1 operands, 2 the op's table
(layout_code.py) or 0, 3 whether the result is a view, 4 to 8 its place, shape, strides, dtype and
offset, 9 unused, 10 and 11 as in an entry of layout_code.py; from 12 on three an operand: what it
is (0 a result, 1 an outside tensor known before, 2 one met first, 3 a number); its place, its key
or its class; of one met first that is the first in its memory, the address of i64 words (0 of
another): its place, descr, rank, dims, strides.

Long because a line of IR says little: a match, first uses and promised writes are here.
"""

SLOTS: dict[str, tuple[str, ...]] = {  # of which class
    "session": (
        "_handles", "_memories", "_pendings", "_places", "cursor", "ghosts", "matching", "numbers",
        "outside", "pending",
    ),
    "trie": ("children", "native", "next", "op"),
    "ghost": ("array", "dtype", "k", "offset", "outer", "session", "shape", "strides"),
}  # fmt: skip
ATTRIBUTES = ("_ref", "_forget")
CLASSES = ("session_class", "trie_class", "ghost_class", "pending_class")
WORDS = (
    *CLASSES, *ATTRIBUTES, *(f"{kind}.{name}" for kind, names in SLOTS.items() for name in names)
)  # fmt: skip

TEXT = """
; whether the object is there and of the class itself
define internal i1 @is_a(ptr %x, ptr %class) nounwind {
entry:
  %absent = icmp eq ptr %x, null
  if %absent no yes
no:
  ret i1 false
yes:
  %its = get ptr %x 8
  %same = icmp eq ptr %its, %class
  ret i1 %same
}

; Session.first_use of a tensor in a memory that the call has not met, where its place and layout
; are these: 1, else 0 and nothing is noted; -1 with an exception
define internal i32 @meet(ptr %session, ptr %x, ptr %w) nounwind {
entry:
  %none = word none
  %outside = slot %session session.outside
  %memories = slot %session session._memories
  %handles = slot %session session._handles
  %places = slot %session session._places
  %a = slot %x _a
  %ndarray = word ndarray
  %dict = word dict
  %dict0 = call i1 @is_a(ptr %memories, ptr %dict)
  %dict1 = call i1 @is_a(ptr %handles, ptr %dict)
  %dict2 = call i1 @is_a(ptr %places, ptr %dict)
  %is_array = call i1 @is_a(ptr %a, ptr %ndarray)
  %dicts = and i1 %dict0, %dict1
  %dicts_too = and i1 %dicts, %dict2
  %ready = and i1 %dicts_too, %is_array
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
  %dims_wanted = getelementptr i64, ptr %w, i64 3
  %strides_wanted = getelementptr i64, ptr %dims_wanted, i64 %rank
  if %all axes differs
axes:
  %i = phi i64 [ 0, %array ], [ %i1, %axis ]
  %more = icmp slt i64 %i, %rank
  if %more axis storage
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
  %no_memory = icmp eq ptr %made, null
  if %no_memory error owned
error:
  ret i32 -1
owned:
  renew ptr %made %x _st
  call void @Py_DecRef(ptr %made)
  goto base
base:  ; memory.root
  %st = phi ptr [ %old, %storage ], [ %made, %owned ]
  goto up
up:
  %at = phi ptr [ %a, %base ], [ %above, %upper ]
  %above = get ptr %at 48
  %top = icmp eq ptr %above, null
  if %top names upper
upper:
  %view = call i1 @is_a(ptr %above, ptr %ndarray)
  if %view up names
names:
  %root = phi ptr [ %at, %up ], [ %above, %upper ]
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
  %i_more = icmp slt i64 %i, %n
  if %i_more operand tape
operand:
  %x = item ptr %args %i
  %class = get ptr %x 8
  %thrice = mul i64 %i, 3
  %w_kind = add i64 %thrice, 12
  %w_value = add i64 %thrice, 13
  %kind = item i64 %e %w_kind
  %value = item i64 %e %w_value
  %flag = shl i64 1, %i
  %a_number = icmp eq i64 %kind, 3
  if %a_number number object
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
  %valued = icmp eq ptr %ghost, %none
  if %valued from_outside promised
from_outside:
  %is_known = icmp eq i64 %kind, 1
  %is_first = icmp eq i64 %kind, 2
  %firsts_too = or i64 %firsts, %flag
  if %is_known listed first
first:
  if %is_first wished nothing
listed:
  %within = icmp ult i64 %value, %met
  if %within place nothing
place:
  %there = call ptr @PyList_GetItem(ptr %outside, i64 %value)
  %is_there = icmp eq ptr %there, %x
  if %is_there wished nothing
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
  %here = icmp eq ptr %whose, %session
  if %here numbered nothing
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
  %j_more = icmp slt i64 %j, %n
  if %j_more one make
one:
  %shifted = lshr i64 %firsts, %j
  %first_bit = and i64 %shifted, 1
  %j1 = add i64 %j, 1
  %is_new = icmp ne i64 %first_bit, 0
  if %is_new meeting met_one
meeting:
  %new = item ptr %args %j
  %j_thrice = mul i64 %j, 3
  %w_layout = add i64 %j_thrice, 14
  %layout = item ptr %e %w_layout
  %in_old = icmp eq ptr %layout, null
  if %in_old by_key by_layout
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
  %no_key = icmp eq ptr %key, null
  if %no_key lose compare
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
  %no_count = icmp eq ptr %count, null
  if %no_count lose counted
counted:
  %name_forget = word _forget
  %forgot = call ptr (ptr, ptr, ...) @PyObject_CallMethodObjArgs(ptr %session, ptr %name_forget,
    ptr %count, ptr null)
  call void @Py_DecRef(ptr %count)
  %unforgotten = icmp eq ptr %forgot, null
  if %unforgotten lose forgotten
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
  %no_y = icmp eq ptr %y, null
  if %no_y lose promise
promise:
  %kind_of_ghost = word ghost_class
  %made = call ptr %object_new(ptr %kind_of_ghost, ptr %empty, ptr null)
  %unmade = icmp eq ptr %made, null
  if %unmade drop filled
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
  %above_ghost = icmp eq ptr %above_class, %ghosts_class
  if %above_ghost inner whole
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
  %q_more = icmp slt i64 %q, %n
  if %q_more pick moved
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
  %three = icmp eq i64 %n_given, 3
  if %three typed nothing
typed:
  %session = load ptr, ptr %given
  %op = item ptr %given 1
  %tuple = item ptr %given 2
  %class = get ptr %session 8
  %session_class = word session_class
  %is_session = icmp eq ptr %class, %session_class
  if %is_session sized nothing
sized:
  %n = call i64 @PyTuple_Size(ptr %tuple)
  %less = sub i64 %n, 1
  %few = icmp ult i64 %less, 8
  if %few next odd
odd:
  call void @PyErr_Clear()  ; where it is no tuple
  goto nothing
next:
  %i = phi i64 [ 0, %sized ], [ %i1, %taken ]
  %more = icmp slt i64 %i, %n
  if %more taken matched
taken:
  %x = call ptr @PyTuple_GetItem(ptr %tuple, i64 %i)
  put ptr %x %args [%i]
  %i1 = add i64 %i, 1
  goto next
matched:
  %y = call ptr @match(ptr %session, ptr %op, ptr %args, i64 %n)
  %none = word none
  %missed = icmp eq ptr %y, %none
  if %missed nothing done
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
  %two = icmp eq i64 %n_given, 2
  if %two typed nothing
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
  %more = icmp slt i64 %i, %n
  if %more ask make
ask:
  %x = call ptr @PyList_GetItem(ptr %handles, i64 %i)
  %is_handle = call i1 @is_handle(ptr %x)
  if %is_handle one nothing
one:
  %ghost = slot %x _ghost
  %valued = icmp eq ptr %ghost, %none
  if %valued value look
value:
  %base = slot %x _base
  %whole = icmp eq ptr %base, %none
  if %whole look nothing
make:
  %j = phi i64 [ 0, %look ], [ %j1, %next ], [ %j1, %kept ]
  %j1 = add i64 %j, 1
  %j_more = icmp slt i64 %j, %n
  if %j_more next done
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
  %no_id = icmp eq ptr %id, null
  if %no_id error find
error:
  ret ptr null
find:
  %at = call ptr @PyDict_GetItemWithError(ptr %places, ptr %id)
  call void @Py_DecRef(ptr %id)
  %unplaced = icmp eq ptr %at, null
  if %unplaced nothing number
number:
  %at_ptr = call ptr @PyLong_AsVoidPtr(ptr %at)
  %at_int = ptrtoint ptr %at_ptr to i64
  %inverse = xor i64 %at_int, -1
  %k = call ptr @PyLong_FromLongLong(i64 %inverse)
  %no_k = icmp eq ptr %k, null
  if %no_k error new
new:
  %made = call ptr %object_new(ptr %pending_class, ptr %empty, ptr null)
  %unmade = icmp eq ptr %made, null
  if %unmade error filled
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
"""

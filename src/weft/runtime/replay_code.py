"""LLVM IR of a Python builtin that runs a whole program on tensors, if all is as it was.

    call(tensor, ...) -> the result's ndarray, or a tuple of ndarrays; None: nothing was done

It walks a stream of `guard_code`, compares the arguments with what was recorded (their class, place
on the tape, layout in `PyArrayObject_fields`; memory that no other argument and nothing outside
has), makes the results, puts the pointers into the program's table and runs it, the global lock
released. The arguments' arrays are held meanwhile. A kernel that reports bad data gives None too:
whoever called runs the program again, the long way, and raises what there is to raise.

`self` is an int, the address of i64 words: 0 stream, 1 arguments, 2 their words, 3 results, 4 their
words, 5 roots, 6 the roots: ids of the arrays that own memory outside, 7 the table, 8 its entries,
9 three words for what it reports, 10 the tensors' class. An argument's words: dtype, rank, dims,
strides, the number of places, for each its address and what to add to the array's; a result's:
dtype, rank, address of its dims, a callable that makes it or 0, the number of places, the places.
"""

from weft.runtime import ir_text

EXPORTS = ("weft_replay_init", "weft_replay_call")
FUNCTIONS_USED = (
    "Py_IncRef", "PyEval_SaveThread", "PyEval_RestoreThread", "PyObject_CallNoArgs",
    "PyTuple_New", "PyTuple_SetItem",
)  # fmt: skip
NAMES = ("_ghost", "_rg", "_fn", "_hooks", "_a")
MOST = 512  # arguments, and results

_TEXT = """
declare void @Py_IncRef(ptr)
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)
declare ptr @PyObject_CallNoArgs(ptr)
declare ptr @PyTuple_New(i64)
declare i32 @PyTuple_SetItem(ptr, i64, ptr)
declare void @weft_run_table(ptr, i64, i64, ptr)
@ndarray = internal global ptr null
@none = internal global ptr null
@new = internal global ptr null
; name, what the attribute must be
@plain = internal global [8 x ptr] zeroinitializer
@array_name = internal global ptr null

; ndarray, None, PyArray_NewFromDescr, False, then NAMES
define void @weft_replay_init(ptr %words) nounwind {
  %a = load ptr, ptr %words
  store ptr %a, ptr @ndarray
  %b = item ptr %words 1
  store ptr %b, ptr @none
  %c = item ptr %words 2
  store ptr %c, ptr @new
  %no = item ptr %words 3
  %n0 = item ptr %words 4
  store ptr %n0, ptr @plain
  store ptr %b, ptr getelementptr (ptr, ptr @plain, i64 1)
  %n1 = item ptr %words 5
  store ptr %n1, ptr getelementptr (ptr, ptr @plain, i64 2)
  store ptr %no, ptr getelementptr (ptr, ptr @plain, i64 3)
  %n2 = item ptr %words 6
  store ptr %n2, ptr getelementptr (ptr, ptr @plain, i64 4)
  store ptr %b, ptr getelementptr (ptr, ptr @plain, i64 5)
  %n3 = item ptr %words 7
  store ptr %n3, ptr getelementptr (ptr, ptr @plain, i64 6)
  store ptr %b, ptr getelementptr (ptr, ptr @plain, i64 7)
  %n4 = item ptr %words 8
  store ptr %n4, ptr @array_name
  ret void
}

; a tensor's array, a new reference, if it is off the tape and has its value; else null
define internal ptr @array_of(ptr %x) nounwind {
entry:
  goto next
next:
  %i = phi i64 [ 0, %entry ], [ %i2, %same ]
  %more = icmp slt i64 %i, 8
  if %more look value
look:
  %name_at = getelementptr ptr, ptr @plain, i64 %i
  %name = load ptr, ptr %name_at
  %now = call ptr @PyObject_GetAttr(ptr %x, ptr %name)
  %lost = icmp eq ptr %now, null
  if %lost error compare
compare:
  call void @Py_DecRef(ptr %now)
  %i1 = add i64 %i, 1
  %was_at = getelementptr ptr, ptr @plain, i64 %i1
  %was = load ptr, ptr %was_at
  %is = icmp eq ptr %now, %was
  if %is same no
same:
  %i2 = add i64 %i, 2
  goto next
value:
  %a_name = load ptr, ptr @array_name
  %a = call ptr @PyObject_GetAttr(ptr %x, ptr %a_name)
  %none = icmp eq ptr %a, null
  if %none error class
class:
  %type = item ptr %a 1
  %ndarray = load ptr, ptr @ndarray
  %plain_array = icmp eq ptr %type, %ndarray
  if %plain_array good other
good:
  ret ptr %a
other:
  call void @Py_DecRef(ptr %a)
  goto no
error:
  call void @PyErr_Clear()
  goto no
no:
  ret ptr null
}

; put a pointer into its places: n, then (address, offset) each; what follows them
define internal ptr @put(ptr %words, ptr %data) alwaysinline nounwind {
entry:
  %n = load i64, ptr %words
  %first = getelementptr i64, ptr %words, i64 1
  goto next
next:
  %i = phi i64 [ 0, %entry ], [ %i1, %one ]
  %w = phi ptr [ %first, %entry ], [ %w1, %one ]
  %more = icmp slt i64 %i, %n
  if %more one done
one:
  %place = load ptr, ptr %w
  %offset = item i64 %w 1
  %there = getelementptr i8, ptr %data, i64 %offset
  store ptr %there, ptr %place
  %w1 = getelementptr i64, ptr %w, i64 2
  %i1 = add i64 %i, 1
  goto next
done:
  ret ptr %w
}

define internal i1 @among(ptr %words, i64 %n, ptr %x) nounwind {
entry:
  goto next
next:
  %i = phi i64 [ 0, %entry ], [ %i1, %one ]
  %more = icmp slt i64 %i, %n
  if %more one no
one:
  %at = getelementptr ptr, ptr %words, i64 %i
  %y = load ptr, ptr %at
  %i1 = add i64 %i, 1
  %same = icmp eq ptr %x, %y
  if %same yes next
yes:
  ret i1 true
no:
  ret i1 false
}

define ptr @weft_replay_call(ptr %self, ptr %args, i64 %n) nounwind {
entry:
  %held = alloca [MOST x ptr]
  %held_roots = alloca [MOST x ptr]
  %made = alloca [MOST x ptr]
  %head = call ptr @PyLong_AsVoidPtr(ptr %self)
  %n_args = item i64 %head 1
  %as_many = icmp eq i64 %n, %n_args
  if %as_many guard nothing
guard:
  %stream = load ptr, ptr %head
  %holds = call i1 @weft_guard_walk(ptr %stream)
  if %holds bind nothing
bind:
  %class = item ptr %head 10
  %arg_words = item ptr %head 2
  %n_roots = item i64 %head 5
  %roots = item ptr %head 6
  goto arguments
arguments:
  %i = phi i64 [ 0, %bind ], [ %i1, %bound ]
  %w = phi ptr [ %arg_words, %bind ], [ %w_next, %bound ]
  %i_more = icmp slt i64 %i, %n
  if %i_more argument results
argument:
  %x = item ptr %args %i
  %kind = item ptr %x 1
  %is_tensor = icmp eq ptr %kind, %class
  if %is_tensor tensor drop_held
tensor:
  %a = call ptr @array_of(ptr %x)
  %no_array = icmp eq ptr %a, null
  if %no_array drop_held array
array:
  put ptr %a %held [%i]
  %i1 = add i64 %i, 1
  %descr = get ptr %a 56
  %descr_was = load ptr, ptr %w
  %descr_same = icmp eq ptr %descr, %descr_was
  %rank32 = get i32 %a 24
  %rank = sext i32 %rank32 to i64
  %rank_was = item i64 %w 1
  %rank_same = icmp eq i64 %rank, %rank_was
  %alike = and i1 %descr_same, %rank_same
  %dims = get ptr %a 32
  %strides = get ptr %a 40
  %dims_was = getelementptr i64, ptr %w, i64 2
  %strides_was = getelementptr i64, ptr %dims_was, i64 %rank_was
  %places = getelementptr i64, ptr %strides_was, i64 %rank_was
  if %alike axes drop_more
axes:
  %k = phi i64 [ 0, %array ], [ %k1, %axis ]
  %k_more = icmp slt i64 %k, %rank
  if %k_more axis owner
axis:
  %d = item i64 %dims %k
  %d_was = item i64 %dims_was %k
  %s = item i64 %strides %k
  %s_was = item i64 %strides_was %k
  %d_same = icmp eq i64 %d, %d_was
  %s_same = icmp eq i64 %s, %s_was
  %axis_same = and i1 %d_same, %s_same
  %k1 = add i64 %k, 1
  if %axis_same axes drop_more
owner:  ; memory.root
  %view = phi ptr [ %a, %axes ], [ %base, %based ]
  %base = get ptr %view 48
  %own = icmp eq ptr %base, null
  if %own rooted based
based:
  %base_kind = item ptr %base 1
  %arrays = load ptr, ptr @ndarray
  %view_too = icmp eq ptr %base_kind, %arrays
  if %view_too owner rooted
rooted:
  %root = phi ptr [ %view, %owner ], [ %base, %based ]
  %outside = call i1 @among(ptr %roots, i64 %n_roots, ptr %root)
  if %outside drop_more beside
beside:
  %shared = call i1 @among(ptr %held_roots, i64 %i, ptr %root)
  if %shared drop_more bound
bound:
  put ptr %root %held_roots [%i]
  %data = get ptr %a 16
  %w_next = call ptr @put(ptr %places, ptr %data)
  goto arguments

results:
  %n_outs = item i64 %head 3
  %out_words = item ptr %head 4
  %type = load ptr, ptr @ndarray
  goto outs
outs:
  %o = phi i64 [ 0, %results ], [ %o1, %fresh ]
  %ow = phi ptr [ %out_words, %results ], [ %ow_next, %fresh ]
  %o_more = icmp slt i64 %o, %n_outs
  if %o_more out run
out:
  %o_descr = load ptr, ptr %ow
  %o_rank64 = item i64 %ow 1
  %o_rank = trunc i64 %o_rank64 to i32
  %o_dims = item ptr %ow 2
  %maker = item ptr %ow 3
  %o_places = getelementptr i64, ptr %ow, i64 4
  %large = icmp ne ptr %maker, null
  if %large ask make
ask:
  %given = call ptr @PyObject_CallNoArgs(ptr %maker)
  goto answered
make:
  call void @Py_IncRef(ptr %o_descr)
  %new = load ptr, ptr @new
  %small = call ptr %new(ptr %type, ptr %o_descr, i32 %o_rank,
    ptr %o_dims, ptr null, ptr null, i32 0, ptr null)
  goto answered
answered:
  %y = phi ptr [ %given, %ask ], [ %small, %make ]
  %failed = icmp eq ptr %y, null
  if %failed no_memory fresh
no_memory:
  call void @PyErr_Clear()
  goto drop_made
fresh:
  put ptr %y %made [%o]
  %y_data = get ptr %y 16
  %ow_next = call ptr @put(ptr %o_places, ptr %y_data)
  %o1 = add i64 %o, 1
  goto outs

run:
  %table = item ptr %head 7
  %entries = item i64 %head 8
  %report = item ptr %head 9
  %state = call ptr @PyEval_SaveThread()
  call void @weft_run_table(ptr %table, i64 0, i64 %entries, ptr %report)
  call void @PyEval_RestoreThread(ptr %state)
  %index = load i64, ptr %report
  %good = icmp eq i64 %index, -1
  if %good give drop_made

give:
  call void @drop(ptr %held, i64 %n)
  %one = icmp eq i64 %n_outs, 1
  if %one single several
single:
  %only = load ptr, ptr %made
  ret ptr %only
several:
  %tuple = call ptr @PyTuple_New(i64 %n_outs)
  %no_tuple = icmp eq ptr %tuple, null
  if %no_tuple tuple_lost items
tuple_lost:
  call void @drop(ptr %made, i64 %n_outs)
  ret ptr null
items:
  %t = phi i64 [ 0, %several ], [ %t1, %item ]
  %t_more = icmp slt i64 %t, %n_outs
  if %t_more item filled
item:
  %item_is = item ptr %made %t
  %set = call i32 @PyTuple_SetItem(ptr %tuple, i64 %t, ptr %item_is)
  %t1 = add i64 %t, 1
  goto items
filled:
  ret ptr %tuple

drop_made:
  %o_held = phi i64 [ %o, %no_memory ], [ %n_outs, %run ]
  call void @drop(ptr %made, i64 %o_held)
  goto drop_all
drop_all:
  call void @drop(ptr %held, i64 %n)
  goto nothing
drop_more:
  call void @drop(ptr %held, i64 %i1)
  goto nothing
drop_held:
  call void @drop(ptr %held, i64 %i)
  goto nothing
nothing:
  %nothing_at_all = load ptr, ptr @none
  call void @Py_IncRef(ptr %nothing_at_all)
  ret ptr %nothing_at_all
}

define internal void @drop(ptr %objects, i64 %n) nounwind {
entry:
  goto next
next:
  %i = phi i64 [ 0, %entry ], [ %i1, %one ]
  %more = icmp slt i64 %i, %n
  if %more one done
one:
  %at = getelementptr ptr, ptr %objects, i64 %i
  %x = load ptr, ptr %at
  call void @Py_DecRef(ptr %x)
  %i1 = add i64 %i, 1
  goto next
done:
  ret void
}
"""
TEXT = ir_text.expand(_TEXT.replace("MOST", str(MOST)))

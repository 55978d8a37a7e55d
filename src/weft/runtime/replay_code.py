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

EXPORTS = ("weft_replay_init", "weft_replay_call")
FUNCTIONS_USED = (
    "Py_IncRef", "PyEval_SaveThread", "PyEval_RestoreThread", "PyObject_CallNoArgs",
    "PyTuple_New", "PyTuple_SetItem",
)  # fmt: skip
NAMES = ("_ghost", "_rg", "_fn", "_hooks", "_a")
MOST = 512  # arguments, and results

TEXT = """
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
  %b_at = getelementptr ptr, ptr %words, i64 1
  %b = load ptr, ptr %b_at
  store ptr %b, ptr @none
  %c_at = getelementptr ptr, ptr %words, i64 2
  %c = load ptr, ptr %c_at
  store ptr %c, ptr @new
  %no_at = getelementptr ptr, ptr %words, i64 3
  %no = load ptr, ptr %no_at
  %n0_at = getelementptr ptr, ptr %words, i64 4
  %n0 = load ptr, ptr %n0_at
  store ptr %n0, ptr @plain
  store ptr %b, ptr getelementptr (ptr, ptr @plain, i64 1)
  %n1_at = getelementptr ptr, ptr %words, i64 5
  %n1 = load ptr, ptr %n1_at
  store ptr %n1, ptr getelementptr (ptr, ptr @plain, i64 2)
  store ptr %no, ptr getelementptr (ptr, ptr @plain, i64 3)
  %n2_at = getelementptr ptr, ptr %words, i64 6
  %n2 = load ptr, ptr %n2_at
  store ptr %n2, ptr getelementptr (ptr, ptr @plain, i64 4)
  store ptr %b, ptr getelementptr (ptr, ptr @plain, i64 5)
  %n3_at = getelementptr ptr, ptr %words, i64 7
  %n3 = load ptr, ptr %n3_at
  store ptr %n3, ptr getelementptr (ptr, ptr @plain, i64 6)
  store ptr %b, ptr getelementptr (ptr, ptr @plain, i64 7)
  %n4_at = getelementptr ptr, ptr %words, i64 8
  %n4 = load ptr, ptr %n4_at
  store ptr %n4, ptr @array_name
  ret void
}

; a tensor's array, a new reference, if it is off the tape and has its value; else null
define internal ptr @array_of(ptr %x) nounwind {
entry:
  br label %next
next:
  %i = phi i64 [ 0, %entry ], [ %i2, %same ]
  %more = icmp slt i64 %i, 8
  br i1 %more, label %look, label %value
look:
  %name_at = getelementptr ptr, ptr @plain, i64 %i
  %name = load ptr, ptr %name_at
  %now = call ptr @PyObject_GetAttr(ptr %x, ptr %name)
  %lost = icmp eq ptr %now, null
  br i1 %lost, label %error, label %compare
compare:
  call void @Py_DecRef(ptr %now)
  %i1 = add i64 %i, 1
  %was_at = getelementptr ptr, ptr @plain, i64 %i1
  %was = load ptr, ptr %was_at
  %is = icmp eq ptr %now, %was
  br i1 %is, label %same, label %no
same:
  %i2 = add i64 %i, 2
  br label %next
value:
  %a_name = load ptr, ptr @array_name
  %a = call ptr @PyObject_GetAttr(ptr %x, ptr %a_name)
  %none = icmp eq ptr %a, null
  br i1 %none, label %error, label %class
class:
  %type_at = getelementptr ptr, ptr %a, i64 1
  %type = load ptr, ptr %type_at
  %ndarray = load ptr, ptr @ndarray
  %plain_array = icmp eq ptr %type, %ndarray
  br i1 %plain_array, label %good, label %other
good:
  ret ptr %a
other:
  call void @Py_DecRef(ptr %a)
  br label %no
error:
  call void @PyErr_Clear()
  br label %no
no:
  ret ptr null
}

; put a pointer into its places: n, then (address, offset) each; what follows them
define internal ptr @put(ptr %words, ptr %data) alwaysinline nounwind {
entry:
  %n = load i64, ptr %words
  %first = getelementptr i64, ptr %words, i64 1
  br label %next
next:
  %i = phi i64 [ 0, %entry ], [ %i1, %one ]
  %w = phi ptr [ %first, %entry ], [ %w1, %one ]
  %more = icmp slt i64 %i, %n
  br i1 %more, label %one, label %done
one:
  %place = load ptr, ptr %w
  %offset_at = getelementptr i64, ptr %w, i64 1
  %offset = load i64, ptr %offset_at
  %there = getelementptr i8, ptr %data, i64 %offset
  store ptr %there, ptr %place
  %w1 = getelementptr i64, ptr %w, i64 2
  %i1 = add i64 %i, 1
  br label %next
done:
  ret ptr %w
}

define internal i1 @among(ptr %words, i64 %n, ptr %x) nounwind {
entry:
  br label %next
next:
  %i = phi i64 [ 0, %entry ], [ %i1, %one ]
  %more = icmp slt i64 %i, %n
  br i1 %more, label %one, label %no
one:
  %at = getelementptr ptr, ptr %words, i64 %i
  %y = load ptr, ptr %at
  %i1 = add i64 %i, 1
  %same = icmp eq ptr %x, %y
  br i1 %same, label %yes, label %next
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
  %n_args_at = getelementptr i64, ptr %head, i64 1
  %n_args = load i64, ptr %n_args_at
  %as_many = icmp eq i64 %n, %n_args
  br i1 %as_many, label %guard, label %nothing
guard:
  %stream = load ptr, ptr %head
  %holds = call i1 @weft_guard_walk(ptr %stream)
  br i1 %holds, label %bind, label %nothing
bind:
  %class_at = getelementptr i64, ptr %head, i64 10
  %class = load ptr, ptr %class_at
  %arg_words_at = getelementptr i64, ptr %head, i64 2
  %arg_words = load ptr, ptr %arg_words_at
  %n_roots_at = getelementptr i64, ptr %head, i64 5
  %n_roots = load i64, ptr %n_roots_at
  %roots_at = getelementptr i64, ptr %head, i64 6
  %roots = load ptr, ptr %roots_at
  br label %arguments
arguments:
  %i = phi i64 [ 0, %bind ], [ %i1, %bound ]
  %w = phi ptr [ %arg_words, %bind ], [ %w_next, %bound ]
  %i_more = icmp slt i64 %i, %n
  br i1 %i_more, label %argument, label %results
argument:
  %x_at = getelementptr ptr, ptr %args, i64 %i
  %x = load ptr, ptr %x_at
  %kind_at = getelementptr ptr, ptr %x, i64 1
  %kind = load ptr, ptr %kind_at
  %is_tensor = icmp eq ptr %kind, %class
  br i1 %is_tensor, label %tensor, label %drop_held
tensor:
  %a = call ptr @array_of(ptr %x)
  %no_array = icmp eq ptr %a, null
  br i1 %no_array, label %drop_held, label %array
array:
  %mine_at = getelementptr ptr, ptr %held, i64 %i
  store ptr %a, ptr %mine_at
  %i1 = add i64 %i, 1
  %descr_at = getelementptr i8, ptr %a, i64 56
  %descr = load ptr, ptr %descr_at
  %descr_was = load ptr, ptr %w
  %descr_same = icmp eq ptr %descr, %descr_was
  %rank_at = getelementptr i8, ptr %a, i64 24
  %rank32 = load i32, ptr %rank_at
  %rank = sext i32 %rank32 to i64
  %rank_was_at = getelementptr i64, ptr %w, i64 1
  %rank_was = load i64, ptr %rank_was_at
  %rank_same = icmp eq i64 %rank, %rank_was
  %alike = and i1 %descr_same, %rank_same
  %dims_at = getelementptr i8, ptr %a, i64 32
  %dims = load ptr, ptr %dims_at
  %strides_at = getelementptr i8, ptr %a, i64 40
  %strides = load ptr, ptr %strides_at
  %dims_was = getelementptr i64, ptr %w, i64 2
  %strides_was = getelementptr i64, ptr %dims_was, i64 %rank_was
  %places = getelementptr i64, ptr %strides_was, i64 %rank_was
  br i1 %alike, label %axes, label %drop_more
axes:
  %k = phi i64 [ 0, %array ], [ %k1, %axis ]
  %k_more = icmp slt i64 %k, %rank
  br i1 %k_more, label %axis, label %owner
axis:
  %d_at = getelementptr i64, ptr %dims, i64 %k
  %d = load i64, ptr %d_at
  %d_was_at = getelementptr i64, ptr %dims_was, i64 %k
  %d_was = load i64, ptr %d_was_at
  %s_at = getelementptr i64, ptr %strides, i64 %k
  %s = load i64, ptr %s_at
  %s_was_at = getelementptr i64, ptr %strides_was, i64 %k
  %s_was = load i64, ptr %s_was_at
  %d_same = icmp eq i64 %d, %d_was
  %s_same = icmp eq i64 %s, %s_was
  %axis_same = and i1 %d_same, %s_same
  %k1 = add i64 %k, 1
  br i1 %axis_same, label %axes, label %drop_more
owner:  ; memory.root
  %view = phi ptr [ %a, %axes ], [ %base, %based ]
  %base_at = getelementptr i8, ptr %view, i64 48
  %base = load ptr, ptr %base_at
  %own = icmp eq ptr %base, null
  br i1 %own, label %rooted, label %based
based:
  %base_kind_at = getelementptr ptr, ptr %base, i64 1
  %base_kind = load ptr, ptr %base_kind_at
  %arrays = load ptr, ptr @ndarray
  %view_too = icmp eq ptr %base_kind, %arrays
  br i1 %view_too, label %owner, label %rooted
rooted:
  %root = phi ptr [ %view, %owner ], [ %base, %based ]
  %outside = call i1 @among(ptr %roots, i64 %n_roots, ptr %root)
  br i1 %outside, label %drop_more, label %beside
beside:
  %shared = call i1 @among(ptr %held_roots, i64 %i, ptr %root)
  br i1 %shared, label %drop_more, label %bound
bound:
  %root_at = getelementptr ptr, ptr %held_roots, i64 %i
  store ptr %root, ptr %root_at
  %data_at = getelementptr i8, ptr %a, i64 16
  %data = load ptr, ptr %data_at
  %w_next = call ptr @put(ptr %places, ptr %data)
  br label %arguments

results:
  %n_outs_at = getelementptr i64, ptr %head, i64 3
  %n_outs = load i64, ptr %n_outs_at
  %out_words_at = getelementptr i64, ptr %head, i64 4
  %out_words = load ptr, ptr %out_words_at
  %type = load ptr, ptr @ndarray
  br label %outs
outs:
  %o = phi i64 [ 0, %results ], [ %o1, %fresh ]
  %ow = phi ptr [ %out_words, %results ], [ %ow_next, %fresh ]
  %o_more = icmp slt i64 %o, %n_outs
  br i1 %o_more, label %out, label %run
out:
  %o_descr = load ptr, ptr %ow
  %o_rank_at = getelementptr i64, ptr %ow, i64 1
  %o_rank64 = load i64, ptr %o_rank_at
  %o_rank = trunc i64 %o_rank64 to i32
  %o_dims_at = getelementptr i64, ptr %ow, i64 2
  %o_dims = load ptr, ptr %o_dims_at
  %maker_at = getelementptr i64, ptr %ow, i64 3
  %maker = load ptr, ptr %maker_at
  %o_places = getelementptr i64, ptr %ow, i64 4
  %large = icmp ne ptr %maker, null
  br i1 %large, label %ask, label %make
ask:
  %given = call ptr @PyObject_CallNoArgs(ptr %maker)
  br label %answered
make:
  call void @Py_IncRef(ptr %o_descr)
  %new = load ptr, ptr @new
  %small = call ptr %new(ptr %type, ptr %o_descr, i32 %o_rank,
    ptr %o_dims, ptr null, ptr null, i32 0, ptr null)
  br label %answered
answered:
  %y = phi ptr [ %given, %ask ], [ %small, %make ]
  %failed = icmp eq ptr %y, null
  br i1 %failed, label %no_memory, label %fresh
no_memory:
  call void @PyErr_Clear()
  br label %drop_made
fresh:
  %y_at = getelementptr ptr, ptr %made, i64 %o
  store ptr %y, ptr %y_at
  %y_data_at = getelementptr i8, ptr %y, i64 16
  %y_data = load ptr, ptr %y_data_at
  %ow_next = call ptr @put(ptr %o_places, ptr %y_data)
  %o1 = add i64 %o, 1
  br label %outs

run:
  %table_at = getelementptr i64, ptr %head, i64 7
  %table = load ptr, ptr %table_at
  %entries_at = getelementptr i64, ptr %head, i64 8
  %entries = load i64, ptr %entries_at
  %report_at = getelementptr i64, ptr %head, i64 9
  %report = load ptr, ptr %report_at
  %state = call ptr @PyEval_SaveThread()
  call void @weft_run_table(ptr %table, i64 0, i64 %entries, ptr %report)
  call void @PyEval_RestoreThread(ptr %state)
  %index = load i64, ptr %report
  %good = icmp eq i64 %index, -1
  br i1 %good, label %give, label %drop_made

give:
  call void @drop(ptr %held, i64 %n)
  %one = icmp eq i64 %n_outs, 1
  br i1 %one, label %single, label %several
single:
  %only = load ptr, ptr %made
  ret ptr %only
several:
  %tuple = call ptr @PyTuple_New(i64 %n_outs)
  %no_tuple = icmp eq ptr %tuple, null
  br i1 %no_tuple, label %tuple_lost, label %items
tuple_lost:
  call void @drop(ptr %made, i64 %n_outs)
  ret ptr null
items:
  %t = phi i64 [ 0, %several ], [ %t1, %item ]
  %t_more = icmp slt i64 %t, %n_outs
  br i1 %t_more, label %item, label %filled
item:
  %item_at = getelementptr ptr, ptr %made, i64 %t
  %item_is = load ptr, ptr %item_at
  %set = call i32 @PyTuple_SetItem(ptr %tuple, i64 %t, ptr %item_is)
  %t1 = add i64 %t, 1
  br label %items
filled:
  ret ptr %tuple

drop_made:
  %o_held = phi i64 [ %o, %no_memory ], [ %n_outs, %run ]
  call void @drop(ptr %made, i64 %o_held)
  br label %drop_all
drop_all:
  call void @drop(ptr %held, i64 %n)
  br label %nothing
drop_more:
  call void @drop(ptr %held, i64 %i1)
  br label %nothing
drop_held:
  call void @drop(ptr %held, i64 %i)
  br label %nothing
nothing:
  %nothing_at_all = load ptr, ptr @none
  call void @Py_IncRef(ptr %nothing_at_all)
  ret ptr %nothing_at_all
}

define internal void @drop(ptr %objects, i64 %n) nounwind {
entry:
  br label %next
next:
  %i = phi i64 [ 0, %entry ], [ %i1, %one ]
  %more = icmp slt i64 %i, %n
  br i1 %more, label %one, label %done
one:
  %at = getelementptr ptr, ptr %objects, i64 %i
  %x = load ptr, ptr %at
  call void @Py_DecRef(ptr %x)
  %i1 = add i64 %i, 1
  br label %next
done:
  ret void
}
""".replace("MOST", str(MOST))

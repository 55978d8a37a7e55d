"""LLVM IR of a Python builtin that says whether objects are still what and where they were.

    check() -> bool

Its `self` is an int, the address of a *stream*: instructions of i64 words, walked until one finds a
difference (False) or the stream ends (True). Objects are compared by identity alone: "no" may mean
an equal object made anew, and whoever asked looks for himself. The words hold pointers to objects
that the stream's owner keeps alive; what lies inside them is compared as a number, and looked into
only where it is a float that its container holds, with the global lock held. Only ATTRIBUTES
runs code of others, between whose words nothing borrowed is held.

    0                                     the end
    1 n (address, word) x n               WORDS: the word at the address
    2 n (dict, tag, length, entries) x n  DICTS' entries, in order: (key, mode, value) each
    3 n list (item) x n                   a LIST's items
    4 n (dict, key, value) x n            NAMES: one entry each; value 0: there is none
    5 n (function, code, defaults) x n    FUNCTIONS
    6 n (object, dict) x n                HIDDEN dicts of objects whose place is not known
    7 n (object, name, value) x n         ATTRIBUTES

A dict's tag is the number of its last change that CPython keeps up to 3.12: where it is the one of
the last look that found all in place, the entries are so. 0: there is none. Entries lie behind the
end of the stream, since they are rarely looked at: what is read comes from memory.

Modes: 0 the value itself, 1 a float, 2 a float that is 0 (value 0) or not (1), 3 anything, 4
anything but the value. The struct fields read are CPython's from 3.11 to 3.14: the word behind
the header of a dict (its length), a list (its length, then its items), a cell, a float.
"""

from weft.runtime import ir_text

END, WORDS, DICTS, LIST, NAMES, FUNCTIONS, HIDDEN, ATTRIBUTES = range(8)
SAME, FLOAT, FLOAT_IS, ANY, OTHER = range(5)

EXPORTS = ("weft_guard_init", "weft_guard_check")
FUNCTIONS_USED = (
    "PyLong_AsVoidPtr", "PyBool_FromLong", "PyDict_Next", "PyDict_GetItemWithError",
    "PyFunction_GetCode", "PyFunction_GetDefaults", "PyObject_GenericGetDict", "PyObject_GetAttr",
    "PyErr_Clear", "Py_DecRef",
)  # fmt: skip

_TEXT = """
declare ptr @PyLong_AsVoidPtr(ptr)
declare ptr @PyBool_FromLong(i64)
declare i32 @PyDict_Next(ptr, ptr, ptr, ptr)
declare ptr @PyDict_GetItemWithError(ptr, ptr)
declare ptr @PyFunction_GetCode(ptr)
declare ptr @PyFunction_GetDefaults(ptr)
declare ptr @PyObject_GenericGetDict(ptr, ptr)
declare ptr @PyObject_GetAttr(ptr, ptr)
declare void @PyErr_Clear()
declare void @Py_DecRef(ptr)
@float = internal global ptr null

define void @weft_guard_init(ptr %a) nounwind {
  store ptr %a, ptr @float
  ret void
}

define ptr @weft_guard_check(ptr %self, ptr %nothing) nounwind {
  %stream = call ptr @PyLong_AsVoidPtr(ptr %self)
  %same = call i1 @weft_guard_walk(ptr %stream)
  %number = zext i1 %same to i64
  %answer = call ptr @PyBool_FromLong(i64 %number)
  ret ptr %answer
}

define internal i1 @weft_guard_walk(ptr %stream) nounwind {
entry:
  %position = alloca i64
  %key_is = alloca ptr
  %value_is = alloca ptr
  goto next
next:
  %p = phi ptr [ %stream, %entry ], [ %w, %words ], [ %dw, %dicts ], [ %lw, %items ],
    [ %nw, %names ], [ %fw, %functions ], [ %ow, %hidden ], [ %aw, %attributes ]
  %op = load i64, ptr %p
  %n = item i64 %p 1
  %body = getelementptr i64, ptr %p, i64 2
  %after = getelementptr i64, ptr %p, i64 3
  switch i64 %op, label %good [
    i64 1, label %words
    i64 2, label %dicts
    i64 3, label %list
    i64 4, label %names
    i64 5, label %functions
    i64 6, label %hidden
    i64 7, label %attributes
  ]
good:
  ret i1 true
bad:
  ret i1 false
failed:
  call void @PyErr_Clear()
  ret i1 false

words:
  %w = phi ptr [ %body, %next ], [ %w1, %word ]
  %wi = phi i64 [ 0, %next ], [ %wi1, %word ]
  %w_more = icmp slt i64 %wi, %n
  if %w_more word next
word:
  %w_place = load ptr, ptr %w
  %w_now = load i64, ptr %w_place
  %w_was = item i64 %w 1
  %w1 = getelementptr i64, ptr %w, i64 2
  %wi1 = add i64 %wi, 1
  %w_same = icmp eq i64 %w_now, %w_was
  if %w_same words bad

dicts:
  %dw = phi ptr [ %body, %next ], [ %dw1, %known ]
  %di = phi i64 [ 0, %next ], [ %di1, %known ]
  %d_more = icmp slt i64 %di, %n
  if %d_more dict next
dict:
  %d = load ptr, ptr %dw
  %d_tag_at = getelementptr i64, ptr %dw, i64 1
  %d_tag = load i64, ptr %d_tag_at
  %d_tag_now = item i64 %d 3
  %d_tagged = icmp ne i64 %d_tag, 0
  %d_calm = icmp eq i64 %d_tag, %d_tag_now
  %d_known = and i1 %d_tagged, %d_calm
  if %d_known known dict_changed
known:
  %dw1 = getelementptr i64, ptr %dw, i64 4
  %di1 = add i64 %di, 1
  goto dicts
dict_changed:
  %d_length = item i64 %dw 2
  %d_first = item ptr %dw 3
  %d_used = item i64 %d 2
  store i64 0, ptr %position
  %d_as_long = icmp eq i64 %d_used, %d_length
  if %d_as_long entries bad
entries:
  %ew = phi ptr [ %d_first, %dict_changed ], [ %ew1, %accept ]
  %ei = phi i64 [ 0, %dict_changed ], [ %ei1, %accept ]
  %e_more = icmp slt i64 %ei, %d_length
  if %e_more entry_of dict_done
dict_done:
  %d_tag_new = select i1 %d_tagged, i64 %d_tag_now, i64 0
  store i64 %d_tag_new, ptr %d_tag_at
  goto known
entry_of:
  %d_there = call i32 @PyDict_Next(ptr %d, ptr %position, ptr %key_is, ptr %value_is)
  %d_any = icmp ne i32 %d_there, 0
  if %d_any key_of bad
key_of:
  %key = load ptr, ptr %key_is
  %value = load ptr, ptr %value_is
  %key_was = load ptr, ptr %ew
  %mode = item i64 %ew 1
  %was = item i64 %ew 2
  %value_word = ptrtoint ptr %value to i64
  %ew1 = getelementptr i64, ptr %ew, i64 3
  %ei1 = add i64 %ei, 1
  %key_same = icmp eq ptr %key, %key_was
  %value_same = icmp eq i64 %value_word, %was
  if %key_same moded bad
moded:
  switch i64 %mode, label %accept [
    i64 0, label %identical
    i64 1, label %a_float
    i64 2, label %a_float
    i64 4, label %another
  ]
identical:
  if %value_same accept bad
another:
  if %value_same bad accept
a_float:
  %type = item ptr %value 1
  %float = load ptr, ptr @float
  %is_float = icmp eq ptr %type, %float
  if %is_float which_float bad
which_float:
  %any_float = icmp eq i64 %mode, 1
  if %any_float accept zero
zero:
  %number = item double %value 2
  %is_zero = fcmp une double %number, 0.0
  %truth = zext i1 %is_zero to i64
  %truth_same = icmp eq i64 %truth, %was
  if %truth_same accept bad
accept:
  goto entries

list:
  %l = load ptr, ptr %body
  %l_size = item i64 %l 2
  %l_items = item ptr %l 3
  %l_as_long = icmp eq i64 %l_size, %n
  if %l_as_long items bad
items:
  %lw = phi ptr [ %after, %list ], [ %lw1, %item ]
  %li = phi i64 [ 0, %list ], [ %li1, %item ]
  %l_more = icmp slt i64 %li, %n
  if %l_more item next
item:
  %l_now = item i64 %l_items %li
  %l_was = load i64, ptr %lw
  %lw1 = getelementptr i64, ptr %lw, i64 1
  %li1 = add i64 %li, 1
  %l_same = icmp eq i64 %l_now, %l_was
  if %l_same items bad

names:
  %nw = phi ptr [ %body, %next ], [ %nw1, %named ]
  %ni = phi i64 [ 0, %next ], [ %ni1, %named ]
  %n_more = icmp slt i64 %ni, %n
  if %n_more name next
name:
  %n_dict = load ptr, ptr %nw
  %n_key = item ptr %nw 1
  %n_now = call ptr @PyDict_GetItemWithError(ptr %n_dict, ptr %n_key)
  %n_none = icmp eq ptr %n_now, null
  if %n_none unnamed named
unnamed:
  call void @PyErr_Clear()
  goto named
named:
  %n_was = item ptr %nw 2
  %nw1 = getelementptr i64, ptr %nw, i64 3
  %ni1 = add i64 %ni, 1
  %n_same = icmp eq ptr %n_now, %n_was
  if %n_same names bad

functions:
  %fw = phi ptr [ %body, %next ], [ %fw1, %function ]
  %fi = phi i64 [ 0, %next ], [ %fi1, %function ]
  %f_more = icmp slt i64 %fi, %n
  if %f_more function next
function:
  %f = load ptr, ptr %fw
  %f_code = call ptr @PyFunction_GetCode(ptr %f)
  %f_defaults = call ptr @PyFunction_GetDefaults(ptr %f)
  %f_code_was = item ptr %fw 1
  %f_defaults_was = item ptr %fw 2
  %f_one = icmp eq ptr %f_code, %f_code_was
  %f_two = icmp eq ptr %f_defaults, %f_defaults_was
  %f_same = and i1 %f_one, %f_two
  %fw1 = getelementptr i64, ptr %fw, i64 3
  %fi1 = add i64 %fi, 1
  if %f_same functions bad

hidden:
  %ow = phi ptr [ %body, %next ], [ %ow1, %dict_there ]
  %oi = phi i64 [ 0, %next ], [ %oi1, %dict_there ]
  %o_more = icmp slt i64 %oi, %n
  if %o_more dict_of next
dict_of:
  %o = load ptr, ptr %ow
  %o_now = call ptr @PyObject_GenericGetDict(ptr %o, ptr null)
  %o_none = icmp eq ptr %o_now, null
  if %o_none failed dict_there
dict_there:
  call void @Py_DecRef(ptr %o_now)
  %o_was = item ptr %ow 1
  %ow1 = getelementptr i64, ptr %ow, i64 2
  %oi1 = add i64 %oi, 1
  %o_same = icmp eq ptr %o_now, %o_was
  if %o_same hidden bad

attributes:
  %aw = phi ptr [ %body, %next ], [ %aw1, %attribute_there ]
  %ai = phi i64 [ 0, %next ], [ %ai1, %attribute_there ]
  %a_more = icmp slt i64 %ai, %n
  if %a_more attribute next
attribute:
  %a = load ptr, ptr %aw
  %a_name = item ptr %aw 1
  %a_now = call ptr @PyObject_GetAttr(ptr %a, ptr %a_name)
  %a_none = icmp eq ptr %a_now, null
  if %a_none failed attribute_there
attribute_there:
  call void @Py_DecRef(ptr %a_now)
  %a_was = item ptr %aw 2
  %aw1 = getelementptr i64, ptr %aw, i64 3
  %ai1 = add i64 %ai, 1
  %a_same = icmp eq ptr %a_now, %a_was
  if %a_same attributes bad
}
"""
TEXT = ir_text.expand(_TEXT)

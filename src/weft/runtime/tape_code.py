"""LLVM IR of the tape's nodes, which builtins fill in place (see tensor_code.py)."""

TEXT = """
; a node of an op with what all begin with; null with an exception
define internal ptr @new_node(ptr %op) nounwind {
entry:
  %none = word none
  %object_new = word object_new
  %empty = word empty
  %class = word node
  %node = call ptr %object_new(ptr %class, ptr %empty, ptr null)
  %no_node = icmp eq ptr %node, null
  if %no_node done begun
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
  %no_seq = icmp eq ptr %seq, null
  if %no_seq done whole
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
  %no_node = icmp eq ptr %node, null
  if %no_node fail0 begun
fail0:
  ret i32 -1
fail:
  call void @Py_DecRef(ptr %node)
  ret i32 -1
begun:
  %edges = call ptr @PyTuple_New(i64 %n)
  %no_edges = icmp eq ptr %edges, null
  if %no_edges fail edged
edged:
  fill ptr %edges %node edges
  goto next_edge
next_edge:
  %i = phi i64 [ 0, %edged ], [ %i1, %set_edge ]
  %more = icmp slt i64 %i, %n
  if %more edge save
edge:
  %x = item ptr %args %i
  %shifted = lshr i64 %wants, %i
  %bit = and i64 %shifted, 1
  %wanted = icmp ne i64 %bit, 0
  if %wanted flows stops
flows:
  %fn = field %x _fn
  goto end
end:
  %leaf = icmp eq ptr %fn, %none
  if %leaf leaves set_edge
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
  %no_mixed = icmp eq ptr %mixed, null
  if %no_mixed fail saved
saved:
  %kept = phi ptr [ %metas, %bare ], [ %mixed, %some ]
  fill ptr %kept %node saved
  %values = call i64 @llvm.ctpop.i64(i64 %keep)
  %count = add i64 %values, %result_too
  %no_versions = icmp eq i64 %count, 0
  if %no_versions unversioned versioned
unversioned:
  call void @Py_IncRef(ptr %empty)
  goto versions
versioned:
  %several = call ptr @PyTuple_New(i64 %count)
  %no_several = icmp eq ptr %several, null
  if %no_several fail versions
versions:
  %counts = phi ptr [ %empty, %unversioned ], [ %several, %versioned ]
  fill ptr %counts %node versions
  if %keeps next_kept result
next_kept:
  %j = phi i64 [ 0, %versions ], [ %j1, %keep_next ]
  %p = phi i64 [ 0, %versions ], [ %p_next, %keep_next ]
  %j_more = icmp slt i64 %j, %n
  if %j_more one_kept result
one_kept:
  %shifted_keep = lshr i64 %keep, %j
  %keep_bit = and i64 %shifted_keep, 1
  %is_kept = icmp ne i64 %keep_bit, 0
  if %is_kept value unkept
unkept:
  %shifted_number = lshr i64 %numbers, %j
  %number_bit = and i64 %shifted_number, 1
  %is_number = icmp ne i64 %number_bit, 0
  %its = item ptr %args %j
  if %is_number described shape
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
  %unshared = icmp eq ptr %st, %none
  if %unshared fresh written
fresh:
  %zero = word zero
  call void @Py_IncRef(ptr %zero)
  call void @Py_DecRef(ptr %st)
  goto version
written:
  %st_class = get ptr %st 8
  %storage = word storage
  %is_storage = icmp eq ptr %st_class, %storage
  if %is_storage counted strange_memory
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
  %is_result = icmp ne i64 %result_too, 0
  if %is_result alias no_result
no_result:
  call void @Py_IncRef(ptr %none)
  goto resulted
alias:
  %memory = call ptr @memory()
  %no_memory = icmp eq ptr %memory, null
  if %no_memory fail owned
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
  %no_both = icmp eq ptr %both, null
  if %no_both part paired
paired:
  %a = field %y _a
  %a_set = call i32 @PyTuple_SetItem(ptr %both, i64 0, ptr %a)
  %m_kept = call i32 @PyTuple_SetItem(ptr %both, i64 1, ptr %memory)
  fill ptr %both %node result
  goto sequenced
promise:  ; another tensor of the same promise
  %twin = call ptr @fresh()
  %no_twin = icmp eq ptr %twin, null
  if %no_twin part twinned
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
"""

"""LLVM IR of scratch memory and of what runs launches and tables; linked with the pool.

Plan (one a launch, i64 words): 0 stages, 1 ints, 2 scratch bytes, 3 scratch bytes a thread, 4
pointer to the ints, 5 keep the GIL, 6 any shared stage, from 8 on pairs (function, shared: 1,
or 2 if all workers are awake).
Table: 0 scratch, 1 scratch a thread, 2 any parallel, 3 busy (i32), 4 pointer to entries of 3 words:
plan, block, n_in.
"""

SCRATCH = """
declare ptr @malloc(i64)
declare void @free(ptr)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
; scratch memory is kept in a few slots of (lock, block, size), so that a launch finds warm pages
@slots = internal global [SLOT_BYTES x i8] zeroinitializer, align 64

; a slot that holds at least `bytes`, locked; null when all are taken or there is no memory
define internal ptr @scratch_take(i64 %bytes) nounwind {
entry:
  goto try
try:
  %i = phi i64 [ 0, %entry ], [ %i1, %next ]
  %at = shl i64 %i, 6
  %slot = getelementptr i8, ptr @slots, i64 %at
  %x = cmpxchg ptr %slot, i32 0, i32 1 seq_cst seq_cst
  %got = extractvalue { i32, i1 } %x, 1
  if %got mine next
next:
  %i1 = add i64 %i, 1
  %more = icmp ult i64 %i1, SLOTS
  if %more try none
none:
  ret ptr null
mine:
  %size_at = getelementptr i8, ptr %slot, i64 16
  %raw_at = getelementptr i8, ptr %slot, i64 8
  %size = load i64, ptr %size_at
  %enough = icmp uge i64 %size, %bytes
  if %enough done grow
grow:
  %old = load ptr, ptr %raw_at
  call void @free(ptr %old)
  %big = icmp uge i64 %bytes, 2097152
  %align = select i1 %big, i64 2097152, i64 64
  %room = add i64 %bytes, %align
  %raw = call ptr @malloc(i64 %room)
  store ptr %raw, ptr %raw_at
  %null = icmp eq ptr %raw, null
  if %null fail made
fail:
  store i64 0, ptr %size_at
  store atomic i32 0, ptr %slot seq_cst, align 4
  ret ptr null
made:
  %address = ptrtoint ptr %raw to i64
  %less = sub i64 %align, 1
  %sum = add i64 %address, %less
  %mask = sub i64 0, %align
  %start = and i64 %sum, %mask
  %base = inttoptr i64 %start to ptr
  put ptr %base %slot 24
  store i64 %bytes, ptr %size_at
  if %big huge done
huge:
  HUGE
  goto done
done:
  ret ptr %slot
}

define internal void @scratch_give(ptr %slot) nounwind {
entry:
  %size_at = getelementptr i8, ptr %slot, i64 16
  %size = load i64, ptr %size_at
  %large = icmp ugt i64 %size, 268435456
  if %large drop done
drop:
  %raw_at = getelementptr i8, ptr %slot, i64 8
  %raw = load ptr, ptr %raw_at
  call void @free(ptr %raw)
  store ptr null, ptr %raw_at
  store i64 0, ptr %size_at
  goto done
done:
  store atomic i32 0, ptr %slot seq_cst, align 4
  ret void
}
"""

RUN = """
; the stages one after another until one reports an error
define internal void @run_stages(ptr %plan, ptr %block, i32 %nth) nounwind {
entry:
  %n = load i64, ptr %plan
  %many = icmp sgt i32 %nth, 1
  goto next
next:
  %i = phi i64 [ 0, %entry ], [ %i1, %after ]
  %more = icmp ult i64 %i, %n
  if %more stage done
stage:
  %pair = shl i64 %i, 1
  %word = add i64 %pair, 8
  %fn_at = getelementptr i64, ptr %plan, i64 %word
  %fn = load ptr, ptr %fn_at
  %par = item i64 %fn_at 1
  %is_par = icmp ne i64 %par, 0
  %both = and i1 %is_par, %many
  if %both wanted alone
wanted:
  %light = icmp eq i64 %par, 2
  if %light look shared
look:
  %asleep = load atomic i32, ptr @sleepers monotonic, align 4
  %none_asleep = icmp eq i32 %asleep, 0
  if %none_asleep shared alone
shared:
  call void @parallel(ptr %fn, ptr %block, i32 %nth)
  goto after
alone:
  call void %fn(ptr %block, i32 0, i32 1)
  goto after
after:
  %i1 = add i64 %i, 1
  %status = load i64, ptr %block
  %bad = icmp ne i64 %status, 0
  if %bad done next
done:
  ret void
}

; run a filled block: status -1 when there is no memory for scratch
define void @weft_run_block(ptr %plan, ptr %block, i64 %n_in) nounwind {
entry:
  store i64 0, ptr %block
  %detail_at = getelementptr i64, ptr %block, i64 1
  store i64 0, ptr %detail_at
  %any = item i64 %plan 6
  %nth = call i32 @acquire(i64 %any)
  %shared = item i64 %plan 2
  %each = item i64 %plan 3
  %n64 = sext i32 %nth to i64
  %all = mul i64 %each, %n64
  %bytes = add i64 %shared, %all
  %needs = icmp ne i64 %bytes, 0
  if %needs take run
take:
  %slot = call ptr @scratch_take(i64 %bytes)
  %none = icmp eq ptr %slot, null
  if %none own kept
kept:
  %base = get ptr %slot 24
  goto run
own:
  %room = add i64 %bytes, 64
  %raw = call ptr @malloc(i64 %room)
  %no_memory = icmp eq ptr %raw, null
  if %no_memory fail align
fail:
  store i64 -1, ptr %block
  store i64 %bytes, ptr %detail_at
  call void @release(i32 %nth)
  ret void
align:
  %address = ptrtoint ptr %raw to i64
  %up = add i64 %address, 63
  %start = and i64 %up, -64
  %aligned = inttoptr i64 %start to ptr
  goto run
run:
  %scratch = phi ptr [ null, %entry ], [ %base, %kept ], [ %aligned, %align ]
  %give = phi ptr [ null, %entry ], [ %slot, %kept ], [ null, %align ]
  %drop = phi ptr [ null, %entry ], [ null, %kept ], [ %raw, %align ]
  %word = add i64 %n_in, 3
  put ptr %scratch %block [%word]
  call void @run_stages(ptr %plan, ptr %block, i32 %nth)
  call void @release(i32 %nth)
  call void @free(ptr %drop)
  %back = icmp ne ptr %give, null
  if %back return done
return:
  call void @scratch_give(ptr %give)
  goto done
done:
  ret void
}

; block from pointers (out, then inputs), run, result = (status, detail)
define void @weft_run(ptr %plan, ptr %pointers, i64 %n_in, ptr %result) nounwind {
entry:
  %few = alloca [256 x i64], align 64
  %n_ints = item i64 %plan 1
  %sum = add i64 %n_in, %n_ints
  %words = add i64 %sum, 4
  %small = icmp ule i64 %words, 256
  if %small fill large
large:
  %bytes = shl i64 %words, 3
  %made = call ptr @malloc(i64 %bytes)
  %none = icmp eq ptr %made, null
  if %none fail fill
fail:
  store i64 -1, ptr %result
  ret void
fill:
  %block = phi ptr [ %few, %entry ], [ %made, %large ]
  %drop = phi ptr [ null, %entry ], [ %made, %large ]
  %p_at = getelementptr i64, ptr %block, i64 2
  %np = add i64 %n_in, 1
  %pb = shl i64 %np, 3
  call void @llvm.memcpy.p0.p0.i64(ptr %p_at, ptr %pointers, i64 %pb, i1 false)
  %iw = add i64 %n_in, 4
  %i_at = getelementptr i64, ptr %block, i64 %iw
  %ints = item ptr %plan 4
  %ib = shl i64 %n_ints, 3
  call void @llvm.memcpy.p0.p0.i64(ptr %i_at, ptr %ints, i64 %ib, i1 false)
  call void @weft_run_block(ptr %plan, ptr %block, i64 %n_in)
  call void @llvm.memcpy.p0.p0.i64(ptr %result, ptr %block, i64 16, i1 false)
  call void @free(ptr %drop)
  ret void
}

; entries [from, to) of a table; result = (index of the first that failed or -1, status, detail);
; index -2: table busy
define void @weft_run_table(ptr %table, i64 %from, i64 %to, ptr %result) nounwind {
entry:
  %status_at = getelementptr i64, ptr %result, i64 1
  %detail_at = getelementptr i64, ptr %result, i64 2
  store i64 0, ptr %status_at
  store i64 0, ptr %detail_at
  %busy = getelementptr i64, ptr %table, i64 3
  %x = cmpxchg ptr %busy, i32 0, i32 1 seq_cst seq_cst
  %got = extractvalue { i32, i1 } %x, 1
  if %got mine refuse
refuse:
  store i64 -2, ptr %result
  ret void
mine:
  %any = item i64 %table 2
  %nth = call i32 @acquire(i64 %any)
  %shared = load i64, ptr %table
  %each = item i64 %table 1
  %n64 = sext i32 %nth to i64
  %all = mul i64 %each, %n64
  %bytes = add i64 %shared, %all
  %needs = icmp ne i64 %bytes, 0
  if %needs take begin
take:
  %slot = call ptr @scratch_take(i64 %bytes)
  %none = icmp eq ptr %slot, null
  if %none own kept
kept:
  %base = get ptr %slot 24
  goto begin
own:
  %room = add i64 %bytes, 64
  %raw = call ptr @malloc(i64 %room)
  %no_memory = icmp eq ptr %raw, null
  if %no_memory fail align
fail:
  store i64 %from, ptr %result
  store i64 -1, ptr %status_at
  store i64 %bytes, ptr %detail_at
  call void @release(i32 %nth)
  store atomic i32 0, ptr %busy seq_cst, align 4
  ret void
align:
  %address = ptrtoint ptr %raw to i64
  %up = add i64 %address, 63
  %start = and i64 %up, -64
  %aligned = inttoptr i64 %start to ptr
  goto begin
begin:
  %scratch = phi ptr [ null, %mine ], [ %base, %kept ], [ %aligned, %align ]
  %give = phi ptr [ null, %mine ], [ %slot, %kept ], [ null, %align ]
  %drop = phi ptr [ null, %mine ], [ null, %kept ], [ %raw, %align ]
  %entries = item ptr %table 4
  goto next
next:
  %i = phi i64 [ %from, %begin ], [ %i1, %ok ]
  %more = icmp slt i64 %i, %to
  if %more run good
run:
  %at = mul i64 %i, 24
  %entry_at = getelementptr i8, ptr %entries, i64 %at
  %plan = load ptr, ptr %entry_at
  %block = get ptr %entry_at 8
  %n_in = get i64 %entry_at 16
  store i64 0, ptr %block
  %block_detail = getelementptr i64, ptr %block, i64 1
  store i64 0, ptr %block_detail
  %word = add i64 %n_in, 3
  put ptr %scratch %block [%word]
  call void @run_stages(ptr %plan, ptr %block, i32 %nth)
  %status = load i64, ptr %block
  %bad = icmp ne i64 %status, 0
  if %bad report ok
ok:
  %i1 = add i64 %i, 1
  goto next
report:
  %detail = load i64, ptr %block_detail
  store i64 %status, ptr %status_at
  store i64 %detail, ptr %detail_at
  goto end
good:
  goto end
end:
  %index = phi i64 [ %i, %report ], [ -1, %good ]
  store i64 %index, ptr %result
  call void @release(i32 %nth)
  call void @free(ptr %drop)
  %back = icmp ne ptr %give, null
  if %back return done
return:
  call void @scratch_give(ptr %give)
  goto done
done:
  store atomic i32 0, ptr %busy seq_cst, align 4
  ret void
}
"""

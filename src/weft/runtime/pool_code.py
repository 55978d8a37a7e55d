"""LLVM IR of the thread pool and of what runs a launch. Plain text: nothing here is generated twice.

Pool (`@weft_pool`, i32 words at byte offsets; words that threads fight for have a cache line each):
      0 generation (workers sleep on it)     64 pending workers (the caller sleeps on it)    128 sleeping workers
    192 stop   196 threads wanted, the caller included   200 workers started   256 function   264 its argument
    272 threads of this run    320 the caller sleeps   384 lock: who holds it may use the workers    448 mutex, condition

A caller that finds the lock taken runs its stages alone: the bits are the same, since no kernel's result depends on `nth`.
A worker spins for a few tens of microseconds, then sleeps in the kernel (a futex costs about 50 us to wake from).

Plan (one a launch, i64 words): 0 stages, 1 ints, 2 scratch bytes, 3 scratch bytes a thread, 4 pointer to the ints,
5 keep the GIL, 6 any parallel stage, from 8 on pairs (function, parallel).
Table: 0 scratch, 1 scratch a thread, 2 any parallel, 3 busy (i32), 4 pointer to entries of 3 words: plan, block, n_in.
"""

import platform
import sys

SPIN = 2000
SLOTS = 8

_FUTEX = """
declare i64 @syscall(i64, ...)
define internal void @wait(ptr %word, i32 %value) nounwind {
  %v = zext i32 %value to i64
  %r = call i64 (i64, ...) @syscall(i64 FUTEX, ptr %word, i64 128, i64 %v, ptr null, ptr null, i64 0)
  ret void
}
define internal void @wake(ptr %word) nounwind {
  %r = call i64 (i64, ...) @syscall(i64 FUTEX, ptr %word, i64 129, i64 2147483647, ptr null, ptr null, i64 0)
  ret void
}
define internal void @init_wait() nounwind { ret void }
"""

_CONDITION = """
declare i32 @pthread_mutex_init(ptr, ptr)
declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_cond_init(ptr, ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @pthread_cond_broadcast(ptr)
@mutex = internal global [128 x i8] zeroinitializer, align 64
@condition = internal global [128 x i8] zeroinitializer, align 64
define internal void @wait(ptr %word, i32 %value) nounwind {
entry:
  %l = call i32 @pthread_mutex_lock(ptr @mutex)
  br label %check
check:
  %v = load atomic i32, ptr %word seq_cst, align 4
  %same = icmp eq i32 %v, %value
  br i1 %same, label %sleep, label %done
sleep:
  %c = call i32 @pthread_cond_wait(ptr @condition, ptr @mutex)
  br label %check
done:
  %u = call i32 @pthread_mutex_unlock(ptr @mutex)
  ret void
}
define internal void @wake(ptr %word) nounwind {
  %l = call i32 @pthread_mutex_lock(ptr @mutex)
  %c = call i32 @pthread_cond_broadcast(ptr @condition)
  %u = call i32 @pthread_mutex_unlock(ptr @mutex)
  ret void
}
define internal void @init_wait() nounwind {
  %m = call i32 @pthread_mutex_init(ptr @mutex, ptr null)
  %c = call i32 @pthread_cond_init(ptr @condition, ptr null)
  ret void
}
"""

_POOL = """
@weft_pool = global [512 x i8] zeroinitializer, align 64
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_detach(ptr)

define internal ptr @worker(ptr %packed) nounwind {
entry:
  %bits = ptrtoint ptr %packed to i64
  %tid = trunc i64 %bits to i32
  %high = lshr i64 %bits, 32
  %gen0 = trunc i64 %high to i32
  br label %outer
outer:
  %g = phi i32 [ %gen0, %entry ], [ %ng, %finish ]
  br label %spin
spin:
  %i = phi i32 [ 0, %outer ], [ %i1, %spin_more ]
  %v = load atomic i32, ptr @weft_pool acquire, align 4
  %new = icmp ne i32 %v, %g
  br i1 %new, label %work, label %spin_more
spin_more:
  PAUSE
  %i1 = add i32 %i, 1
  %c = icmp ult i32 %i1, SPIN
  br i1 %c, label %spin, label %sleep
sleep:
  %o = atomicrmw add ptr getelementptr (i8, ptr @weft_pool, i64 128), i32 1 seq_cst
  br label %doze
doze:
  %v2 = load atomic i32, ptr @weft_pool seq_cst, align 4
  %new2 = icmp ne i32 %v2, %g
  br i1 %new2, label %awake, label %nap
nap:
  call void @wait(ptr @weft_pool, i32 %g)
  br label %doze
awake:
  %o2 = atomicrmw sub ptr getelementptr (i8, ptr @weft_pool, i64 128), i32 1 seq_cst
  br label %work
work:
  %ng = load atomic i32, ptr @weft_pool acquire, align 4
  %stop = load atomic i32, ptr getelementptr (i8, ptr @weft_pool, i64 192) acquire, align 4
  %is_stop = icmp ne i32 %stop, 0
  br i1 %is_stop, label %last, label %run
run:
  %fn = load ptr, ptr getelementptr (i8, ptr @weft_pool, i64 256)
  %arg = load ptr, ptr getelementptr (i8, ptr @weft_pool, i64 264)
  %nth = load i32, ptr getelementptr (i8, ptr @weft_pool, i64 272)
  call void %fn(ptr %arg, i32 %tid, i32 %nth)
  call void @arrive()
  br label %finish
finish:
  br label %outer
last:
  call void @arrive()
  ret ptr null
}

define internal void @arrive() nounwind {
entry:
  %p = atomicrmw sub ptr getelementptr (i8, ptr @weft_pool, i64 64), i32 1 seq_cst
  %is_last = icmp eq i32 %p, 1
  br i1 %is_last, label %check, label %done
check:
  %s = load atomic i32, ptr getelementptr (i8, ptr @weft_pool, i64 320) seq_cst, align 4
  %sleeps = icmp ne i32 %s, 0
  br i1 %sleeps, label %rouse, label %done
rouse:
  call void @wake(ptr getelementptr (i8, ptr @weft_pool, i64 64))
  br label %done
done:
  ret void
}

; tell the workers that there is something to do (a task, or to stop)
define internal void @announce(i32 %workers) nounwind {
entry:
  store atomic i32 %workers, ptr getelementptr (i8, ptr @weft_pool, i64 64) seq_cst, align 4
  %o = atomicrmw add ptr @weft_pool, i32 1 seq_cst
  %s = load atomic i32, ptr getelementptr (i8, ptr @weft_pool, i64 128) seq_cst, align 4
  %any = icmp ne i32 %s, 0
  br i1 %any, label %rouse, label %done
rouse:
  call void @wake(ptr @weft_pool)
  br label %done
done:
  ret void
}

define internal void @await() nounwind {
entry:
  br label %spin
spin:
  %i = phi i32 [ 0, %entry ], [ %i1, %more ]
  %p = load atomic i32, ptr getelementptr (i8, ptr @weft_pool, i64 64) acquire, align 4
  %zero = icmp eq i32 %p, 0
  br i1 %zero, label %done, label %more
more:
  PAUSE
  %i1 = add i32 %i, 1
  %c = icmp ult i32 %i1, SPIN
  br i1 %c, label %spin, label %sleep
sleep:
  store atomic i32 1, ptr getelementptr (i8, ptr @weft_pool, i64 320) seq_cst, align 4
  br label %doze
doze:
  %p2 = load atomic i32, ptr getelementptr (i8, ptr @weft_pool, i64 64) seq_cst, align 4
  %zero2 = icmp eq i32 %p2, 0
  br i1 %zero2, label %awake, label %nap
nap:
  call void @wait(ptr getelementptr (i8, ptr @weft_pool, i64 64), i32 %p2)
  br label %doze
awake:
  store atomic i32 0, ptr getelementptr (i8, ptr @weft_pool, i64 320) seq_cst, align 4
  br label %done
done:
  ret void
}

; start the workers that are wanted and not there; the lock is held
define internal i32 @start() nounwind {
entry:
  %thread = alloca i64
  br label %check
check:
  %n = load i32, ptr getelementptr (i8, ptr @weft_pool, i64 200)
  %want = load i32, ptr getelementptr (i8, ptr @weft_pool, i64 196)
  %next = add i32 %n, 1
  %more = icmp slt i32 %next, %want
  br i1 %more, label %create, label %done
create:
  %gen = load i32, ptr @weft_pool
  %g64 = zext i32 %gen to i64
  %high = shl i64 %g64, 32
  %t64 = zext i32 %next to i64
  %bits = or i64 %high, %t64
  %packed = inttoptr i64 %bits to ptr
  %rc = call i32 @pthread_create(ptr %thread, ptr null, ptr @worker, ptr %packed)
  %ok = icmp eq i32 %rc, 0
  br i1 %ok, label %made, label %done
made:
  %id = load ptr, ptr %thread
  %d = call i32 @pthread_detach(ptr %id)
  store i32 %next, ptr getelementptr (i8, ptr @weft_pool, i64 200)
  br label %check
done:
  %have = load i32, ptr getelementptr (i8, ptr @weft_pool, i64 200)
  %threads = add i32 %have, 1
  ret i32 %threads
}

define internal void @parallel(ptr %fn, ptr %arg, i32 %nth) nounwind {
  store ptr %fn, ptr getelementptr (i8, ptr @weft_pool, i64 256)
  store ptr %arg, ptr getelementptr (i8, ptr @weft_pool, i64 264)
  store i32 %nth, ptr getelementptr (i8, ptr @weft_pool, i64 272)
  %workers = sub i32 %nth, 1
  call void @announce(i32 %workers)
  call void %fn(ptr %arg, i32 0, i32 %nth)
  call void @await()
  ret void
}

; the number of threads this caller may use: 1 when the pool is busy
define internal i32 @acquire(i64 %wanted) nounwind {
entry:
  %n = load atomic i32, ptr getelementptr (i8, ptr @weft_pool, i64 196) acquire, align 4
  %many = icmp sgt i32 %n, 1
  %w = icmp ne i64 %wanted, 0
  %try = and i1 %many, %w
  br i1 %try, label %lock, label %alone
lock:
  %x = cmpxchg ptr getelementptr (i8, ptr @weft_pool, i64 384), i32 0, i32 1 seq_cst seq_cst
  %got = extractvalue { i32, i1 } %x, 1
  br i1 %got, label %mine, label %alone
mine:
  %threads = call i32 @start()
  %some = icmp sgt i32 %threads, 1
  br i1 %some, label %done, label %unlock
unlock:
  call void @release(i32 2)
  br label %alone
alone:
  ret i32 1
done:
  ret i32 %threads
}
define internal void @release(i32 %threads) nounwind {
entry:
  %held = icmp sgt i32 %threads, 1
  br i1 %held, label %unlock, label %done
unlock:
  store atomic i32 0, ptr getelementptr (i8, ptr @weft_pool, i64 384) seq_cst, align 4
  br label %done
done:
  ret void
}

; resize: returns 0 when the pool is busy, then the caller tries again; the workers start at the next parallel stage
define i32 @weft_pool_resize(i32 %n) nounwind {
entry:
  %x = cmpxchg ptr getelementptr (i8, ptr @weft_pool, i64 384), i32 0, i32 1 seq_cst seq_cst
  %got = extractvalue { i32, i1 } %x, 1
  br i1 %got, label %mine, label %busy
busy:
  ret i32 0
mine:
  %workers = load i32, ptr getelementptr (i8, ptr @weft_pool, i64 200)
  %any = icmp sgt i32 %workers, 0
  br i1 %any, label %stop, label %set
stop:
  store atomic i32 1, ptr getelementptr (i8, ptr @weft_pool, i64 192) seq_cst, align 4
  call void @announce(i32 %workers)
  call void @await()
  store atomic i32 0, ptr getelementptr (i8, ptr @weft_pool, i64 192) seq_cst, align 4
  store i32 0, ptr getelementptr (i8, ptr @weft_pool, i64 200)
  br label %set
set:
  store atomic i32 %n, ptr getelementptr (i8, ptr @weft_pool, i64 196) seq_cst, align 4
  call void @release(i32 2)
  ret i32 1
}

; forget workers that a fork did not copy
define void @weft_pool_reset() nounwind {
  %n = load i32, ptr getelementptr (i8, ptr @weft_pool, i64 196)
  call void @llvm.memset.p0.i64(ptr @weft_pool, i8 0, i64 512, i1 false)
  store i32 %n, ptr getelementptr (i8, ptr @weft_pool, i64 196)
  call void @llvm.memset.p0.i64(ptr @slots, i8 0, i64 SLOT_BYTES, i1 false)
  call void @init_wait()
  ret void
}
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
"""

_SCRATCH = """
declare ptr @malloc(i64)
declare void @free(ptr)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
; scratch memory is kept in a few slots of (lock, block, size), so that a launch finds warm pages
@slots = internal global [SLOT_BYTES x i8] zeroinitializer, align 64

; a slot that holds at least `bytes`, locked; null when all are taken or there is no memory
define internal ptr @scratch_take(i64 %bytes) nounwind {
entry:
  br label %try
try:
  %i = phi i64 [ 0, %entry ], [ %i1, %next ]
  %at = shl i64 %i, 6
  %slot = getelementptr i8, ptr @slots, i64 %at
  %x = cmpxchg ptr %slot, i32 0, i32 1 seq_cst seq_cst
  %got = extractvalue { i32, i1 } %x, 1
  br i1 %got, label %mine, label %next
next:
  %i1 = add i64 %i, 1
  %more = icmp ult i64 %i1, SLOTS
  br i1 %more, label %try, label %none
none:
  ret ptr null
mine:
  %size_at = getelementptr i8, ptr %slot, i64 16
  %raw_at = getelementptr i8, ptr %slot, i64 8
  %size = load i64, ptr %size_at
  %enough = icmp uge i64 %size, %bytes
  br i1 %enough, label %done, label %grow
grow:
  %old = load ptr, ptr %raw_at
  call void @free(ptr %old)
  %big = icmp uge i64 %bytes, 2097152
  %align = select i1 %big, i64 2097152, i64 64
  %room = add i64 %bytes, %align
  %raw = call ptr @malloc(i64 %room)
  store ptr %raw, ptr %raw_at
  %null = icmp eq ptr %raw, null
  br i1 %null, label %fail, label %made
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
  %base_at = getelementptr i8, ptr %slot, i64 24
  store ptr %base, ptr %base_at
  store i64 %bytes, ptr %size_at
  br i1 %big, label %huge, label %done
huge:
  HUGE
  br label %done
done:
  ret ptr %slot
}

define internal void @scratch_give(ptr %slot) nounwind {
entry:
  %size_at = getelementptr i8, ptr %slot, i64 16
  %size = load i64, ptr %size_at
  %large = icmp ugt i64 %size, 268435456
  br i1 %large, label %drop, label %done
drop:
  %raw_at = getelementptr i8, ptr %slot, i64 8
  %raw = load ptr, ptr %raw_at
  call void @free(ptr %raw)
  store ptr null, ptr %raw_at
  store i64 0, ptr %size_at
  br label %done
done:
  store atomic i32 0, ptr %slot seq_cst, align 4
  ret void
}
"""

_RUN = """
; the stages one after another until one reports an error
define internal void @run_stages(ptr %plan, ptr %block, i32 %nth) nounwind {
entry:
  %n = load i64, ptr %plan
  %many = icmp sgt i32 %nth, 1
  br label %next
next:
  %i = phi i64 [ 0, %entry ], [ %i1, %after ]
  %more = icmp ult i64 %i, %n
  br i1 %more, label %stage, label %done
stage:
  %pair = shl i64 %i, 1
  %word = add i64 %pair, 8
  %fn_at = getelementptr i64, ptr %plan, i64 %word
  %fn = load ptr, ptr %fn_at
  %par_at = getelementptr i64, ptr %fn_at, i64 1
  %par = load i64, ptr %par_at
  %is_par = icmp ne i64 %par, 0
  %both = and i1 %is_par, %many
  br i1 %both, label %shared, label %alone
shared:
  call void @parallel(ptr %fn, ptr %block, i32 %nth)
  br label %after
alone:
  call void %fn(ptr %block, i32 0, i32 1)
  br label %after
after:
  %i1 = add i64 %i, 1
  %status = load i64, ptr %block
  %bad = icmp ne i64 %status, 0
  br i1 %bad, label %done, label %next
done:
  ret void
}

; run a filled block: status -1 when there is no memory for scratch
define void @weft_run_block(ptr %plan, ptr %block, i64 %n_in) nounwind {
entry:
  store i64 0, ptr %block
  %detail_at = getelementptr i64, ptr %block, i64 1
  store i64 0, ptr %detail_at
  %any_at = getelementptr i64, ptr %plan, i64 6
  %any = load i64, ptr %any_at
  %nth = call i32 @acquire(i64 %any)
  %shared_at = getelementptr i64, ptr %plan, i64 2
  %shared = load i64, ptr %shared_at
  %each_at = getelementptr i64, ptr %plan, i64 3
  %each = load i64, ptr %each_at
  %n64 = sext i32 %nth to i64
  %all = mul i64 %each, %n64
  %bytes = add i64 %shared, %all
  %needs = icmp ne i64 %bytes, 0
  br i1 %needs, label %take, label %run
take:
  %slot = call ptr @scratch_take(i64 %bytes)
  %none = icmp eq ptr %slot, null
  br i1 %none, label %own, label %kept
kept:
  %base_at = getelementptr i8, ptr %slot, i64 24
  %base = load ptr, ptr %base_at
  br label %run
own:
  %room = add i64 %bytes, 64
  %raw = call ptr @malloc(i64 %room)
  %no_memory = icmp eq ptr %raw, null
  br i1 %no_memory, label %fail, label %align
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
  br label %run
run:
  %scratch = phi ptr [ null, %entry ], [ %base, %kept ], [ %aligned, %align ]
  %give = phi ptr [ null, %entry ], [ %slot, %kept ], [ null, %align ]
  %drop = phi ptr [ null, %entry ], [ null, %kept ], [ %raw, %align ]
  %word = add i64 %n_in, 3
  %scratch_at = getelementptr i64, ptr %block, i64 %word
  store ptr %scratch, ptr %scratch_at
  call void @run_stages(ptr %plan, ptr %block, i32 %nth)
  call void @release(i32 %nth)
  call void @free(ptr %drop)
  %back = icmp ne ptr %give, null
  br i1 %back, label %return, label %done
return:
  call void @scratch_give(ptr %give)
  br label %done
done:
  ret void
}

; block from pointers (out, then inputs), run, result = (status, detail)
define void @weft_run(ptr %plan, ptr %pointers, i64 %n_in, ptr %result) nounwind {
entry:
  %few = alloca [256 x i64], align 64
  %n_at = getelementptr i64, ptr %plan, i64 1
  %n_ints = load i64, ptr %n_at
  %sum = add i64 %n_in, %n_ints
  %words = add i64 %sum, 4
  %small = icmp ule i64 %words, 256
  br i1 %small, label %fill, label %large
large:
  %bytes = shl i64 %words, 3
  %made = call ptr @malloc(i64 %bytes)
  %none = icmp eq ptr %made, null
  br i1 %none, label %fail, label %fill
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
  %ints_at = getelementptr i64, ptr %plan, i64 4
  %ints = load ptr, ptr %ints_at
  %ib = shl i64 %n_ints, 3
  call void @llvm.memcpy.p0.p0.i64(ptr %i_at, ptr %ints, i64 %ib, i1 false)
  call void @weft_run_block(ptr %plan, ptr %block, i64 %n_in)
  call void @llvm.memcpy.p0.p0.i64(ptr %result, ptr %block, i64 16, i1 false)
  call void @free(ptr %drop)
  ret void
}

; entries [from, to) of a table; result = (index of the first that failed or -1, status, detail); index -2: table busy
define void @weft_run_table(ptr %table, i64 %from, i64 %to, ptr %result) nounwind {
entry:
  %status_at = getelementptr i64, ptr %result, i64 1
  %detail_at = getelementptr i64, ptr %result, i64 2
  store i64 0, ptr %status_at
  store i64 0, ptr %detail_at
  %busy = getelementptr i64, ptr %table, i64 3
  %x = cmpxchg ptr %busy, i32 0, i32 1 seq_cst seq_cst
  %got = extractvalue { i32, i1 } %x, 1
  br i1 %got, label %mine, label %refuse
refuse:
  store i64 -2, ptr %result
  ret void
mine:
  %any_at = getelementptr i64, ptr %table, i64 2
  %any = load i64, ptr %any_at
  %nth = call i32 @acquire(i64 %any)
  %shared = load i64, ptr %table
  %each_at = getelementptr i64, ptr %table, i64 1
  %each = load i64, ptr %each_at
  %n64 = sext i32 %nth to i64
  %all = mul i64 %each, %n64
  %bytes = add i64 %shared, %all
  %needs = icmp ne i64 %bytes, 0
  br i1 %needs, label %take, label %begin
take:
  %slot = call ptr @scratch_take(i64 %bytes)
  %none = icmp eq ptr %slot, null
  br i1 %none, label %own, label %kept
kept:
  %base_at = getelementptr i8, ptr %slot, i64 24
  %base = load ptr, ptr %base_at
  br label %begin
own:
  %room = add i64 %bytes, 64
  %raw = call ptr @malloc(i64 %room)
  %no_memory = icmp eq ptr %raw, null
  br i1 %no_memory, label %fail, label %align
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
  br label %begin
begin:
  %scratch = phi ptr [ null, %mine ], [ %base, %kept ], [ %aligned, %align ]
  %give = phi ptr [ null, %mine ], [ %slot, %kept ], [ null, %align ]
  %drop = phi ptr [ null, %mine ], [ null, %kept ], [ %raw, %align ]
  %entries_at = getelementptr i64, ptr %table, i64 4
  %entries = load ptr, ptr %entries_at
  br label %next
next:
  %i = phi i64 [ %from, %begin ], [ %i1, %ok ]
  %more = icmp slt i64 %i, %to
  br i1 %more, label %run, label %good
run:
  %at = mul i64 %i, 24
  %entry_at = getelementptr i8, ptr %entries, i64 %at
  %plan = load ptr, ptr %entry_at
  %block_at = getelementptr i8, ptr %entry_at, i64 8
  %block = load ptr, ptr %block_at
  %n_at = getelementptr i8, ptr %entry_at, i64 16
  %n_in = load i64, ptr %n_at
  store i64 0, ptr %block
  %block_detail = getelementptr i64, ptr %block, i64 1
  store i64 0, ptr %block_detail
  %word = add i64 %n_in, 3
  %scratch_at = getelementptr i64, ptr %block, i64 %word
  store ptr %scratch, ptr %scratch_at
  call void @run_stages(ptr %plan, ptr %block, i32 %nth)
  %status = load i64, ptr %block
  %bad = icmp ne i64 %status, 0
  br i1 %bad, label %report, label %ok
ok:
  %i1 = add i64 %i, 1
  br label %next
report:
  %detail = load i64, ptr %block_detail
  store i64 %status, ptr %status_at
  store i64 %detail, ptr %detail_at
  br label %end
good:
  br label %end
end:
  %index = phi i64 [ %i, %report ], [ -1, %good ]
  store i64 %index, ptr %result
  call void @release(i32 %nth)
  call void @free(ptr %drop)
  %back = icmp ne ptr %give, null
  br i1 %back, label %return, label %done
return:
  call void @scratch_give(ptr %give)
  br label %done
done:
  store atomic i32 0, ptr %busy seq_cst, align 4
  ret void
}
"""

_PAUSE = {
    "x86_64": ("call void @llvm.x86.sse2.pause()", "declare void @llvm.x86.sse2.pause()"),
    "aarch64": ("call void @llvm.aarch64.hint(i32 1)", "declare void @llvm.aarch64.hint(i32)"),
}
_HUGE = "%advice = call i32 @madvise(ptr %base, i64 %bytes, i32 14)"

EXPORTS = ("weft_pool", "weft_pool_resize", "weft_pool_reset", "weft_run_block", "weft_run", "weft_run_table")


def text(*, portable: bool = False) -> str:
    """The module. `portable` waits on a condition variable also where there are futexes (for tests)."""
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    linux = sys.platform == "linux"
    futex = {"x86_64": "202", "aarch64": "98"}.get(machine)
    pause, declaration = _PAUSE.get(machine, ("", ""))
    wait = _FUTEX.replace("FUTEX", futex) if linux and futex and not portable else _CONDITION
    parts = [declaration, "declare i32 @madvise(ptr, i64, i32)" if linux else "", wait, _POOL, _SCRATCH, _RUN]
    filled = "\n".join(parts).replace("PAUSE", pause).replace("HUGE", _HUGE if linux else "")
    return filled.replace("SLOT_BYTES", str(64 * SLOTS)).replace("SLOTS", str(SLOTS)).replace("SPIN", str(SPIN))

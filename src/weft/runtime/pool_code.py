"""LLVM IR of the thread pool; what runs on it is in `run_code`. Plain text: nothing is generated.

`@weft_pool` is i32 words at byte offsets; words that threads fight for have a cache line each:

      0 generation (workers sleep on it)          64 pending workers (the caller sleeps on it)
    128 sleeping workers   192 stop               196 threads wanted, the caller included
    200 workers started    256 function           264 its argument   272 threads of this run
    320 the caller sleeps  384 lock: who holds it may use the workers

A caller that finds the lock taken runs its stages alone: the bits are the same, since no kernel's
result depends on `nth`. A worker spins for a few tens of microseconds, then sleeps in the kernel (a
futex costs about 50 us to wake from).
"""

import platform
import sys

from weft.runtime import run_code

SPIN = 2000
SLOTS = 8
WORKERS = 256

_LINUX = """
declare i64 @syscall(i64, ...)
declare i32 @madvise(ptr, i64, i32)
"""

_FUTEX = """define internal void @wait(ptr %word, i32 %value) nounwind {
  %v = zext i32 %value to i64
  %r = call i64 (i64, ...) @syscall(i64 FUTEX, ptr %word, i64 128, i64 %v, i64 0, i64 0, i64 0)
  ret void
}
define internal void @wake(ptr %word) nounwind {
  %r = call i64 (i64, ...) @syscall(i64 FUTEX, ptr %word, i64 129, i64 65536, i64 0, i64 0, i64 0)
  ret void
}
define internal void @init_wait() nounwind { ret void }
"""

_CREATE = """
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_detach(ptr)
"""

# No pthreads (Windows): no worker can be made, the caller runs every stage alone.
_ALONE = """
define internal i32 @pthread_create(ptr %a, ptr %b, ptr %c, ptr %d) nounwind { ret i32 1 }
define internal i32 @pthread_detach(ptr %a) nounwind { ret i32 1 }
define internal void @wait(ptr %word, i32 %value) nounwind { ret void }
define internal void @wake(ptr %word) nounwind { ret void }
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

# Linux likes to wake a worker on the caller's CPU, where it waits until the caller sleeps, each
# time: both parts then go one after another. Who is found there is sent to the other CPUs.
_SPREAD = """
@weft_cpus = global [128 x i8] zeroinitializer, align 64
@places = internal global [WORKERS x { i32, i32 }] zeroinitializer, align 64
declare i32 @sched_getcpu()
define internal void @arrive_thread(i32 %tid) nounwind {
entry:
  %known = icmp ult i32 %tid, WORKERS
  br i1 %known, label %note, label %done
note:
  %id = call i64 (i64, ...) @syscall(i64 GETTID)
  %id32 = trunc i64 %id to i32
  %at = getelementptr { i32, i32 }, ptr @places, i32 %tid
  store i32 %id32, ptr %at
  br label %done
done:
  ret void
}
define internal i32 @here() nounwind {
  %cpu = call i32 @sched_getcpu()
  ret i32 %cpu
}
define internal void @note_cpu(i32 %tid) nounwind {
entry:
  %known = icmp ult i32 %tid, WORKERS
  br i1 %known, label %note, label %done
note:
  %cpu = call i32 @sched_getcpu()
  %at = getelementptr { i32, i32 }, ptr @places, i32 %tid, i32 1
  store i32 %cpu, ptr %at
  br label %done
done:
  ret void
}
define internal void @spread(i32 %nth, i32 %cpu) nounwind {
entry:
  %mask = alloca [128 x i8], align 8
  %byte = lshr i32 %cpu, 3
  %fits = icmp ult i32 %byte, 128
  br i1 %fits, label %next, label %done
next:
  %t = phi i32 [ 1, %entry ], [ %t1, %skip ]
  %less = icmp slt i32 %t, %nth
  %known = icmp ult i32 %t, WORKERS
  %more = and i1 %less, %known
  br i1 %more, label %look, label %done
look:
  %at = getelementptr { i32, i32 }, ptr @places, i32 %t, i32 1
  %its = load i32, ptr %at
  %same = icmp eq i32 %its, %cpu
  br i1 %same, label %send, label %skip
send:
  call void @llvm.memcpy.p0.p0.i64(ptr %mask, ptr @weft_cpus, i64 128, i1 false)
  %place = getelementptr i8, ptr %mask, i32 %byte
  %old = load i8, ptr %place
  %low = and i32 %cpu, 7
  %low8 = trunc i32 %low to i8
  %bit = shl i8 1, %low8
  %clear = xor i8 %bit, -1
  %new = and i8 %old, %clear
  store i8 %new, ptr %place
  %id_at = getelementptr { i32, i32 }, ptr @places, i32 %t
  %id = load i32, ptr %id_at
  %id64 = zext i32 %id to i64
  %r = call i64 (i64, ...) @syscall(i64 SETAFFINITY, i64 %id64, i64 128, ptr %mask)
  br label %skip
skip:
  %t1 = add i32 %t, 1
  br label %next
done:
  ret void
}
"""

_NO_SPREAD = """
@weft_cpus = global [128 x i8] zeroinitializer, align 64
define internal void @arrive_thread(i32 %tid) nounwind { ret void }
define internal i32 @here() nounwind { ret i32 0 }
define internal void @note_cpu(i32 %tid) nounwind { ret void }
define internal void @spread(i32 %nth, i32 %cpu) nounwind { ret void }
"""

_POOL = """
@weft_pool = global [512 x i8] zeroinitializer, align 64

define internal ptr @worker(ptr %packed) nounwind {
entry:
  %bits = ptrtoint ptr %packed to i64
  %tid = trunc i64 %bits to i32
  %high = lshr i64 %bits, 32
  %gen0 = trunc i64 %high to i32
  call void @arrive_thread(i32 %tid)
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
  call void @note_cpu(i32 %tid)
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
  %cpu = call i32 @here()
  call void @announce(i32 %workers)
  call void %fn(ptr %arg, i32 0, i32 %nth)
  call void @await()
  call void @spread(i32 %nth, i32 %cpu)
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

; resize: returns 0 when the pool is busy, then the caller tries again; the workers start at the
; next parallel stage
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

_PAUSE = {
    "x86_64": ("call void @llvm.x86.sse2.pause()", "declare void @llvm.x86.sse2.pause()"),
    "aarch64": ("call void @llvm.aarch64.hint(i32 1)", "declare void @llvm.aarch64.hint(i32)"),
}
_SYSCALLS = {
    "x86_64": {"FUTEX": "202", "GETTID": "186", "SETAFFINITY": "203"},
    "aarch64": {"FUTEX": "98", "GETTID": "178", "SETAFFINITY": "122"},
}
_HUGE = "%advice = call i32 @madvise(ptr %base, i64 %bytes, i32 14)"

EXPORTS = (
    "weft_pool",
    "weft_cpus",
    "weft_pool_resize",
    "weft_pool_reset",
    "weft_run_block",
    "weft_run",
    "weft_run_table",
)


def text(waits: str = "") -> str:
    """The module. `waits` names a way to wait that is not this system's, for tests: `condition`
    (variables, for systems without futexes) or `alone` (no workers).
    """
    machine = platform.machine().lower()
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)
    linux = sys.platform == "linux"
    calls = _SYSCALLS.get(machine) if linux else None
    way = waits or ("futex" if calls else "alone" if sys.platform == "win32" else "condition")
    pause, declaration = _PAUSE.get(machine, ("", ""))
    words = {
        "PAUSE": pause,
        "HUGE": _HUGE if linux else "",
        "SLOT_BYTES": str(64 * SLOTS),
        "SLOTS": str(SLOTS),
        "SPIN": str(SPIN),
        "WORKERS": str(WORKERS),
        **(calls or {}),
    }
    parts = [
        declaration,
        _LINUX if linux else "",
        {"futex": _CREATE + _FUTEX, "condition": _CREATE + _CONDITION, "alone": _ALONE}[way],
        _SPREAD if calls else _NO_SPREAD,
        _POOL,
        run_code.SCRATCH,
        run_code.RUN,
    ]
    filled = "\n".join(parts)
    for word, meaning in words.items():
        filled = filled.replace(word, meaning)
    return filled

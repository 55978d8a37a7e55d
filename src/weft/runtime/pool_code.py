"""LLVM IR of the thread pool; what runs on it is in `run_code`. Plain text: nothing is generated.

A stage has `nth` parts. Each is run once, by whoever claims it first: worker t claims part t when
it comes, and the caller, done with part 0, claims whatever nobody has begun. So a worker that comes
late (it sleeps, or another program has its core) skips the stage, and nobody waits for it.

`@generation` numbers the stages. `@lines` has a cache line for each worker, whose `state` is

    4 g      part t of stage g may be claimed, by comparing and exchanging
    4 g + 1  somebody runs it; 4 g + 3: and the caller sleeps until it is done
    4 g + 4  it is done: the same as open for stage g + 1

- The caller changes generation, task and units' counter only while all parts are done. A worker
  that woke for stage g and lost time finds another number than 4 g in its line and claims nothing.
  It reads the task only behind a claim, which holds the stage open. 64-bit numbers never return.
- Whoever is about to sleep says so, then looks once more; `@wait` may return for no reason. A wake
  takes the count of `@sleepers`, so one that was woken in vain counts itself anew: else an
  `announce` that lost time between its two exchanges would let a worker sleep for good.
- Scratch memory belongs to the part (`tid`), not to the thread that runs it.
- A worker stops when it sees `@stop`, which is set before the generation changes, and leaves -1;
  the caller waits for that before it makes lines anew.

A caller that finds the lock taken runs its stages alone: the bits are the same, since no kernel's
result depends on `nth`. A worker spins for a few tens of microseconds, then sleeps in the kernel (a
futex costs about 50 us to wake from).
"""

import platform
import sys

from weft.runtime import ir_text, run_code

SPIN = 2000
WATCH = 300
BRIEFLY = 100_000  # nanoseconds
SLOTS = 8
WORKERS = 1024

_LINUX = """
declare i64 @syscall(i64, ...)
declare i32 @madvise(ptr, i64, i32)
"""

_FUTEX = """define internal void @wait(ptr %word, i32 %value) nounwind {
  %v = zext i32 %value to i64
  %r = call i64 (i64, ...) @syscall(i64 FUTEX, ptr %word, i64 128, i64 %v, i64 0, i64 0, i64 0)
  ret void
}
define internal void @wait_briefly(ptr %word, i32 %value) nounwind {
  %time = alloca [2 x i64]
  store [2 x i64] [i64 0, i64 BRIEFLY], ptr %time
  %v = zext i32 %value to i64
  %r = call i64 (i64, ...) @syscall(i64 FUTEX, ptr %word, i64 128, i64 %v, ptr %time, i64 0, i64 0)
  ret void
}
define internal void @wake(ptr %word) nounwind {
  %r = call i64 (i64, ...) @syscall(i64 FUTEX, ptr %word, i64 129, i64 65536, i64 0, i64 0, i64 0)
  ret void
}
define internal void @init_wait() nounwind { ret void }
"""

# A worker's line: its state, the generation that it started behind, its thread, the CPU that it
# came on or was fetched to (-1: it was sent away since). Thread 0 has not begun: its clock is the
# asking thread's own, which never stands still.
_LINE = """
%Line = type { i64, i64, i32, i32, [40 x i8] }
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
define internal void @wait_briefly(ptr %word, i32 %value) nounwind { ret void }
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
  %v = load atomic i32, ptr %word seq_cst, align 4
  %same = icmp eq i32 %v, %value
  if %same sleep done
sleep:
  %c = call i32 @pthread_cond_wait(ptr @condition, ptr @mutex)
  goto done
done:
  %u = call i32 @pthread_mutex_unlock(ptr @mutex)
  ret void
}
define internal void @wait_briefly(ptr %word, i32 %value) nounwind {
  call void @wait(ptr %word, i32 %value)
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
# time: both parts then go one after another. Who is found there is sent to the other CPUs. And it
# may leave a worker that has begun behind another program for milliseconds, beside the CPU of a
# caller that waits for just that part: if its own clock stands still, the caller fetches it.
_PLACES = """
@weft_cpus = global [128 x i8] zeroinitializer, align 64
declare i32 @sched_getcpu()
define internal void @arrive_thread(ptr %line) nounwind {
  %id = call i64 (i64, ...) @syscall(i64 GETTID)
  %id32 = trunc i64 %id to i32
  %at = getelementptr %Line, ptr %line, i32 0, i32 2
  store i32 %id32, ptr %at
  ret void
}
define internal i32 @here() nounwind {
  %cpu = call i32 @sched_getcpu()
  ret i32 %cpu
}
; how long a worker has run, in ns; 0: unknown
define internal i64 @run_time(ptr %line) nounwind {
  %time = alloca [2 x i64]
  store [2 x i64] zeroinitializer, ptr %time
  %id_at = getelementptr %Line, ptr %line, i32 0, i32 2
  %id = load i32, ptr %id_at
  %not = xor i32 %id, -1
  %high = shl i32 %not, 3
  %clock = or i32 %high, 6
  %clock64 = sext i32 %clock to i64
  %r = call i64 (i64, ...) @syscall(i64 CLOCK, i64 %clock64, ptr %time)
  %s = load i64, ptr %time
  %more = item i64 %time 1
  %ns = mul i64 %s, 1000000000
  %all = add i64 %ns, %more
  ret i64 %all
}
; let a worker run on this CPU only, or on all but this (-1: on all)
define internal void @place(ptr %line, i32 %cpu, i1 %only) nounwind {
entry:
  %mask = alloca [128 x i8], align 8
  %byte = lshr i32 %cpu, 3
  %fits = icmp ult i32 %byte, 128
  %at = getelementptr i8, ptr %mask, i32 %byte
  %low = and i32 %cpu, 7
  %low8 = trunc i32 %low to i8
  %bit = shl i8 1, %low8
  if %only none all
none:
  call void @llvm.memset.p0.i64(ptr %mask, i8 0, i64 128, i1 false)
  if %fits turn done
all:
  call void @llvm.memcpy.p0.p0.i64(ptr %mask, ptr @weft_cpus, i64 128, i1 false)
  if %fits turn set
turn:
  %old = load i8, ptr %at
  %on = or i8 %old, %bit
  %clear = xor i8 %bit, -1
  %off = and i8 %old, %clear
  %new = select i1 %only, i8 %on, i8 %off
  store i8 %new, ptr %at
  goto set
set:
  %id_at = getelementptr %Line, ptr %line, i32 0, i32 2
  %id = load i32, ptr %id_at
  %id64 = zext i32 %id to i64
  %r = call i64 (i64, ...) @syscall(i64 SETAFFINITY, i64 %id64, i64 128, ptr %mask)
  goto done
done:
  ret void
}
"""

_NO_PLACES = """
@weft_cpus = global [128 x i8] zeroinitializer, align 64
define internal void @arrive_thread(ptr %line) nounwind { ret void }
define internal i32 @here() nounwind { ret i32 -1 }
define internal i64 @run_time(ptr %line) nounwind { ret i64 0 }
define internal void @place(ptr %line, i32 %cpu, i1 %only) nounwind { ret void }
"""

_POOL = """
; what threads fight for has a cache line of its own
@generation = internal global i64 0, align 64
; workers that have gone to sleep since the last wake
@sleepers = internal global { i32, [60 x i8] } zeroinitializer, align 64
@lock = internal global { i32, [60 x i8] } zeroinitializer, align 64
%Task = type { ptr, ptr, i32, [44 x i8] }
@task = internal global %Task zeroinitializer, align 64
@stop = internal global i32 0, align 4
@wanted = internal global i32 0, align 4
@weft_workers = global i32 0, align 4
@lines = internal global [WORKERS x %Line] zeroinitializer, align 64

define internal ptr @worker(ptr %packed) nounwind {
entry:
  %bits = ptrtoint ptr %packed to i64
  %tid = trunc i64 %bits to i32
  %line = getelementptr %Line, ptr @lines, i32 %tid
  %since_at = getelementptr %Line, ptr %line, i32 0, i32 1
  %since = load i64, ptr %since_at
  %cpu_at = getelementptr %Line, ptr %line, i32 0, i32 3
  call void @arrive_thread(ptr %line)
  goto outer
outer:
  %g = phi i64 [ %since, %entry ], [ %ng, %work ], [ %ng, %run ], [ %ng, %rouse ]
  goto spin
spin:
  %i = phi i32 [ 0, %outer ], [ %i1, %spin_more ]
  %v = load atomic i64, ptr @generation acquire, align 8
  %new = icmp ne i64 %v, %g
  if %new come spin_more
spin_more:
  PAUSE
  %i1 = add i32 %i, 1
  %c = icmp ult i32 %i1, SPIN
  if %c spin sleep
sleep:
  %o = atomicrmw add ptr @sleepers, i32 1 seq_cst
  %g32 = trunc i64 %g to i32
  %v2 = load atomic i64, ptr @generation seq_cst, align 8
  %new2 = icmp ne i64 %v2, %g
  if %new2 come nap
nap:
  call void @wait(ptr @generation, i32 %g32)
  goto sleep
come:
  %ng = load atomic i64, ptr @generation acquire, align 8
  %cpu = call i32 @here()
  store atomic i32 %cpu, ptr %cpu_at monotonic, align 4
  %stop = load atomic i32, ptr @stop acquire, align 4
  %is_stop = icmp ne i32 %stop, 0
  if %is_stop last work
work:
  %open = shl i64 %ng, 2
  %mine = or i64 %open, 1
  %x = cmpxchg ptr %line, i64 %open, i64 %mine seq_cst seq_cst
  %got = extractvalue { i64, i1 } %x, 1
  if %got run outer
run:
  %fn = load ptr, ptr @task
  %arg = load ptr, ptr getelementptr (%Task, ptr @task, i32 0, i32 1)
  %nth = load i32, ptr getelementptr (%Task, ptr @task, i32 0, i32 2)
  call void %fn(ptr %arg, i32 %tid, i32 %nth)
  %ready = add i64 %open, 4
  %sleeps = call i1 @leave(ptr %line, i64 %ready)
  if %sleeps rouse outer
rouse:
  call void @wake(ptr %line)
  goto outer
last:
  %waits = call i1 @leave(ptr %line, i64 -1)
  if %waits rouse_last end
rouse_last:
  call void @wake(ptr %line)
  goto end
end:
  ret ptr null
}

; set a line's state; whether the caller sleeps until it changes
define internal i1 @leave(ptr %line, i64 %state) nounwind {
  %old = atomicrmw xchg ptr %line, i64 %state seq_cst
  %bit = and i64 %old, 2
  %sleeps = icmp ne i64 %bit, 0
  ret i1 %sleeps
}

; tell the workers that there is something to do (a task, or to stop): the generation's number
define internal i64 @announce() nounwind {
entry:
  %old = load i64, ptr @generation
  %g = add i64 %old, 1
  %o = atomicrmw xchg ptr @generation, i64 %g seq_cst
  %s = atomicrmw xchg ptr @sleepers, i32 0 seq_cst
  %any = icmp ne i32 %s, 0
  if %any rouse done
rouse:
  call void @wake(ptr @generation)
  goto done
done:
  ret i64 %g
}

; spin until a line has this state: whether it has
define internal i1 @spin(ptr %line, i64 %state, i32 %times) nounwind {
entry:
  goto look
look:
  %i = phi i32 [ 0, %entry ], [ %i1, %more ]
  %v = load atomic i64, ptr %line acquire, align 8
  %there = icmp eq i64 %v, %state
  if %there done more
more:
  PAUSE
  %i1 = add i32 %i, 1
  %c = icmp ult i32 %i1, %times
  if %c look done
done:
  ret i1 %there
}

; wait until a line has this state
define internal void @await(ptr %line, i64 %state) nounwind {
entry:
  %at_once = call i1 @spin(ptr %line, i64 %state, i32 SPIN)
  if %at_once done watch
watch:
  %first = call i64 @run_time(ptr %line)
  %soon = call i1 @spin(ptr %line, i64 %state, i32 WATCH)
  if %soon done doze
doze:
  %last = phi i64 [ %first, %watch ], [ %last, %note ], [ %now, %nap ]
  %v = load atomic i64, ptr %line seq_cst, align 8
  %there = icmp eq i64 %v, %state
  if %there done note
note:
  %asleep = or i64 %v, 2
  %x = cmpxchg ptr %line, i64 %v, i64 %asleep seq_cst seq_cst
  %noted = extractvalue { i64, i1 } %x, 1
  if %noted look doze
look:
  %now = call i64 @run_time(ptr %line)
  %same = icmp eq i64 %now, %last
  %known = icmp ne i64 %now, 0
  %stands = and i1 %same, %known
  if %stands fetch nap
fetch:
  %cpu = call i32 @here()
  %cpu_at = getelementptr %Line, ptr %line, i32 0, i32 3
  store atomic i32 %cpu, ptr %cpu_at monotonic, align 4
  call void @place(ptr %line, i32 %cpu, i1 true)
  call void @place(ptr %line, i32 -1, i1 false)
  goto nap
nap:
  %low = trunc i64 %asleep to i32
  call void @wait_briefly(ptr %line, i32 %low)
  goto doze
done:
  ret void
}

; start the workers that are wanted and not there; the lock is held
define internal i32 @start() nounwind {
entry:
  %thread = alloca i64
  goto check
check:
  %n = load i32, ptr @weft_workers
  %want = load i32, ptr @wanted
  %next = add i32 %n, 1
  %fewer = icmp slt i32 %next, %want
  %known = icmp ult i32 %next, WORKERS
  %more = and i1 %fewer, %known
  if %more create done
create:
  %g = load i64, ptr @generation
  %g1 = add i64 %g, 1
  %open = shl i64 %g1, 2
  %line = getelementptr %Line, ptr @lines, i32 %next
  store i64 %open, ptr %line
  %since_at = getelementptr %Line, ptr %line, i32 0, i32 1
  store i64 %g, ptr %since_at
  %id_at = getelementptr %Line, ptr %line, i32 0, i32 2
  store i32 0, ptr %id_at
  %cpu_at = getelementptr %Line, ptr %line, i32 0, i32 3
  store i32 -1, ptr %cpu_at
  %t64 = zext i32 %next to i64
  %packed = inttoptr i64 %t64 to ptr
  %rc = call i32 @pthread_create(ptr %thread, ptr null, ptr @worker, ptr %packed)
  %ok = icmp eq i32 %rc, 0
  if %ok made done
made:
  %id = load ptr, ptr %thread
  %d = call i32 @pthread_detach(ptr %id)
  store i32 %next, ptr @weft_workers
  goto check
done:
  %have = load i32, ptr @weft_workers
  %threads = add i32 %have, 1
  ret i32 %threads
}

define internal void @parallel(ptr %fn, ptr %arg, i32 %nth) nounwind {
entry:
  store ptr %fn, ptr @task
  store ptr %arg, ptr getelementptr (%Task, ptr @task, i32 0, i32 1)
  store i32 %nth, ptr getelementptr (%Task, ptr @task, i32 0, i32 2)
  %g = call i64 @announce()
  %open = shl i64 %g, 2
  %mine = or i64 %open, 1
  %ready = add i64 %open, 4
  call void %fn(ptr %arg, i32 0, i32 %nth)
  goto look
look:
  %t = phi i32 [ 1, %entry ], [ %t1, %next ]
  %line = getelementptr %Line, ptr @lines, i32 %t
  %state = load atomic i64, ptr %line acquire, align 8
  %idle = icmp eq i64 %state, %open
  if %idle claim next
claim:
  %x = cmpxchg ptr %line, i64 %open, i64 %mine seq_cst seq_cst
  %got = extractvalue { i64, i1 } %x, 1
  if %got run next
run:
  call void %fn(ptr %arg, i32 %t, i32 %nth)
  store atomic i64 %ready, ptr %line seq_cst, align 8
  goto next
next:
  %t1 = add i32 %t, 1
  %more = icmp slt i32 %t1, %nth
  if %more look wait
wait:
  %w = phi i32 [ 1, %next ], [ %w1, %wait ]
  %other = getelementptr %Line, ptr @lines, i32 %w
  call void @await(ptr %other, i64 %ready)
  call void @spread(ptr %other)
  %w1 = add i32 %w, 1
  %again = icmp slt i32 %w1, %nth
  if %again wait done
done:
  ret void
}

; send a worker away that is on the caller's CPU
define internal void @spread(ptr %line) nounwind {
entry:
  %cpu = call i32 @here()
  %cpu_at = getelementptr %Line, ptr %line, i32 0, i32 3
  %its = load atomic i32, ptr %cpu_at monotonic, align 4
  %same = icmp eq i32 %its, %cpu
  if %same send done
send:
  store atomic i32 -1, ptr %cpu_at monotonic, align 4
  call void @place(ptr %line, i32 %cpu, i1 false)
  goto done
done:
  ret void
}

; the number of threads this caller may use: 1 when the pool is busy
define internal i32 @acquire(i64 %wanted_too) nounwind {
entry:
  %n = load atomic i32, ptr @wanted acquire, align 4
  %many = icmp sgt i32 %n, 1
  %w = icmp ne i64 %wanted_too, 0
  %try = and i1 %many, %w
  if %try lock alone
lock:
  %x = cmpxchg ptr @lock, i32 0, i32 1 seq_cst seq_cst
  %got = extractvalue { i32, i1 } %x, 1
  if %got mine alone
mine:
  %threads = call i32 @start()
  %some = icmp sgt i32 %threads, 1
  if %some done unlock
unlock:
  call void @release(i32 2)
  goto alone
alone:
  ret i32 1
done:
  ret i32 %threads
}
define internal void @release(i32 %threads) nounwind {
entry:
  %held = icmp sgt i32 %threads, 1
  if %held unlock done
unlock:
  store atomic i32 0, ptr @lock seq_cst, align 4
  goto done
done:
  ret void
}

; resize: returns 0 when the pool is busy, then the caller tries again; the workers start at the
; next parallel stage
define i32 @weft_pool_resize(i32 %n) nounwind {
entry:
  %x = cmpxchg ptr @lock, i32 0, i32 1 seq_cst seq_cst
  %got = extractvalue { i32, i1 } %x, 1
  if %got mine busy
busy:
  ret i32 0
mine:
  %workers = load i32, ptr @weft_workers
  %any = icmp sgt i32 %workers, 0
  if %any stop set
stop:
  store atomic i32 1, ptr @stop seq_cst, align 4
  %g = call i64 @announce()
  goto wait
wait:
  %t = phi i32 [ 1, %stop ], [ %t1, %wait ]
  %line = getelementptr %Line, ptr @lines, i32 %t
  call void @await(ptr %line, i64 -1)
  %t1 = add i32 %t, 1
  %more = icmp sle i32 %t1, %workers
  if %more wait stopped
stopped:
  store atomic i32 0, ptr @stop seq_cst, align 4
  store i32 0, ptr @weft_workers
  goto set
set:
  store atomic i32 %n, ptr @wanted seq_cst, align 4
  call void @release(i32 2)
  ret i32 1
}

; forget workers that a fork did not copy
define void @weft_pool_reset() nounwind {
  store i32 0, ptr @sleepers
  store i32 0, ptr @lock
  store i32 0, ptr @stop
  store i32 0, ptr @weft_workers
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
    "x86_64": {"FUTEX": "202", "GETTID": "186", "SETAFFINITY": "203", "CLOCK": "228"},
    "aarch64": {"FUTEX": "98", "GETTID": "178", "SETAFFINITY": "122", "CLOCK": "113"},
}
_HUGE = "%advice = call i32 @madvise(ptr %base, i64 %bytes, i32 14)"

EXPORTS = (
    "weft_workers",
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
        "WATCH": str(WATCH),
        "BRIEFLY": str(BRIEFLY),
        "WORKERS": str(WORKERS),
        **(calls or {}),
    }
    parts = [
        declaration,
        _LINE,
        _LINUX if linux else "",
        {"futex": _CREATE + _FUTEX, "condition": _CREATE + _CONDITION, "alone": _ALONE}[way],
        _PLACES if calls else _NO_PLACES,
        _POOL,
        run_code.SCRATCH,
        run_code.RUN,
    ]
    filled = "\n".join(parts)
    for word, meaning in words.items():
        filled = filled.replace(word, meaning)
    return ir_text.expand(filled)

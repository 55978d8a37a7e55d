"""Calling native kernels.

A kernel stage is `void k(ptr args, i32 tid, i32 nth)`; `args` is a block of 64-bit words:

    args[0] status (a kernel stores nonzero on a data error)   args[1] its detail, e.g. the offending index
    args[2] out pointer   args[3..3+n_in) input pointers   args[3+n_in] scratch pointer   then the launch's ints
"""

from weft.runtime.machine import Host, cache_dir, cache_stats, emit_assembly, emit_object, host, load

__all__ = ["Host", "cache_dir", "cache_stats", "emit_assembly", "emit_object", "host", "load"]

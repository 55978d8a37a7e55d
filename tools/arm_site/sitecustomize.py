"""What the emulated Python of `tools/arm.py` imports first: LLVM runs on the machine that emulates.

An emulated LLVM takes seconds a kernel.  Compiling a text for a processor gives the same object
wherever it is done, so `emit_object` asks the server at WEFT_ARM_COMPILER (`arm.Compiler`).
"""

import importlib.abc
import importlib.util
import os
import socket
import struct
import sys


def _ask(ir_text: str) -> bytes:
    from weft.runtime import machine

    host = machine.host()
    request = "\0".join([host.cpu, host.features, ir_text]).encode()
    with socket.socket(socket.AF_UNIX) as line, line.makefile("rwb") as file:
        line.connect(os.environ["WEFT_ARM_COMPILER"])
        file.write(struct.pack("<Q", len(request)) + request)
        file.flush()
        good, size = struct.unpack("<QQ", file.read(16))
        answer = file.read(size)
    if not good:
        raise RuntimeError(answer.decode())
    return answer


class _Finder(importlib.abc.MetaPathFinder):
    """Finds `weft.runtime.machine` as others do, and exchanges a function of it."""

    def find_spec(self, name, path=None, target=None):
        if name != "weft.runtime.machine":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.loader is not None
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            module.emit_object = _ask

        spec.loader.exec_module = exec_module
        return spec


if "WEFT_ARM_COMPILER" in os.environ:
    sys.meta_path.insert(0, _Finder())

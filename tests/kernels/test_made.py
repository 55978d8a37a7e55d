"""Kernels that the disk knows by what they are made from."""

import os
import subprocess
import sys

from weft.core import dtype as D
from weft.core.scalar import Arg, Const, Scalar
from weft.kernels.schedule.epilogue import _ending_ir, _Form

PROGRAM = """
from weft.runtime import machine
machine._code_state = lambda: "this code"
import weft
from weft.kernels.target.llvm import Module
written, text = [], Module.text
Module.text = lambda self: written.append(self) or text(self)
x, w = weft.ones(9, 40), weft.ones(40, 40)
@weft.compile
def ended(x):
    return weft.relu(x @ w + 1.0)
for _ in range(3):
    ended(x)
weft.softmax(x, 0), x[:1] @ w, x.bfloat16() @ w.bfloat16(), x.half() @ w.half(), x.long() @ w.long()
print(len(written), machine.cache_stats()["compiled"])
"""


def test_no_text_is_written_again(tmp_path):
    env = {**os.environ, "WEFT_CACHE_DIR": str(tmp_path)}
    call = [sys.executable, "-c", PROGRAM]
    first, second = (subprocess.check_output(call, env=env, text=True).split() for _ in range(2))
    assert int(first[0]) >= 6 and int(first[1]) >= 6
    assert second == ["0", "0"]


def test_what_an_ending_is_made_from_is_told_to_the_bit():
    f32, texts = D.float32, {}
    for value in (0.0, -0.0, 1.0, 1.0 + 2**-23):
        for name in ("add", "mul"):
            ends = (Scalar(name, (Arg(0, f32), Const(value, f32))),)
            for finish in ("", "registers"):
                form = _Form(ends, (f32,), (), (), (), finish)
                texts[repr(form)] = _ending_ir(form)
    assert len(texts) == len(set(texts.values())) == 16

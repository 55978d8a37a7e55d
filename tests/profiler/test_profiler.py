"""Profiles: what ran is named, counted, costed and timed; nothing stays behind."""

import json

import numpy as np
import pytest

import weft
from weft import profiler
from weft.ops import dispatch
from weft.profiler import ProfilerAction
from weft.runtime import native


def work(x, w):
    return ((x @ w).relu() + 1).sum()


def operands():
    weft.manual_seed(0)
    return weft.randn(33, 70), weft.randn(70, 50)


def named(p, name):
    return [a for a in p.key_averages() if a.key.startswith(name)]


def test_eager_kernels_are_named_counted_and_costed():
    x, w = operands()
    work(x, w)
    with weft.profile() as p:
        for _ in range(3):
            work(x, w)
    (product,) = named(p, "MatMul")
    assert product.count == 3 and product.kind == "kernel"
    assert product.flops == 3 * 2 * 33 * 70 * 50
    assert product.nbytes == 3 * 4 * (33 * 70 + 70 * 50 + 33 * 50)
    assert product.line is not None and product.line.startswith("test_profiler.py:")
    assert 0 < product.limit < product.seconds < 5
    assert product.shapes == ((33, 50), (33, 70), (70, 50))


def test_steps_of_a_compiled_program_are_seen_one_by_one():
    x, w = operands()
    step = weft.compile(work)
    wanted = [step(x, w).item() for _ in range(3)][-1]
    with weft.profile() as p:
        assert step(x, w).item() == wanted
    (product,) = named(p, "MatMul")
    assert product.flops == 2 * 33 * 70 * 50 and product.count == 1
    assert product.line is not None and product.line.startswith("test_profiler.py:")
    assert sum(a.count for a in p.key_averages()) == len(p.events()) < 4  # fused: not 4 ops


def test_a_loop_after_a_product_is_no_product():
    """Its operands are square, as the product's: they would fit."""
    x, w, b = weft.rand(40, 40), weft.rand(40, 40), weft.rand(40, 40)
    step = weft.compile(lambda x, w, b: ((x @ w) + b.T).exp())
    step(x, w, b)
    with weft.profile() as p:
        step(x, w, b)
    assert [e.flops for e in p.events()] == [2 * 40**3, 0]


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_stays_behind(fails):
    x, w = operands()
    work(x, w)
    before = native.launch, native.Table.run, dispatch.quietly
    try:
        with weft.profile() as p:
            work(x, w)
            if fails:
                raise KeyError("in the block")
    except KeyError:
        assert fails
    assert (native.launch, native.Table.run, dispatch.quietly) == before
    seen = len(p.events())
    work(x, w)
    assert len(p.events()) == seen > 0


def test_results_are_the_same_bits_under_a_profile():
    x, w = operands()
    plain = work(x, w).item()
    with weft.profile():
        assert work(x, w).item() == plain


def test_errors_of_data_are_those_without_a_profile():
    f = weft.compile(lambda x, i: x.exp()[i])
    x = weft.randn(5, 4)
    for _ in range(2):
        f(x, weft.tensor([0, 4]))
    with pytest.raises(IndexError) as plain:
        f(x, weft.tensor([0, 5])).sum().item()
    with weft.profile(), pytest.raises(IndexError) as seen:
        f(x, weft.tensor([0, 5])).sum().item()
    assert str(seen.value) == str(plain.value)


def test_two_profiles_at_once_are_refused():
    with weft.profile(), pytest.raises(RuntimeError, match="another profile"):
        weft.profile().start()
    with weft.profile():  # the refusal took nothing
        pass


def test_ranges_and_the_trace(tmp_path):
    x, w = operands()
    with weft.profile() as p, profiler.record_function("forward"):
        work(x, w)
    p.export_chrome_trace(tmp_path / "t.json")
    rows = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    (outer,) = [r for r in rows if r["name"] == "forward"]
    inner = [r for r in rows if r["cat"] == "cpu_op"]
    assert outer["cat"] == "user_annotation" and len(inner) >= 3
    for r in inner:
        assert outer["ts"] <= r["ts"] and r["ts"] + r["dur"] <= outer["ts"] + outer["dur"]
        assert r["ph"] == "X" and "line" in r["args"]


def test_a_schedule_keeps_the_steps_it_names(tmp_path):
    x, w = operands()
    work(x, w)
    kept = []
    plan = profiler.schedule(wait=1, warmup=1, active=2, repeat=2)
    with weft.profile(schedule=plan, on_trace_ready=lambda p: kept.append(len(p.events()))) as p:
        for _ in range(12):
            work(x, w)
            p.step()
    with weft.profile() as once:
        work(x, w)
    assert kept == [2 * len(once.events())] * 2


def test_the_schedule_is_torchs():
    none, warm, record, save = ProfilerAction
    plan = profiler.schedule(skip_first=2, wait=1, warmup=1, active=2, repeat=2)
    cycle = [none, warm, record, save]
    assert [plan(i) for i in range(12)] == [none] * 2 + cycle * 2 + [none] * 2
    endless = profiler.schedule(wait=0, warmup=0, active=1)
    assert {endless(i) for i in range(5)} == {save}
    with pytest.raises(AssertionError, match="active 0"):
        profiler.schedule(wait=0, warmup=0, active=0)


def test_the_handler_writes_where_tensorboard_looks(tmp_path):
    x, w = operands()
    handler = profiler.tensorboard_trace_handler(str(tmp_path / "runs"), "worker0")
    with weft.profile(on_trace_ready=handler):
        work(x, w)
    (path,) = (tmp_path / "runs").iterdir()
    assert path.name.startswith("worker0.") and path.name.endswith(".pt.trace.json")
    assert json.loads(path.read_text())["traceEvents"]


def test_the_table():
    x, w = operands()
    with weft.profile() as p:
        work(x, w)
        np.testing.assert_array_equal(weft.sort(weft.randn(40))[1].shape, (40,))
    text = p.table()
    head, _, *rows, end = text.split("\n")
    for word in ("calls", "GFLOP/s", "GB/s", "limit", "line"):
        assert word in head
    assert any(r.startswith("MatMul() -> [33, 50]") and "%" in r for r in rows)
    assert end.startswith(f"{len(rows)} kernels")
    with pytest.raises(ValueError, match="sort_by"):
        p.table(sort_by="cuda_time")


def test_limits_are_measured():
    from weft.kernels import limits

    one = limits.peak_flops(1)
    assert 1e9 < one < 1e12 and 1e8 < limits.read_bandwidth(1) < 1e12
    assert limits.peak_flops(1) == one  # once a process
    for of in limits.PRODUCTS:
        ways = limits.peaks(of, 1)
        feature = {"bfloat16": "amx-bf16", "int8": "amx-int8"}.get(of, "")
        assert ("tiles" in ways) == native.host().has(feature), ways
        assert limits.peak_flops(1, of) == max(ways.values())
    assert limits.peak_flops(1, "float64") < one < limits.peak_flops(1, "int8")
    if native.host().has("amx-bf16"):
        assert limits.peak_flops(1, "bfloat16") > 3 * one


def test_a_product_is_held_against_the_peak_of_its_numbers():
    x, w = (weft.randn(64, 64).bfloat16() for _ in range(2))
    with weft.profile() as p:
        x @ w
        x.float() @ w.float()
        weft.set_fast_math(True)
        x.float() @ w.float()
        weft.set_fast_math(False)
    products = [e for e in p.events() if e.flops]
    assert [e.of for e in products] == ["bfloat16", "float32", "bfloat16"]
    assert {e.flops for e in products} == {2.0 * 64**3}


@pytest.mark.parametrize("kind, gates", [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_a_recurrent_layer_is_held_against_the_peak_of_its_numbers(kind, gates):
    layer = getattr(weft.nn, kind)(16, 32)
    x = weft.randn(5, 3, 16)
    inputs, steps = (2.0 * 5 * 3 * gates * 32 * n for n in (16, 32))
    for narrow in (False, True):
        with weft.profile() as p, weft.autocast("cpu", enabled=narrow):
            layer(x)[0].float().sum().backward()
        found = {e.name.partition("(")[0]: e for e in p.events()}
        forward, back = (found[kind.title() + name] for name in ("States", "Grad"))
        assert {forward.of, back.of} == {"bfloat16" if narrow else "float32"}
        assert forward.flops in (steps, inputs + steps) and back.flops == steps

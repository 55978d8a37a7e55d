"""Subclasses, objects and modes that take part in calls: what torch records, and the protocol."""

import copy
import io
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import weft
from weft.compat.torch_ import c, overrides

FIXTURES = Path(__file__).parents[1] / "fixtures"
sys.path.insert(0, str(FIXTURES))
import override_cases  # noqa: E402

RECORD = json.loads((FIXTURES / "overrides.json").read_text("utf-8"))


class Tagged(weft.Tensor):
    """Keeps `tag` through calls: the documentation's MetadataTensor."""

    @staticmethod
    def __new__(cls, data, tag=None, **kw):
        return super().__new__(cls, data, **kw)

    def __init__(self, data, tag=None):
        self.tag = tag

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        y = super().__torch_function__(func, types, args, kwargs)
        if isinstance(y, cls):
            y.tag = next((a.tag for a in args if hasattr(a, "tag")), None)
        return y


class Kept(weft.Tensor):
    pass


@pytest.fixture(scope="module")
def seen():
    return override_cases.seen(weft, overrides.resolve_name)


@pytest.mark.parametrize("text", override_cases.expressions())
def test_the_functions_seen_and_the_class_kept_are_torchs(text, seen):
    kind, names = seen[text]
    assert [kind.replace("dtype", "dtype"), names] == RECORD[text]


def test_a_subclass_keeps_its_class_and_values():
    a = weft.arange(6.0).reshape(2, 3).as_subclass(Kept)
    top = a.max(dim=1)
    assert type(a + 1) is type(1 + a) is type(a[0]) is type(a.T) is type(top.values) is Kept
    assert type(top).__name__ == "max" and top.values.tolist() == [2.0, 5.0]
    assert all(type(r) is Kept for r in a) and type(a.unbind()[0]) is Kept
    plain = weft.ones(2, 3)
    b = plain + a
    assert type(b) is Kept and type(plain) is weft.Tensor and type(plain + 1) is weft.Tensor
    assert (a.contiguous() is a) and type(a.tolist()) is list
    assert repr(a[0]) == "Kept([0., 1., 2.])"


def test_as_subclass_shares_memory_and_passes_gradients():
    x = weft.ones(3, requires_grad=True)
    s = x.as_subclass(Kept)
    assert not s.is_leaf and s.requires_grad and s.data_ptr() == x.data_ptr()
    (s * weft.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert x.grad.tolist() == [1.0, 2.0, 3.0] and type(x.grad) is weft.Tensor
    made = weft.Tensor._make_subclass(Kept, x, True)
    assert made.is_leaf and made.requires_grad and made.data_ptr() == x.data_ptr()
    with pytest.raises(TypeError, match="subclass of Tensor"):
        x.as_subclass(int)


def test_a_result_that_is_an_argument_is_not_changed():
    plain, s = weft.ones(2), weft.ones(2).as_subclass(Kept)
    out = weft.add(s, s, out=plain)
    assert type(plain) is weft.Tensor and type(out) is Kept and plain.tolist() == [2.0, 2.0]
    both = weft.broadcast_tensors(plain, s)
    assert type(plain) is weft.Tensor and [type(b) for b in both] == [Kept, Kept]


def test_attributes_survive_copies_and_files():
    t = Tagged([1.0, 2.0], tag="x")
    t.more = {"k": [1]}
    assert (t + 1).tag == "x" and type(t + 1) is Tagged
    deep = copy.deepcopy(t)
    assert type(deep) is Tagged and deep.more == t.more and deep.more is not t.more
    assert deep.data_ptr() != t.data_ptr()
    again = pickle.loads(pickle.dumps(t))
    assert type(again) is Tagged and again.tag == "x" and again.tolist() == [1.0, 2.0]
    file = io.BytesIO()
    weft.save({"t": t, "same": t}, file)
    file.seek(0)
    read = weft.load(file, weights_only=False)
    assert type(read["t"]) is Tagged and read["t"].more == {"k": [1]} and read["same"] is read["t"]
    file.seek(0)
    with pytest.raises(pickle.UnpicklingError, match="Tagged"):
        weft.load(file)


class Forger(weft.Tensor):
    def __getstate__(self):
        return {"_fn": "a tape node of one's own"}


def test_state_in_a_file_cannot_reach_the_handle():
    file = io.BytesIO()
    weft.save(weft.ones(1).as_subclass(Forger), file)
    file.seek(0)
    with pytest.raises(pickle.UnpicklingError, match="refused"):
        weft.load(file, weights_only=False)


def test_a_parameter_of_a_subclass_is_a_parameter_and_stays_what_it_is():
    p = weft.nn.Parameter(Tagged([1.0, 2.0], tag="w"))
    assert type(p) is Tagged and isinstance(p, weft.nn.Parameter) and p.requires_grad
    assert not isinstance(weft.ones(1), weft.nn.Parameter)
    layer = weft.nn.Module()
    layer.p = p
    assert [n for n, _ in layer.named_parameters()] == ["p"]
    (p * 3).sum().backward()
    assert p.grad.tolist() == [3.0, 3.0]
    weft.optim.SGD(layer.parameters(), lr=1.0).step()
    assert p.tolist() == [-2.0, -1.0] and type(p) is Tagged


class Diagonal:
    """The documentation's example of an object that is no tensor."""

    handled: dict = {}

    def __init__(self, n, value):
        self.n, self.value = n, value

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func not in cls.handled or not all(issubclass(t, (weft.Tensor, cls)) for t in types):
            return NotImplemented
        return cls.handled[func](*args, **(kwargs or {}))


Diagonal.handled = {
    weft.mean: lambda d: d.value / d.n,
    weft.add: lambda a, b: ("add", type(a).__name__, type(b).__name__),
    weft.Tensor.add: lambda a, b: "method",
    weft.cat: lambda parts, dim=0: ("cat", len(parts), dim),
    weft.nn.functional.linear: lambda x, w, b=None: "linear",
}


def test_an_object_that_is_no_tensor_answers():
    d, one = Diagonal(2, 6.0), weft.ones(1)
    assert weft.mean(d) == 3.0
    assert weft.add(d, 1) == ("add", "Diagonal", "int")
    assert weft.add(one, d) == ("add", "Tensor", "Diagonal")
    assert one + d == "method" and weft.cat([one, d], dim=1) == ("cat", 2, 1)
    assert weft.nn.Linear(1, 1)(d) == "linear"
    with pytest.raises(TypeError, match=r"Multiple dispatch failed for 'torch\.exp'"):
        weft.exp(d)
    with pytest.raises(TypeError, match="unsupported operand"):
        one * d
    assert overrides.is_tensor_like(d) and overrides.has_torch_function((one, d))
    assert not overrides.has_torch_function((one, 3)) and not overrides.is_tensor_like(3)


def test_subclasses_are_asked_before_their_bases_and_strangers_refuse():
    class Base(weft.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            asked.append(cls.__name__)
            return super().__torch_function__(func, types, args, kwargs)

    class Derived(Base):
        pass

    asked: list = []
    base, derived = weft.ones(2).as_subclass(Base), weft.ones(2).as_subclass(Derived)
    assert type(base + derived) is Derived and asked == ["Derived"]
    with pytest.raises(TypeError):
        weft.ones(2).as_subclass(Kept) + base
    assert asked == ["Derived", "Base", "Base"]  # then Python asks the right operand


class Spy(overrides.TorchFunctionMode):
    def __init__(self, name, log):
        self.name, self.log = name, log

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.log.append((self.name, overrides.resolve_name(func)))
        return func(*args, **(kwargs or {}))


def test_modes_see_every_call_innermost_first():
    log: list = []
    with Spy("outer", log), Spy("inner", log):
        x = weft.zeros(2)
        y = weft.softmax(x + 1, 0)
    assert log == [
        (who, f)
        for f in ("torch.zeros", "torch.Tensor.add", "torch.softmax")
        for who in ("inner", "outer")
    ]
    y = y + 1
    assert len(log) == 6


def test_a_mode_can_answer_for_the_function():
    class Zero(overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is weft.rand:
                return weft.zeros(*args)
            return func(*args, **(kwargs or {}))

    with Zero():
        assert weft.rand(3).tolist() == [0.0, 0.0, 0.0]
    with pytest.raises(ValueError), Zero():
        raise ValueError
    assert weft.rand(3).tolist() != [0.0, 0.0, 0.0]


def test_contexts_that_ask_fewer():
    s = weft.ones(2).as_subclass(Kept)
    log: list = []
    with c.DisableTorchFunctionSubclass(), Spy("m", log):
        assert type(s + 1) is weft.Tensor and overrides.has_torch_function_variadic()
    assert [f for _, f in log] == ["torch.Tensor.add"]
    with c.DisableTorchFunction(), Spy("m", log):
        assert type(s + 1) is weft.Tensor and not overrides.has_torch_function((s,))
    assert len(log) == 1 and type(s + 1) is Kept


def test_a_function_of_ones_own_can_ask():
    def mine(x, scale=1.0):
        if overrides.has_torch_function_unary(x):
            return overrides.handle_torch_function(mine, (x,), x, scale=scale)
        return x.sum() * scale

    class Answers:
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            return func.__name__, types, kwargs

    assert mine(Answers(), scale=2.0) == ("mine", (Answers,), {"scale": 2.0})
    assert mine(weft.ones(2), 3.0).item() == 6.0


def test_the_vjp_rules_are_no_calls_that_anyone_sees():
    log: list = []
    x = weft.ones(3, requires_grad=True)
    s = x.as_subclass(Kept)
    y = (s * s).sum()
    with Spy("m", log):
        y.backward()
    assert [f for _, f in log] == ["torch.Tensor.backward"] and x.grad.tolist() == [2.0] * 3


def test_names_of_the_functions():
    assert overrides.resolve_name(weft.Tensor.add) == "torch.Tensor.add"
    assert overrides.resolve_name(weft.add) == "torch.add"
    assert overrides.resolve_name(weft.Tensor.shape.__get__) == "torch.Tensor.shape.__get__"
    assert overrides.is_tensor_method_or_property(weft.Tensor.add)
    assert not overrides.is_tensor_method_or_property(weft.add)
    by_place = overrides.get_overridable_functions()
    assert weft.add in by_place[weft] and weft.Tensor.add in by_place[weft.Tensor]
    assert weft.is_tensor in overrides.get_ignored_functions()


def test_a_process_without_such_classes_runs_the_functions_own_bodies():
    program = (
        "import weft, inspect\n"
        "before = weft.add.__code__\n"
        "held = weft.add\n"
        "class P(weft.nn.Parameter): pass\n"
        "assert weft.add.__code__ is before\n"
        "class A(weft.Tensor): pass\n"
        "assert weft.add is held and weft.add.__code__ is not before\n"
        "assert held.__wrapped__.__code__ is before\n"
        "assert list(inspect.signature(held).parameters)[:2] == ['input', 'other']\n"
        "assert hash(held.__code__) is not None\n"
        "assert type(held(A([1.0]), 1)) is A\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_device_is_a_context():
    assert weft.get_default_device() == weft.device("cpu")
    with weft.device("cpu") as d:
        assert weft.ones(1).device == d == weft.get_default_device()
    with pytest.raises(AssertionError, match="not compiled with CUDA"), weft.device("cuda"):
        weft.ones(1)
    assert weft.ones(1).tolist() == [1.0]


_LOCALS = """
import weft
class Own(weft.Tensor): pass
seen = []
for name in ("mul_", "relu_"):
    try:
        getattr(weft.ones(3), name)("no", 3)
    except TypeError as e:
        tb = e.__traceback__
        while tb:
            if tb.tb_frame.f_code.co_name == name:
                seen.append((name, sorted(tb.tb_frame.f_locals)[:2], tb.tb_lineno > 0))
            tb = tb.tb_next
print(seen)
"""


def test_who_looks_at_a_frame_of_a_covered_method_sees_its_locals():
    """As debuggers and pytest do; the interpreter crashed where the code took no cells."""
    run = subprocess.run(
        [sys.executable, "-c", _LOCALS], capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stderr
    seen = [("mul_", ["a", "args"], True), ("relu_", ["a", "args"], True)]
    assert run.stdout.strip() == str(seen)

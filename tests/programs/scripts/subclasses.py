"""Tensor subclasses as programs write them: metadata that stays, points on a canvas, a log."""

import copy
import functools
import io

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode, resolve_name


class Metadata(torch.Tensor):
    @staticmethod
    def __new__(cls, data, metadata=None, **kw):
        return super().__new__(cls, data, **kw)

    def __init__(self, data, metadata=None):
        self.metadata = metadata

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        metadata = tuple(a.metadata for a in args if hasattr(a, "metadata"))
        assert len(metadata) > 0
        ret = super().__torch_function__(func, types, args, kwargs)
        if isinstance(ret, cls):
            ret.metadata = metadata[0]
        return ret


class Point(torch.Tensor):
    """As torchvision's tv_tensors: results are plain, but for a few functions."""

    keep = {torch.Tensor.clone, torch.Tensor.to, torch.Tensor.detach, torch.Tensor.requires_grad_}

    @staticmethod
    def __new__(cls, data, *, canvas, dtype=None):
        made = torch.as_tensor(data, dtype=dtype).as_subclass(cls)
        made.canvas = canvas
        return made

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if not all(issubclass(cls, t) for t in types):
            return NotImplemented
        with torch._C.DisableTorchFunctionSubclass():
            out = func(*args, **(kwargs or {}))
        if func in cls.keep and isinstance(args[0], cls):
            out = out.as_subclass(cls)
            out.canvas = args[0].canvas
        elif isinstance(out, cls):
            return out.as_subclass(torch.Tensor)
        return out

    def __repr__(self):
        return f"Point({self.as_subclass(torch.Tensor).tolist()}, canvas={self.canvas})"


HANDLED = {}


def implements(*functions):
    def register(f):
        for function in functions:
            HANDLED[function] = functools.wraps(function)(f)
        return f

    return register


class Unit:
    """No tensor: a number with a unit, which torch's functions ask."""

    def __init__(self, value, unit):
        self.value, self.unit = torch.as_tensor(value), unit

    def __repr__(self):
        return f"{self.value.tolist()} {self.unit}"

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func not in HANDLED:
            return NotImplemented
        return HANDLED[func](*args, **(kwargs or {}))


@implements(torch.add, torch.Tensor.add)
def add(a, b):
    return Unit(a.value + b.value, a.unit) if isinstance(b, Unit) else Unit(a.value + b, a.unit)


@implements(torch.mul)
def mul(a, b):
    return Unit(a.value * b.value, f"{a.unit}*{b.unit}")


@implements(torch.stack)
def stack(parts, dim=0):
    return Unit(torch.stack([p.value for p in parts], dim), parts[0].unit)


class Count(TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.calls.append(resolve_name(func))
        return func(*args, **(kwargs or {}))


m = Metadata([[1.0, 2.0], [3.0, 4.0]], metadata={"owner": "Ministry of Silly Walks"})
plain = torch.tensor([[4.0, 3.0], [2.0, 1.0]])
print(torch.add(m, plain), torch.add(m, plain).metadata["owner"])
print(torch.mul(plain, m).metadata, type(m.T @ plain).__name__, (m[0] > 1).metadata)
print(F.softmax(m, dim=1), type(m.max(dim=1).values).__name__, m.mean().item())
file = io.BytesIO()
torch.save(m, file)
file.seek(0)
read = torch.load(file, weights_only=False)
print(type(read).__name__, read.metadata, read.tolist())

p = Point([1.0, 2.0], canvas=(10, 20))
print(p, p.clone(), p + 1, type(p * 2).__name__, p.to(torch.float64), p.shape)
print(type(torch.stack([p, p])).__name__, p.detach().canvas, isinstance(p, torch.Tensor))
p += 1
print(p)

u, v = Unit([1.0, 2.0], "m"), Unit([3.0, 4.0], "s")
print(torch.add(u, u), torch.add(u, 1), torch.mul(u, v), torch.stack([u, u]))
try:
    torch.exp(u)
except TypeError as e:
    print(str(e).splitlines()[0])

count = Count()
with count:
    x = torch.ones(2, 3, requires_grad=True)
    y = F.relu(x * 2).sum()
    y.backward()
print(count.calls)

layer = torch.nn.Linear(2, 2)
with torch.no_grad():
    layer.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    layer.bias.zero_()
out = layer(m)
print(type(out).__name__, out.tolist(), out.metadata is m.metadata)
out.sum().backward()
print(layer.weight.grad.tolist(), type(layer.weight.grad).__name__)
w = torch.nn.Parameter(Metadata([1.0, 2.0], metadata="w"))
print(isinstance(w, torch.nn.Parameter), type(w).__name__, w.requires_grad)
with torch.device("cpu"):
    print(torch.zeros(2).device, copy.deepcopy(plain).tolist())

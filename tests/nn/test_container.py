"""Containers behave as lists and dicts of modules or parameters."""

from collections import OrderedDict

import pytest

import weft
from weft import nn


def test_sequential_as_a_list():
    a, b, c = nn.ReLU(), nn.Tanh(), nn.Sigmoid()
    s = nn.Sequential(a, b)
    assert len(s) == 2 and s[0] is a and s[-1] is b and list(s) == [a, b]
    assert list(s[1:]) == [b] and isinstance(s[1:], nn.Sequential)
    s.append(c)
    s.insert(1, nn.ELU())
    assert [type(m).__name__ for m in s] == ["ReLU", "ELU", "Tanh", "Sigmoid"]
    assert list(s._modules) == ["0", "1", "2", "3"]
    assert type(s.pop(1)) is nn.ELU and list(s._modules) == ["0", "1", "2"]
    s[0] = c
    del s[-1]
    assert list(s) == [c, b]
    assert list(s + nn.Sequential(a)) == [c, b, a]
    assert list(s * 2) == [c, b, c, b] and list(2 * s) == [c, b, c, b]
    s += nn.Sequential(a)
    s *= 2
    assert list(s) == [c, b, a, c, b, a]
    with pytest.raises(IndexError, match="index 9 is out of range"):
        s[9]
    with pytest.raises(ValueError, match="only objects of Sequential"):
        s + [a]
    with pytest.raises(ValueError, match="Non-positive"):
        s * 0


def test_sequential_with_names_runs_in_order():
    s = nn.Sequential(OrderedDict(one=nn.Flatten(0), two=nn.Softmax(0)))
    assert s.one is s[0] and list(s._modules) == ["one", "two"]
    assert s(weft.zeros(2, 2)).tolist() == [0.25] * 4
    assert isinstance(s[:1], nn.Sequential) and list(s[:1]._modules) == ["one"]


def test_module_list():
    a, b, c = nn.Linear(1, 1), nn.ReLU(), nn.Tanh()
    m = nn.ModuleList([a, b])
    m.append(c).extend([b])
    m.insert(1, c)
    m += [a]
    assert list(m) == [a, c, b, c, b, a] and list(m._modules) == list("012345")
    assert len(list(m.parameters())) == 2 and isinstance(m[1:3], nn.ModuleList)
    del m[1:3]
    assert m.pop(-1) is a and list(m) == [a, c, b]
    assert list(m + [b]) == [a, c, b, b]
    with pytest.raises(TypeError, match=r"ModuleList\.extend should be called with an iterable"):
        m.extend(3)
    with pytest.raises(NotImplementedError):
        m(1)


def test_module_dict():
    m = nn.ModuleDict({"a": nn.ReLU(), "b": nn.Linear(1, 1)})
    m["c"] = nn.Tanh()
    m.update([("d", nn.ELU())])
    assert list(m) == list("abcd") and "c" in m and len(m) == 4
    assert type(m.pop("d")) is nn.ELU and list(m.keys()) == ["a", "b", "c"]
    del m["c"]
    assert [k for k, _ in m.items()] == ["a", "b"] and len(list(m.values())) == 2
    with pytest.raises(KeyError, match="already exists"):
        m["pop"] = nn.ReLU()
    with pytest.raises(ValueError, match="has length 3; 2 is required"):
        m.update([(1, 2, 3)])
    m.clear()
    assert len(m) == 0


def test_parameter_list():
    p = nn.ParameterList([weft.ones(2), nn.Parameter(weft.zeros(3)), 7])
    assert isinstance(p[0], nn.Parameter) and p[2] == 7 and len(p) == 3
    assert [n for n, _ in p.named_parameters()] == ["0", "1"]
    p[0] = weft.zeros(1)
    p.append(weft.ones(1))
    assert p[0].shape == (1,) and len(p) == 4 and len(p[1:3]) == 2
    assert repr(p) == (
        "ParameterList(\n"
        "    (0): Parameter containing: [torch.float32 of size 1]\n"
        "    (1): Parameter containing: [torch.float32 of size 3]\n"
        "    (2): Object of type: int\n"
        "    (3): Parameter containing: [torch.float32 of size 1]\n)"
    )
    with pytest.raises(RuntimeError, match="should not be called"):
        p(1)


def test_parameter_dict():
    p = nn.ParameterDict({"b": weft.ones(2), "a": nn.Parameter(weft.zeros(2, 3))})
    assert list(p) == ["a", "b"]  # a plain dict comes in the order of its keys
    p["c"] = 3
    assert "c" in p and p.get("d", 5) == 5 and p.setdefault("e", weft.ones(1)) is p["e"]
    assert p.popitem()[0] == "e" and p.pop("c") == 3
    assert [n for n, _ in p.named_parameters()] == ["a", "b"] or len(list(p.parameters())) == 2
    merged = p | nn.ParameterDict({"z": weft.ones(1)})
    assert list(merged) == ["a", "b", "z"] and merged["a"] is p["a"]
    assert "torch.FloatTensor of size 2x3" in repr(p)
    p.clear()
    assert len(p) == 0

"""Arguments against the schemas that torch publishes of its C++ functions and methods: names,
positional order, defaults, keyword-only ones.  Run by `make conformance`; skipped without torch.
"""

import inspect

import pytest

import weft

torch = pytest.importorskip("torch")

# keywords that choose among torch's own devices and layouts: tested where they mean something
ELSEWHERE = {"dtype", "layout", "device", "pin_memory", "memory_format", "requires_grad",
             "non_blocking", "cudnn_enabled", "cudnn_enable"}  # fmt: skip
# name -> why no overload of torch's fits
DIFFERENT = {
    "Generator": "a class, not the schema's function",
    "cdist": "torch.functional's own signature: compute_mode is a word",
    "norm": "torch.functional's own signature: p is 'fro'",
    "tensordot": "torch.functional's own signature: (a, b, dims, out)",
    "split": "torch.functional's own signature: split_size_or_sections",
    "unsafe_split": "as split: sections too",
    "cholesky_solve": "the documented (B, L); the schema's are (self, input2)",
    "orgqr": "the documented (input, tau)",
    "ormqr": "the documented (input, tau, other)",
    "constant_pad_nd": "`pad` is a function in its room",
    "dsplit": "two overloads in one: indices_or_sections, as documented",
    "hsplit": "two overloads in one: indices_or_sections, as documented",
    "vsplit": "two overloads in one: indices_or_sections, as documented",
    "tensor_split": "two overloads in one: indices_or_sections, as documented",
    "polygamma": "the documented (n, input)",
    "searchsorted": "the documented (sorted_sequence, input)",
    "promote_types": "the documented (type1, type2), positional",
    "randint": "two overloads in one: (high, size) and (low, high, size)",
    "randint_like": "two overloads in one: (input, high) and (input, low, high)",
    "scatter": "src and value in one function: value may be passed by keyword",
    "resize_as_": "the documented (input, tensor)",
    "resize_as": "the documented (input, tensor)",
    "record_stream": "the documented (stream)",
    "rrelu": "torch.rrelu's generator is no argument of F.rrelu",
    "smm": "the documented (input, mat)",
    "uniform_": "`from` is no name in Python: taken as a keyword",
    "swapaxes_": "transpose_ under another name",
    "__contains__": "Python's own protocol",
}


def same(ours, theirs):
    """Whether two defaults mean the same; one number stands for all dims."""
    if isinstance(theirs, list):
        theirs = theirs[0] if theirs and len(set(theirs)) == 1 else tuple(theirs) or None
    return ours == theirs or (ours in (None, ()) and theirs in (None, ()))


def complaints(schema, parameters):
    """What of one overload the parameters of Weft's function do not have."""
    by_name = {p.name: p for p in parameters}
    rest = any(p.kind is p.VAR_KEYWORD for p in parameters)
    ordered = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    out = []
    for i, a in enumerate(schema.arguments):
        if i == 0 or a.name in ELSEWHERE or a.is_out:
            continue
        mine = by_name.get(a.name)
        if mine is None:
            if not (rest and a.kwarg_only):
                out.append(f"lacks {a.name}")
        elif not a.kwarg_only and (i >= len(ordered) or ordered[i].name != a.name):
            out.append(f"{a.name} is at another place")
        elif a.has_default_value() and not same(mine.default, a.default_value):
            out.append(f"{a.name} defaults to {mine.default!r}, torch's to {a.default_value!r}")
    return out


def differences():
    schemas = {}
    for s in torch._C._jit_get_all_schemas():
        if s.name.startswith("aten::") and not any(a.is_out for a in s.arguments):
            schemas.setdefault(s.name[6:], []).append(s)
    seen, found = 0, []
    for place, theirs, ours in (("", torch, weft), ("Tensor.", torch.Tensor, weft.Tensor)):
        for name, overloads in sorted(schemas.items()):
            function = getattr(ours, name, None)
            if not hasattr(theirs, name) or not callable(function) or name in DIFFERENT:
                continue
            try:
                parameters = list(inspect.signature(function).parameters.values())
            except (TypeError, ValueError):
                continue
            if any(p.kind is p.VAR_POSITIONAL for p in parameters):
                continue  # (*sizes) and the like: tested by value
            seen += 1
            best = min((complaints(s, parameters) for s in overloads), key=len)
            found += [f"{place}{name}: {c}" for c in best]
    return seen, found


def test_arguments_agree_with_some_overload():
    seen, found = differences()
    assert seen > 700
    assert not found, "\n".join(["", *found])


# torch's page says `out`, torch's function refuses it (histogramdd: it is there for sizes)
ON_PAPER = {"empty_permuted", "empty_strided", "hamming_window", "histogramdd", "rand_like",
            "randn_like", "std_mean", "var_mean"}  # fmt: skip


def test_out_is_taken_where_torch_documents_it():
    missing = []
    for name in dir(weft):
        theirs, ours = getattr(torch, name, None), getattr(weft, name)
        head = (getattr(theirs, "__doc__", None) or "")[:400]
        if not inspect.isfunction(ours) or "out=None" not in head.split(") ->")[0]:
            continue
        parameters = inspect.signature(ours).parameters
        if "out" not in parameters and "kw" not in parameters:
            missing.append(name)
    assert set(missing) == ON_PAPER

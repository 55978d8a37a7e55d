"""Which torch names a script uses that Weft lacks, found by reading it, not by running it."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import weft
from weft.compat import alias

# torch.Tensor's methods that Weft's lacks, which a reader of source may take for those of others
_LACKED = {"index", "int_repr", "names", "q_scale", "q_zero_point"}


@dataclass
class Found:
    """What a script and its local imports use of torch: name -> how often."""

    files: list[Path] = field(default_factory=list)
    used: Counter[str] = field(default_factory=Counter)
    missing: dict[str, str] = field(default_factory=dict)  # name -> what is said about it
    where: dict[str, str] = field(default_factory=dict)  # name -> file:line of its first use


def exists(name: str) -> bool:
    """Whether a dotted torch name resolves; `Tensor.`, `Module.` and `Optimizer.` are classes."""
    owner, _, rest = name.partition(".")
    roots = {"Tensor": weft.Tensor, "Module": weft.nn.Module, "Optimizer": weft.optim.Optimizer}
    if owner in roots:
        return hasattr(roots[owner], rest)
    thing: Any = importlib.import_module("torch")
    dotted = "torch"
    for part in rest.split(".") if rest else ():
        dotted += "." + part
        try:
            face = alias.is_face(dotted)
            thing = importlib.import_module(dotted) if face else getattr(thing, part)
        except (AttributeError, ImportError):
            return False
    return True


def examine(script: Path) -> Found:
    """Read `script` and every module that it imports, beside it or in packages that use torch."""
    found = Found()
    todo, folder, seen = [script], script.resolve().parent, set()
    while todo:
        path = todo.pop()
        if path.resolve() in seen:
            continue
        seen.add(path.resolve())
        source = path.read_bytes()
        try:
            tree = ast.parse(source, str(path))
        except (SyntaxError, ValueError):  # a package's file for another Python, or a template
            if path == script:
                raise
            continue
        if path == script or folder in path.resolve().parents or b"torch" in source:
            found.files.append(path)
            for name, line in _names(tree):
                found.used[name] += 1
                found.where.setdefault(name, f"{path}:{line}")
        todo += _local(tree, path, folder)
    for name in found.used:
        if not exists(name):
            face, _, last = name.rpartition(".")
            known = alias.is_face(face)
            found.missing[name] = alias.missing_text(face, last) if known else f"Weft has no {name}"
    return found


def _names(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """(dotted torch name, line) of each use: attribute chains, imported names, tensor methods."""
    bound: dict[str, str] = {}  # a name of the file -> the torch name it stands for
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for a in node.names:
                if _is_torch(a.name):
                    bound[a.asname or "torch"] = a.name if a.asname else "torch"
                    yield a.name, node.lineno
        elif isinstance(node, ast.ImportFrom) and not node.level and _is_torch(node.module):
            for a in node.names:
                if a.name != "*":
                    bound[a.asname or a.name] = f"{node.module}.{a.name}"
                    yield f"{node.module}.{a.name}", node.lineno
    inside: set[int] = set()  # the inner links of a chain that was taken whole
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or id(node) in inside:
            continue
        chain, root = [node.attr], node.value
        while isinstance(root, ast.Attribute):
            inside.add(id(root))
            chain.append(root.attr)
            root = root.value
        if isinstance(root, ast.Name) and root.id in bound:
            yield ".".join([bound[root.id], *reversed(chain)]), node.lineno
        elif node.attr in _LACKED or hasattr(weft.Tensor, node.attr):
            yield f"Tensor.{node.attr}", node.lineno


def _is_torch(module: str | None) -> bool:
    return (module or "").partition(".")[0] == "torch"


def _local(tree: ast.Module, path: Path, folder: Path) -> Iterator[Path]:
    """The files that a file imports: of this folder, or of a package that uses torch."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            asked = [(_home(a.name, folder), a.name) for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            stem = node.module or ""
            base = path.resolve().parents[node.level - 1] if node.level else _home(stem, folder)
            asked = [(base, stem)] + [(base, f"{stem}.{a.name}".strip(".")) for a in node.names]
            if node.level and not stem:
                asked.append((base.parent, base.name))
        else:
            continue
        for base, name in asked:
            parts = name.split(".") if name else []
            for n in range(1, len(parts) + 1):  # the packages on the way are imported too
                place = base.joinpath(*parts[:n])
                for file in (place.with_suffix(".py"), place / "__init__.py"):
                    if file.is_file():
                        yield file


@functools.cache
def _home(name: str, folder: Path) -> Path:
    """The folder that a module is found in: the script's, or that of a package that uses torch."""
    top = name.partition(".")[0]
    if not top or (folder / top).exists() or (folder / f"{top}.py").exists():
        return folder
    if top in sys.stdlib_module_names or top in ("torch", "weft", "numpy"):
        return folder
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    for place in (spec.submodule_search_locations or []) if spec else []:
        if _uses_torch(Path(place)):
            return Path(place).parent
    return folder


def _uses_torch(package: Path) -> bool:
    """Whether a file of a package imports torch."""
    return any(b"import torch" in f.read_bytes() or b"from torch" in f.read_bytes()
               for f in package.rglob("*.py"))  # fmt: skip


def text(found: Found) -> str:
    """The report as printed."""
    count = f"{len(found.files)} files use {len(found.used)} torch names"
    lines = [f"{count}; Weft lacks {len(found.missing)}"]
    for name, said in sorted(found.missing.items()):
        lines.append(f"  {name}  ({found.used[name]}x, first at {found.where[name]})")
        if "nearest" in said:
            lines.append(f"    {said}")
    return "\n".join(lines)

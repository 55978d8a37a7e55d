"""The alias: a tree of modules `torch`, `torch.nn`, ... whose names are Weft's own objects.

A face is a module without contents of its own: a name asked of it is looked up in the Weft modules
that compat/table.py lists for it, in order, and kept.  A name that none has raises an
AttributeError that says so and names the nearest one there is.
"""

from __future__ import annotations

import builtins
import difflib
import dis
import importlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from types import ModuleType
from typing import Any

from weft.compat.table import BELOW, TABLE
from weft.compat.torch_.version import __version__
from weft.core import overrides

_MISSING = object()
# Faces whose __dict__ programs read: `torch.optim.__dict__[name]`, or all classes of a module.
LISTED = {"torch.distributions", "torch.nn", "torch.nn.functional", "torch.nn.init", "torch.optim"}
_IMPORT_FROM = dis.opmap["IMPORT_FROM"]


class Missing(AttributeError):
    """A torch name that Weft lacks."""


class Face(ModuleType):
    """One module of the alias."""

    def __getattr__(self, name: str) -> Any:
        dotted = f"{self.__name__}.{name}"
        if name == "__all__":
            self.__dict__[name] = public = exported(self.__name__)
            return public
        if name.startswith("__") and name.endswith("__") and not is_face(dotted):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        found = look_up(self.__name__, name)
        if found is _MISSING and is_face(dotted):
            return importlib.import_module(dotted)
        if found is _MISSING:
            text = missing_text(self.__name__, name)
            caller = sys._getframe(1)  # `from torch import name` shows an ImportError's words only
            if caller.f_code.co_code[caller.f_lasti] == _IMPORT_FROM:
                raise ImportError(text, name=self.__name__)
            raise Missing(text)
        self.__dict__[name] = found
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        """As a module's; but a function keeps its name from a module spelled alike (gradcheck)."""
        if isinstance(value, Face) and look_up(self.__name__, name) is not _MISSING:
            return
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted(set(self.__dict__) | set(names_of(self.__name__)))

    def __repr__(self) -> str:
        return f"<module {self.__name__!r}: Weft's names under torch's>"


def sources(face: str) -> tuple[str, ...]:
    """The Weft modules behind a face."""
    if face in TABLE:
        return TABLE[face]
    return BELOW[face.rpartition(".")[0]][1]


def is_face(name: str) -> bool:
    """Whether the alias has a module of this dotted name."""
    parent, _, last = name.rpartition(".")
    return name in TABLE or (parent in BELOW and last in BELOW[parent][0].split())


@cache
def source(path: str) -> Any:
    """A Weft module, or a name in one: `weft.linalg`, or a class of compat/torch_."""
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as e:
        if e.name != path or "." not in path:
            raise
        parent, _, name = path.rpartition(".")
        return getattr(source(parent), name)


def look_up(face: str, name: str) -> Any:
    """The object behind `face.name`, or a mark that there is none."""
    for path in sources(face):
        found = getattr(source(path), name, _MISSING)
        if found is _MISSING or (isinstance(found, ModuleType) and _inner(found)):
            continue
        return found
    return _MISSING


def _inner(module: ModuleType) -> bool:
    """Weft's own files, which torch's tree does not have under these names."""
    return module.__name__.partition(".")[0] == "weft" and not isinstance(module, Face)


def names_of(face: str) -> Iterator[str]:
    """The public names that a face can answer to."""
    for path in sources(face):
        behind = source(path)
        for name in dir(behind):
            found = _MISSING if name.startswith("_") else look_up(face, name)
            if found is not _MISSING and not isinstance(found, ModuleType):
                yield name
    depth = face.count(".") + 1
    for other in TABLE:
        if other.startswith(face + ".") and other.count(".") == depth:
            yield other.rpartition(".")[2]


def exported(face: str) -> list[str]:
    """What `from face import *` takes: the `__all__` behind it, else its public names."""
    listed = [getattr(source(path), "__all__", None) for path in sources(face)]
    if listed and all(names is not None for names in listed):
        return sorted({name for names in listed for name in names or ()})
    return sorted(set(names_of(face)))


def nearest(face: str, name: str) -> str | None:
    """The name of the face that is spelled most alike; else the same name in another face."""
    close = difflib.get_close_matches(name, sorted(set(names_of(face))), n=1, cutoff=0.7)
    if close:
        return f"{face}.{close[0]}"
    for other in TABLE:
        if other not in (face, "torch.ops", "torch._C") and look_up(other, name) is not _MISSING:
            return f"{other}.{name}"
    return None


def missing_text(face: str, name: str) -> str:
    """What is said about a torch name that Weft lacks."""
    close = nearest(face, name)
    hint = f"; the nearest name it has is {close}" if close else ""
    return f"Weft has no {face}.{name}{hint}"


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Makes the faces when they are imported, before any installed torch is looked for."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname != "torch" and not fullname.startswith("torch."):
            return None
        if not is_face(fullname):
            parent, _, name = fullname.rpartition(".")
            raise ModuleNotFoundError(missing_text(parent, name), name=fullname)
        return importlib.machinery.ModuleSpec(fullname, self, origin="weft", is_package=True)

    def create_module(self, spec: Any) -> ModuleType:
        return Face(spec.name, f"Weft under the name {spec.name}.")

    def exec_module(self, module: ModuleType) -> None:
        if module.__name__ == "torch":
            module.__dict__.update(__version__=__version__, torch=module)  # torch has itself too
        if module.__name__ in LISTED:
            for name in names_of(module.__name__):
                if (found := look_up(module.__name__, name)) is not _MISSING:  # else a module
                    module.__dict__[name] = found

    def find_distributions(self, context: Any = None) -> Sequence[Any]:
        """`importlib.metadata.version("torch")` answers, as packages ask for it."""
        return [_Distribution()] if getattr(context, "name", None) == "torch" else []


class _Distribution(importlib.metadata.Distribution):
    def read_text(self, filename: str) -> str | None:
        if filename != "METADATA":
            return None
        return f"Metadata-Version: 2.1\nName: torch\nVersion: {__version__}\n"

    def locate_file(self, path: Any) -> Any:
        raise FileNotFoundError(path)


_FINDER = _Finder()


def installed() -> bool:
    """Whether `import torch` gives Weft in this process."""
    return _FINDER in sys.meta_path


def install() -> None:
    """Make `import torch` give Weft.  RuntimeError when the real torch is already imported."""
    present = sys.modules.get("torch")
    if present is not None and not isinstance(present, Face):
        raise RuntimeError("torch is already imported: import weft.compat.torch before it")
    if not installed():
        sys.meta_path.insert(0, _FINDER)
        importlib.import_module("torch")
        builtins.__build_class__ = _watching(builtins.__build_class__)


def _watching(build_class: Any) -> Any:
    """Class statements, seen: one with `__torch_function__` need not be a Tensor's to be asked."""

    def build(body: Any, name: str, /, *bases: Any, **kw: Any) -> Any:
        made = build_class(body, name, *bases, **kw)
        if "__torch_function__" in getattr(made, "__dict__", ()):
            overrides.switch_on()
        return made

    return build

"""The import law: who may import whom in src/weft. Run as a script it prints what breaks the law.

    core < runtime < kernels < ops < tensor < autograd < compile        (the layers)
    nn optim data train io serve ship hub pipeline distributed compat utils cli  (rooms outside)

1. A layer imports itself and the layers below it, never a room outside and never `weft` itself.
2. A room outside uses public names: `import weft`, `from weft import nn`, `from weft.autograd
   import Function`. EXCEPTIONS lists the few that need a layer's inside, each with its reason.
3. No import cycles between files.
4. No imports inside functions, except optional dependencies, the slow ones in LATE, and a
   package's lazy `__getattr__`.
5. `import weft` reaches no optional dependency, and nothing is imported that pyproject.toml does
   not declare.

Imports under `if TYPE_CHECKING:` are annotations and free; `importlib.import_module("a.b")` counts
as an import.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LAYERS = ("core", "runtime", "kernels", "ops", "tensor", "autograd", "compile")
ROOMS = (
    "nn", "optim", "data", "train", "io", "serve", "ship", "hub", "pipeline", "distributed",
    "compat", "utils", "amp", "distributions", "cli",
)  # fmt: skip
# Public modules that are torch's names for what the layers make; they may import any layer.
FACES = {
    "": "the public names",
    "_layers": "loads the layers",
    "_version": "the version",
    "__main__": "python -m weft",
    "fft": "torch.fft",
    "linalg": "torch.linalg",
    "special": "torch.special",
    "byte_image": "images that quantized layers hand one another, which are Tensors",
    "nested": "torch.nested",
    "stored": "dtypes that are kept and cast only, and their tensors",
    "sparse": "torch.sparse, and the tensors of sparse layouts, which are Tensors",
    "profiler": "torch.profiler, over what compile/ and kernels/ measure",
    "methods": "gives Tensor the rooms' functions and autograd's as methods",
}
PUBLIC_LAYERS = {"autograd"}  # torch.autograd is a public name; its submodules are not

# (room, module that it may import from, with everything below it) -> why
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("io", "weft.core"): "a .weft file holds a Graph: its text form, types and dtypes",
    ("io", "weft.ops"): "reads back and exports the ops of a Graph by their classes",
    ("io", "weft.runtime"): "reads files into memory of Weft's own, whose changes are noticed",
    ("io", "weft.compile"): "records the Graph that it saves, and runs the one that it loaded",
    ("serve", "weft.compile"): "serves the Graph of a file, not the Python code of a model",
    ("nn", "weft.ops"): "nn.functional is where the rooms' functions get torch's names",
    ("optim", "weft.ops"): "tells a compiled step which updates are alike",
    ("data", "weft.runtime"): "gives each worker a default generator of its own",
    ("compat", "weft.core.overrides"): "torch.overrides is the protocol's public face",
    ("compat", "weft.core.printing"): "torch._tensor_str is how tensors print",
    ("cli", "weft.core"): "doctor prints the configuration",
    ("cli", "weft.runtime"): "doctor prints CPU features, threads and the kernel cache",
    ("cli", "weft.kernels"): "doctor prints the target",
    ("cli", "weft.ops"): "doctor compares every op with its oracle",
}

CORE = {"numpy", "llvmlite", "safetensors", "ml_dtypes", "click", "tqdm"}
OPTIONAL = {
    "onnx", "onnxruntime", "starlette", "uvicorn", "anyio", "tensorboard", "matplotlib", "mlxtend",
    "scipy", "PIL", "torch", "pytest",
}  # fmt: skip
# Importable inside a function although always installed: module -> why
LATE = {
    "llvmlite": "takes 35 ms; a process whose kernels are all cached never needs it",
    "tqdm": "takes 30 ms; only a progress bar needs it",
    "weft.compile.api": "the compiler takes as long to load as all the rest of `import weft`",
}


@dataclass(frozen=True)
class Import:
    """One name imported by one statement. `module` is absolute; `name` is None for `import a.b`."""

    file: str  # dotted name of the importing file
    line: int
    module: str
    name: str | None
    local: bool
    lazy: bool  # inside the module-level __getattr__ of a package


def imports_of(tree: ast.Module, dotted: str, is_package: bool) -> Iterator[Import]:
    """Every import statement of a file, relative ones resolved, TYPE_CHECKING ones left out."""

    def absolute(module: str) -> str:
        name = module.lstrip(".")
        level = len(module) - len(name)
        if not level:
            return name
        base = dotted.split(".")
        return ".".join([*base[: len(base) - level + is_package], *([name] if name else [])])

    def walk(node: ast.AST, local: bool, lazy: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                for other in child.orelse:
                    yield from walk(ast.Module([other], []), local, lazy)
            elif isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(dotted, child.lineno, alias.name, None, local, lazy)
            elif isinstance(child, ast.ImportFrom):
                module = absolute("." * child.level + (child.module or ""))
                for alias in child.names:
                    yield Import(dotted, child.lineno, module, alias.name, local, lazy)
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                getattr_ = is_package and getattr(child, "name", "") == "__getattr__" and not local
                yield from walk(child, True, lazy or getattr_)
            else:
                if (module := _imported_by_call(child)) is not None:
                    yield Import(dotted, child.lineno, absolute(module), None, local, lazy)
                yield from walk(child, local, lazy)

    yield from walk(tree, False, False)


def _imported_by_call(node: ast.AST) -> str | None:
    """`a.b` for `import_module("a.b")` and `__import__("a.b")`, None for any other node."""
    match node:
        case ast.Call(
            func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
            args=[ast.Constant(value=str(module)), *_],
        ):
            return module
    return None


class House:
    """The files of a `weft` package: their imports, and how they break the law."""

    def __init__(self, src: Path) -> None:
        self.src = src
        self.paths: dict[str, Path] = {}
        self.imports: dict[str, list[Import]] = {}
        for path in sorted((src / "weft").rglob("*.py")):
            parts = path.relative_to(src).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            dotted = ".".join(parts[:-1] if is_package else parts)
            self.paths[dotted] = path
            tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
            self.imports[dotted] = list(imports_of(tree, dotted, is_package))
        self.optional = self._find_optional()

    def target(self, imp: Import) -> str | None:
        """The file of this house that an import loads last, or None for another package."""
        if imp.module.split(".")[0] != "weft":
            return None
        if imp.name and imp.module + "." + imp.name in self.paths:
            # `from weft import tensor`: outside the layers this is the function of that name.
            public_function = imp.module == "weft" and imp.name in ("tensor", "compile")
            if not (public_function and room(imp.file) not in LAYERS):
                return imp.module + "." + imp.name
        return imp.module

    def _find_optional(self) -> set[str]:
        """Files that cannot be imported without an optional dependency, directly or not."""
        found = {
            file
            for file, imps in self.imports.items()
            if any(not i.local and i.module.split(".")[0] in OPTIONAL for i in imps)
        }
        while True:
            more = {
                file
                for file, imps in self.imports.items()
                if file not in found and any(not i.local and self.target(i) in found for i in imps)
            }
            if not more:
                return found
            found |= more

    def violations(self) -> list[str]:
        """`path:line: what is wrong`, in the order of the files."""
        bad: list[tuple[str, int, str]] = []
        for file, imps in self.imports.items():
            where = room(file)
            if where not in LAYERS and where not in ROOMS and where not in FACES:
                text = f"weft.{where} is neither a layer nor a room: name it in tools/import_law.py"
                bad.append((file, 1, text))
            for imp in imps:
                bad += [(file, imp.line, text) for text in self._judge(imp)]
        bad += self._cycles()
        bad += self._eager_optional()
        return [f"{self.paths[file]}:{line}: {text}" for file, line, text in bad]

    def _judge(self, imp: Import) -> Iterator[str]:
        top = imp.module.split(".")[0]
        target = self.target(imp)
        if target is None:
            if top not in sys.stdlib_module_names | CORE | OPTIONAL:
                yield f"{top} is not a declared dependency"
            elif imp.local and top not in OPTIONAL and top not in LATE:
                yield f"import of {imp.module} inside a function"
            return
        if imp.local and not imp.lazy and target not in self.optional and target not in LATE:
            yield f"import of {target} inside a function, though it needs no optional dependency"
        here, there = room(imp.file), room(target)
        if here in LAYERS:
            if there in LAYERS:
                if LAYERS.index(there) > LAYERS.index(here):
                    yield f"{here} imports {target}, but {here} lies below {there}"
            elif there != "_version":
                yield f"the layer {here} imports {target}, which lies outside the layers"
        elif here in ROOMS and here != there:
            if there in LAYERS and not (there in PUBLIC_LAYERS and target == f"weft.{there}"):
                if not _excepted(here, target):
                    yield f"{here} imports {target}, which is not public: use weft's public names"
                return
            private = [p for p in [*target.split("."), imp.name or ""] if p.startswith("_")]
            if [p for p in private if not p.startswith("__")] and there != "_version":
                yield f"{here} imports the private name {private[0]} of {target}"

    def _edges(self, file: str) -> set[str]:
        """What loading `file` loads before its own end, without the public face `weft`."""
        return {
            t
            for i in self.imports[file]
            if not i.local and (t := self.target(i)) and t in self.paths and t not in ("weft", file)
        }

    def _cycles(self) -> list[tuple[str, int, str]]:
        """One entry a cycle, at the import that closes it (depth-first search)."""
        bad: list[tuple[str, int, str]] = []
        done: set[str] = set()
        trail: list[str] = []

        def visit(file: str) -> None:
            trail.append(file)
            for nxt in sorted(self._edges(file)):
                if nxt in trail:
                    cycle = [*trail[trail.index(nxt) :], nxt]
                    line = next(i.line for i in self.imports[file] if self.target(i) == nxt)
                    bad.append((file, line, "import cycle: " + " -> ".join(cycle)))
                elif nxt not in done:
                    visit(nxt)
            done.add(trail.pop())

        for file in self.paths:
            if file not in done and file != "weft":
                visit(file)
        return bad

    def _eager_optional(self) -> list[tuple[str, int, str]]:
        """Optional dependencies that `import weft` would load."""
        reached: set[str] = set()
        todo = ["weft"] if "weft" in self.paths else []
        while todo:
            file = todo.pop()
            if file not in reached:
                reached.add(file)
                parents = [".".join(file.split(".")[:n]) for n in range(1, file.count(".") + 1)]
                todo += [p for p in parents if p in self.paths]
                todo += self._edges(file)
        return [
            (file, imp.line, f"`import weft` would import the optional {imp.module}")
            for file in sorted(reached)
            for imp in self.imports[file]
            if not imp.local and imp.module.split(".")[0] in OPTIONAL
        ]


def room(dotted: str) -> str:
    """`weft.ops.conv` -> `ops`, `weft` -> ``."""
    return (dotted.split(".") + [""])[1]


def _excepted(here: str, target: str) -> bool:
    return any(
        here == who and (target == what or target.startswith(what + "."))
        for who, what in EXCEPTIONS
    )


def main() -> int:
    root = Path(__file__).resolve().parent.parent
    house = House(root / "src")
    bad = house.violations()
    for line in bad:
        print(line.replace(str(root) + "/", ""))
    print(f"import law: {len(house.paths)} files, {len(bad)} violations")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())

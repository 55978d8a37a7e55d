"""Tree: finding the modules, parameters and buffers below a module, by dotted names; state_dict and
load_state_dict, their tensors under these names.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import weft
from weft import Parameter, Tensor


class Tree:
    """The part of Module that walks the tree."""

    _modules: dict
    _parameters: dict
    _buffers: dict
    _get_name: Callable[[], str]

    def get_submodule(self, target: str) -> Any:
        """The module at a dotted path; AttributeError names the step that is missing."""
        found: Any = self
        for step in target.split(".") if target else ():
            if not hasattr(found, step):
                raise AttributeError(f"{found._get_name()} has no attribute `{step}`")
            found = getattr(found, step)
            if not isinstance(found, Tree):
                raise AttributeError(f"`{step}` is not an nn.Module")
        return found

    def set_submodule(self, target: str, module: Tree, strict: bool = False) -> None:
        """Put `module` at a dotted path; with `strict` something must be there already."""
        if target == "":
            raise ValueError("Cannot set the submodule without a target name!")
        if not isinstance(module, Tree):
            raise ValueError(f"`module` is not an nn.Module, found {type(module)}")
        path, _, name = target.rpartition(".")
        parent = self.get_submodule(path)
        if strict and not hasattr(parent, name):
            raise AttributeError(f"{parent._get_name()} has no attribute `{name}`")
        if hasattr(parent, name) and not isinstance(getattr(parent, name), Tree):
            raise AttributeError(f"`{name}` is not an nn.Module")
        setattr(parent, name, module)

    def get_parameter(self, target: str) -> Parameter:
        """The parameter at a dotted path."""
        found, name = self._get_member(target)
        if not isinstance(found, Parameter):
            raise AttributeError(f"`{name}` is not an nn.Parameter")
        return found

    def get_buffer(self, target: str) -> Tensor:
        """The buffer at a dotted path."""
        found, name = self._get_member(target)
        if name not in self.get_submodule(target.rpartition(".")[0])._buffers:
            raise AttributeError(f"`{name}` is not a buffer")
        return found

    def _get_member(self, target: str) -> tuple[Any, str]:
        path, _, name = target.rpartition(".")
        owner = self.get_submodule(path)
        if not hasattr(owner, name):
            raise AttributeError(f"{owner._get_name()} has no attribute `{name}`")
        return getattr(owner, name), name

    def named_modules(
        self, memo: set[Tree] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Any]]:
        """This module and all below it, with dotted names."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, child in self._modules.items():
            if child is not None:
                inner = f"{prefix}.{name}" if prefix else name
                yield from child.named_modules(memo, inner, remove_duplicate)

    def modules(self, remove_duplicate: bool = True) -> Iterator[Any]:
        """This module and all below it."""
        for _, m in self.named_modules(remove_duplicate=remove_duplicate):
            yield m

    def named_children(self) -> Iterator[tuple[str, Any]]:
        """The direct children, each once, with names."""
        seen = set()
        for name, child in self._modules.items():
            if child is not None and child not in seen:
                seen.add(child)
                yield name, child

    def children(self) -> Iterator[Any]:
        """The direct children, each once."""
        for _, child in self.named_children():
            yield child

    def _named_members(
        self, members: Callable, prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        tree: Any = [(prefix, self)]
        if recurse:
            tree = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate)
        for path, m in tree:
            for name, value in members(m):
                if value is None or id(value) in seen:
                    continue
                if remove_duplicate:
                    seen.add(id(value))
                yield f"{path}.{name}" if path else name, value

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Parameters of this module and, with `recurse`, of all below it, with dotted names."""
        return self._named_members(
            lambda m: m._parameters.items(), prefix, recurse, remove_duplicate
        )

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Parameters of this module and, with `recurse`, of all below it."""
        for _, p in self.named_parameters(recurse=recurse):
            yield p

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Buffers of this module and, with `recurse`, of all below it, with dotted names."""
        return self._named_members(lambda m: m._buffers.items(), prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Buffers of this module and, with `recurse`, of all below it."""
        for _, b in self.named_buffers(recurse=recurse):
            yield b


EXTRA = "_extra_state"


class IncompatibleKeys(NamedTuple):
    """What load_state_dict did not find, and what it did not expect."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return (
            f"_IncompatibleKeys(missing_keys={self.missing_keys}, "
            f"unexpected_keys={self.unexpected_keys})"
        )

    __str__ = __repr__


def save(module: Any, destination: Any, prefix: str, keep_vars: bool) -> None:
    """Put a module's own parameters, persistent buffers and extra state into `destination`."""
    for name, p in module._parameters.items():
        if p is not None:
            destination[prefix + name] = p if keep_vars else p.detach()
    for name, b in module._buffers.items():
        if b is not None and name not in module._non_persistent_buffers_set:
            destination[prefix + name] = b if keep_vars else b.detach()
    if type(module).get_extra_state is not no_extra_state:
        destination[prefix + EXTRA] = module.get_extra_state()


def no_extra_state(self: Any) -> Any:
    """What else belongs into the state_dict; write it together with `set_extra_state`."""
    raise RuntimeError("get_extra_state is called only where a subclass writes it")


def set_no_extra_state(self: Any, state: Any) -> None:
    """Take back what `get_extra_state` gave."""
    raise RuntimeError("set_extra_state is called only where a subclass writes it")


def load_own(
    module: Any,
    state_dict: Mapping[str, Any],
    prefix: str,
    assign: bool,
    strict: bool,
    missing: list[str],
    unexpected: list[str],
    errors: list[str],
) -> None:
    """Copy (or assign) a module's own entries of `state_dict`; the lists get what is wrong."""
    own = {k: v for k, v in module._parameters.items() if v is not None}
    for k, v in module._buffers.items():
        if v is not None and k not in module._non_persistent_buffers_set:
            own[k] = v
    for name, tensor in own.items():
        key = prefix + name
        if key in state_dict:
            _load_one(module, name, tensor, key, state_dict[key], assign, errors)
        elif strict:
            missing.append(key)
    extra = prefix + EXTRA
    if type(module).set_extra_state is not set_no_extra_state:
        if extra in state_dict:
            module.set_extra_state(state_dict[extra])
        elif strict:
            missing.append(extra)
    elif strict and extra in state_dict:
        unexpected.append(extra)
    if strict:
        for key in state_dict:
            if key.startswith(prefix) and key != extra:
                first, dot, _ = key[len(prefix) :].partition(".")
                if first not in (module._modules if dot else own):
                    unexpected.append(key)


def _load_one(
    module: Any, name: str, tensor: Any, key: str, given: Any, assign: bool, errors: list[str]
) -> None:
    if not isinstance(given, Tensor):
        errors.append(
            f'While copying the parameter named "{key}", expected torch.Tensor or Tensor-like '
            f"object from checkpoint but received {type(given)}"
        )
        return
    if len(tensor.shape) == 0 and len(given.shape) == 1 and given.shape[0] == 1:
        given = given.reshape(())  # scalars were once saved as one element
    if given.shape != tensor.shape:
        errors.append(
            f"size mismatch for {key}: copying a param with shape {given.shape} from checkpoint, "
            f"the shape in current model is {tensor.shape}."
        )
        return
    try:
        with weft.no_grad():
            if not assign:
                tensor.copy_(given)
                return
            if isinstance(tensor, Parameter):
                if isinstance(given, Parameter):
                    given.requires_grad_(tensor.requires_grad)
                else:
                    given = Parameter(given, requires_grad=tensor.requires_grad)
            setattr(module, name, given)
    except Exception as e:
        errors.append(
            f'While copying the parameter named "{key}", whose dimensions in the model are '
            f"{tensor.size()} and whose dimensions in the checkpoint are {given.size()}, an "
            f"exception occurred : {e.args}."
        )


def load(
    module: Any, state_dict: Mapping[str, Any], *, strict: bool, assign: bool
) -> IncompatibleKeys:
    """Load a whole tree of modules.  RuntimeError lists everything that does not fit."""
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"Expected state_dict to be dict-like, got {type(state_dict)}.")
    missing: list[str] = []
    unexpected: list[str] = []
    errors: list[str] = []
    metadata = getattr(state_dict, "_metadata", None)
    state_dict = OrderedDict(state_dict)
    if metadata is not None:
        state_dict._metadata = metadata  # type: ignore[attr-defined]

    def visit(m: Any, own: Mapping[str, Any], prefix: str) -> None:
        local = {} if metadata is None else metadata.get(prefix[:-1], {})
        if assign:
            local["assign_to_params_buffers"] = True
        m._load_from_state_dict(own, prefix, local, True, missing, unexpected, errors)
        for name, child in m._modules.items():
            if child is not None:
                inner = f"{prefix}{name}."
                visit(child, {k: v for k, v in own.items() if k.startswith(inner)}, inner)
        keys = IncompatibleKeys(missing, unexpected)
        for hook in m._load_state_dict_post_hooks.values():
            if hook(m, keys) is not None:
                raise AssertionError(
                    "Hooks registered with ``register_load_state_dict_post_hook`` are not expected "
                    "to return new values, if incompatible_keys need to be modified, it should be "
                    "done inplace."
                )

    visit(module, state_dict, "")
    if strict:
        if unexpected:
            errors.insert(0, f"Unexpected key(s) in state_dict: {_quoted(unexpected)}. ")
        if missing:
            errors.insert(0, f"Missing key(s) in state_dict: {_quoted(missing)}. ")
    if errors:
        raise RuntimeError(
            "Error(s) in loading state_dict for {}:\n\t{}".format(
                type(module).__name__, "\n\t".join(errors)
            )
        )
    return IncompatibleKeys(missing, unexpected)


def _quoted(keys: list[str]) -> str:
    return ", ".join(f'"{k}"' for k in keys)

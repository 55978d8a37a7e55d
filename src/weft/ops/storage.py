"""Storages: the memory behind tensors as an object, in bytes or in elements.

What is written through a storage shows in every tensor that lies in it, and the other way round.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np

from weft.core import dtype as dt
from weft.core.device import cpu, require_cpu
from weft.core.handle import Handle, owner_of, state, storage_of
from weft.core.types import numel
from weft.ops.dispatch import settle, wrap
from weft.ops.view import shape_args
from weft.runtime import memory, native

__all__ = ["is_storage"]


def _whole(a: np.ndarray) -> np.ndarray:
    """All bytes of the memory that an array lies in."""
    while isinstance(a.base, np.ndarray) and not (a.flags.c_contiguous or a.flags.f_contiguous):
        a = a.base
    flat = a.T if a.flags.f_contiguous and not a.flags.c_contiguous else a
    return np.ascontiguousarray(flat).reshape(-1).view(np.uint8)


class UntypedStorage:
    """Bytes: of a tensor (`t.untyped_storage()`), or new ones: a number of them, or their values.

    Two storages of one memory are equal.
    """

    def __init__(self, *args: Any, device: Any = None) -> None:
        require_cpu(device, "UntypedStorage")
        if len(args) > 1:
            raise TypeError(f"UntypedStorage: takes a size or a sequence, got {len(args)}")
        given = args[0] if args else 0
        if isinstance(given, int):
            given = np.zeros(given, np.uint8)
        self._bytes = np.array(given, np.uint8).reshape(-1)
        self._owner: Any = None  # the tensor whose memory it is; None for its own

    @classmethod
    def _of(cls, t: Any) -> UntypedStorage:
        made = cls.__new__(cls)
        made._owner = owner_of(t)
        made._bytes = memory.lend(_whole(made._owner._a))
        return made

    @classmethod
    def from_buffer(cls, buffer: Any, *args: Any, **options: Any) -> UntypedStorage:
        """A copy of a buffer's bytes."""
        return cls(np.frombuffer(buffer, np.uint8))

    @classmethod
    def from_file(cls, filename: Any, shared: bool = False, nbytes: int = 0) -> UntypedStorage:
        """The first `nbytes` of a file, mapped; with `shared` writes reach the file."""
        made = cls.__new__(cls)
        made._bytes = np.memmap(filename, np.uint8, "r+" if shared else "c", 0, (nbytes,))
        made._bytes = made._bytes.view(np.ndarray)
        made._owner = None
        return made

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self._values(), dtype, copy=copy)

    def _values(self) -> np.ndarray:
        return self._bytes

    def _touched(self) -> None:
        if self._owner is not None:  # `_of` has lent the memory: it has no mark to lose
            storage_of(self._owner).version += 1

    def data_ptr(self) -> int:
        """Where the memory begins."""
        return native.address(memory.give_away(self._bytes))

    def nbytes(self) -> int:
        """Its size in bytes."""
        return self._bytes.nbytes

    def element_size(self) -> int:
        """The bytes of one element."""
        return self._values().itemsize

    def size(self) -> int:
        """The number of elements."""
        return self._values().size

    __len__ = size

    @property
    def device(self) -> Any:
        return cpu

    @property
    def is_cuda(self) -> bool:
        return False

    @property
    def _cdata(self) -> int:
        return native.address(self._bytes)

    def is_shared(self) -> bool:
        """Whether processes that are forked from now on write to the same memory."""
        return isinstance(_root(self._bytes), mmap.mmap)

    def share_memory_(self) -> Any:
        """Memory that forked processes share."""
        if self._owner is not None:
            share(self._owner)
            self._bytes = _whole(self._owner._a)
        elif not self.is_shared():
            self._bytes = shared_copy(self._bytes)
        return self

    def untyped(self) -> UntypedStorage:
        """The same memory in bytes."""
        made = UntypedStorage.__new__(UntypedStorage)
        made._bytes, made._owner = self._bytes, self._owner
        return made

    def tolist(self) -> list:
        """The elements."""
        return self._values().tolist()

    def cpu(self) -> Any:
        """The storage itself."""
        return self

    def clone(self) -> Any:
        """A copy of the memory."""
        made = self.untyped()
        made._bytes, made._owner = self._bytes.copy(), None
        return made

    __copy__ = clone

    def __deepcopy__(self, memo: dict) -> Any:
        return memo.setdefault(id(self), self.clone())

    def copy_(self, source: Any, non_blocking: Any = None) -> Any:
        """Takes the other storage's elements; RuntimeError: of another size."""
        if source.size() != self.size():
            raise RuntimeError(f"copy_: {source.size()} elements into a storage of {self.size()}")
        self._values()[:] = source._values()
        self._touched()
        return self

    def fill_(self, value: Any) -> Any:
        """Every element becomes `value`."""
        self._values()[:] = value
        self._touched()
        return self

    def resize_(self, size: int) -> Any:
        """Another number of elements.  RuntimeError where tensors lie in the memory."""
        if size == self.size():
            return self
        if self._owner is not None:
            raise RuntimeError(
                "Trying to resize storage that is not resizable: tensors lie in its memory"
            )
        grown = np.zeros(size * self.element_size(), np.uint8)
        kept = min(grown.size, self._bytes.size)
        grown[:kept] = self._bytes[:kept]
        self._bytes = grown
        return self

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return UntypedStorage(self._values()[i])
        return self._values()[self._place(i)].item()

    def __setitem__(self, i: Any, value: Any) -> None:
        if not isinstance(i, slice):
            i = self._place(i)
        self._values()[i] = value
        self._touched()

    def _place(self, i: Any) -> int:
        if not isinstance(i, int):
            raise RuntimeError(f"can't index a {type(self)} with {type(i)}")
        if not -self.size() <= i < self.size():
            raise IndexError(f"index {i} out of range for storage of size {self.size()}")
        return i

    def __iter__(self) -> Iterator:
        return iter(self.tolist())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UntypedStorage) and self._cdata == other._cdata

    def __hash__(self) -> int:
        return self._cdata

    def __reduce__(self) -> tuple:
        return type(self), (self._bytes.copy(),)

    def __repr__(self) -> str:
        lines = "".join(f" {v}\n" for v in self.tolist())
        return f"{lines}[torch.storage.UntypedStorage(device=cpu) of size {self.size()}]"


class TypedStorage(UntypedStorage):
    """Memory read as elements of a dtype: a size, or values; or an untyped storage's own memory."""

    dtype: Any

    def __init__(
        self, *args: Any, wrap_storage: Any = None, dtype: Any = None, device: Any = None
    ) -> None:
        require_cpu(device, "TypedStorage")
        self.dtype = dtype or dt.get_default_dtype()
        self._owner = None
        if wrap_storage is not None:
            self._bytes, self._owner = wrap_storage._bytes, wrap_storage._owner
            return
        given = args[0] if args else 0
        if isinstance(given, str):
            raise TypeError("new(): invalid data type 'str'")
        values = np.zeros(given, self.dtype.np) if isinstance(given, int) else given
        self._bytes = np.array(values, self.dtype.np).reshape(-1).view(np.uint8)

    def _values(self) -> np.ndarray:
        return self._bytes.view(self.dtype.np)

    def type(self, dtype: Any = None) -> Any:
        """`torch.FloatStorage`, as torch spells it; or the elements as another dtype."""
        if dtype is not None:
            return self._as(STORAGE_DTYPES[str(dtype).rpartition(".")[2]])
        return f"torch.{STORAGE_NAMES[self.dtype]}"

    def _as(self, d: Any) -> TypedStorage:
        return self if d is self.dtype else TypedStorage(self._values(), dtype=d)

    def clone(self) -> TypedStorage:
        """A copy of the memory."""
        return TypedStorage(self._values(), dtype=self.dtype)

    __copy__ = clone

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return TypedStorage(self._values()[i], dtype=self.dtype)
        return super().__getitem__(i)

    def __reduce__(self) -> tuple:
        return _typed, (self._values().copy(), self.dtype)

    def __repr__(self) -> str:
        lines = "".join(f" {v}\n" for v in self.tolist())
        return (
            f"{lines}[torch.storage.TypedStorage(dtype=torch.{self.dtype.name}, device=cpu) of "
            f"size {self.size()}]"
        )


def _typed(values: np.ndarray, d: Any) -> TypedStorage:
    return TypedStorage(values, dtype=d)


class StorageType(type):
    """The type of torch.FloatStorage and its like."""

    dtype: Any

    def __call__(cls, *args: Any, device: Any = None) -> TypedStorage:
        return TypedStorage(*args, dtype=cls.dtype, device=device)

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, TypedStorage) and instance.dtype is cls.dtype

    def from_buffer(cls, buffer: Any, *args: Any, **options: Any) -> TypedStorage:
        """A copy of a buffer's memory, read as this dtype."""
        return TypedStorage(np.frombuffer(buffer, cls.dtype.np), dtype=cls.dtype)


STORAGE_NAMES = {d: f"{d.spelled}Storage" for d in dt.BY_NAME.values()}
STORAGE_DTYPES = {name: d for d, name in STORAGE_NAMES.items()}


def _type(d: dt.dtype) -> Any:
    return StorageType(STORAGE_NAMES[d], (), {"dtype": d, "__module__": "torch"})


(
    DoubleStorage, FloatStorage, HalfStorage, BFloat16Storage, LongStorage, IntStorage,
    ShortStorage, CharStorage, ByteStorage, BoolStorage, ComplexDoubleStorage,
    ComplexFloatStorage,
) = map(_type, STORAGE_NAMES)  # fmt: skip


def _conversion(name: str, d: Any) -> None:
    def convert(self: TypedStorage) -> TypedStorage:
        return self._as(d)

    convert.__name__ = convert.__qualname__ = name
    convert.__doc__ = f"The elements as {d.name}."
    setattr(TypedStorage, name, convert)


for _name, _d in {
    "double": dt.float64, "float": dt.float32, "half": dt.float16, "bfloat16": dt.bfloat16,
    "long": dt.int64, "int": dt.int32, "short": dt.int16, "char": dt.int8, "byte": dt.uint8,
    "bool": dt.bool,
}.items():  # fmt: skip
    _conversion(_name, _d)


# ------------------------------------------------------------------------ of tensors


def untyped_storage(input: Any) -> UntypedStorage:
    """The memory of a tensor, in bytes."""
    return UntypedStorage._of(input)


def storage(input: Any) -> TypedStorage:
    """The memory of a tensor, in elements."""
    made = TypedStorage._of(input)
    made.dtype = input.dtype  # type: ignore[attr-defined]
    return made  # type: ignore[return-value]


def set_(
    input: Any,
    source: Any = None,
    storage_offset: int = 0,
    size: Any = None,
    stride: Any = None,
) -> Any:
    """The tensor lies in another storage from now on: all of it, a part, or where a tensor lies.

    RuntimeError: another dtype, a place outside the storage, a tensor that requires grad.
    """
    settle()
    if input._rg and state.grad:
        raise RuntimeError("set_: a tensor that requires grad keeps its memory: use `.data`")
    d = input._a.dtype
    if source is None:
        source = UntypedStorage()
    if not isinstance(source, Handle) and not hasattr(source, "_bytes"):
        kind = type(source).__name__
        raise TypeError(f"set_(): argument 'source' must be Tensor or Storage, not {kind}")
    if isinstance(source, Handle) and size is None:
        other: Any = source
        size, stride = tuple(other.shape), other.stride()
        storage_offset = other.storage_offset()
    kind = getattr(source, "dtype", None)
    if kind is not None and kind.np != d:
        if isinstance(source, Handle):
            raise RuntimeError(
                f"Could not set tensor of type {kind.name} to a tensor of type {dt.from_np(d).name}"
            )
        raise RuntimeError(
            f"Expected a Storage of type {dt.from_np(d).name} or an UntypedStorage, but got type "
            f"{kind.name} for argument 1 'storage'"
        )
    whole = untyped_storage(source) if isinstance(source, Handle) else source
    flat = whole._bytes[: whole.nbytes() // d.itemsize * d.itemsize].view(d)
    owner = whole._owner
    if owner is None:  # the storage's own memory gets an owner that its tensors are views of
        owner = whole._owner = wrap(flat)
    size = (flat.size - storage_offset,) if size is None else tuple(int(n) for n in size)
    if stride is None:
        stride = [numel(size[k + 1 :]) for k in range(len(size))]
    if len(size) != len(stride):
        raise RuntimeError(
            f"set_: unequal size length ({len(size)}) and stride length ({len(stride)})"
        )
    last = storage_offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if min((storage_offset, *size, *stride)) < 0 or (0 not in size and last >= flat.size):
        raise RuntimeError(
            f"setStorage: sizes {list(size)}, strides {list(stride)}, storage offset "
            f"{storage_offset} are out of bounds for storage of {flat.size} elements"
        )
    steps = [s * d.itemsize for s in stride]
    input._a = np.ndarray(size, d, flat, storage_offset * d.itemsize if flat.size else 0, steps)
    input._ghost = None
    if owner is input:  # its memory goes on, with an owner that sees all of it
        owner = wrap(flat)
        owner._st = storage_of(input)
    input._st, input._base = storage_of(owner), owner
    return input


def resize_(input: Any, *sizes: Any, memory_format: Any = None) -> Any:
    """Another shape over the same memory; where it does not fit, over a copy with room, unset.

    RuntimeError: the tensor requires grad.  Views keep the old memory where the tensor gets new.
    """
    settle()
    if input._rg:
        raise RuntimeError("cannot resize variables that require grad")
    shape = shape_args(sizes, "resize_")
    d, offset = input._a.dtype, input.storage_offset()
    flat = untyped_storage(input)._bytes.view(d)
    if offset + numel(shape) <= flat.size:
        return set_(input, untyped_storage(input), offset, shape)
    new = memory.empty(shape, d)
    new.reshape(-1)[: flat.size - offset] = flat[offset:]
    input._a, input._ghost, input._base, input._st = new, None, None, None
    return input


# ------------------------------------------------------------------------ shared memory


def _root(a: Any) -> Any:
    """The object that an array's memory belongs to."""
    while True:
        inner = a.obj if isinstance(a, memoryview) else getattr(a, "base", None)
        if inner is None:
            return a
        a = inner


def shared_copy(a: np.ndarray) -> np.ndarray:
    """The array's numbers in memory that forked processes share."""
    pages = mmap.mmap(-1, max(a.nbytes, 1))
    made = np.frombuffer(pages, a.dtype, a.size).reshape(a.shape)
    np.copyto(made, a)
    return made


def share(t: Any) -> None:
    """Put a tensor's memory, with the views that are known, where forked processes share it."""
    settle()
    owner = owner_of(t)
    old = _whole(owner._a)
    if isinstance(_root(old), mmap.mmap):
        return
    new = shared_copy(old)
    begin = native.address(old)
    known = [r() for r in storage_of(owner).views or ()]
    for v in {id(v): v for v in (owner, t, *known) if v is not None}.values():
        a = v._a
        offset = native.address(a) - begin
        v._a = np.ndarray(a.shape, a.dtype, new, offset if a.size else 0, a.strides)


def share_memory_(input: Any) -> Any:
    """The tensor, its memory shared with processes that are forked from now on.

    Views that were made where no gradient could reach them keep the old memory.
    """
    share(input)
    return input


def is_shared(input: Any) -> bool:
    """Whether processes that are forked from now on write to the same memory."""
    return isinstance(_root(input._a), mmap.mmap)


def is_storage(obj: Any) -> bool:
    """Whether the object is a storage."""
    return isinstance(obj, UntypedStorage)

"""The register tile that products, convolutions and attention share, and the block of k.

A tile is `rows` rows of `vectors` vectors of accumulators.  Its shape changes speed, never a bit.
"""

from dataclasses import dataclass

from weft.kernels.target.llvm import BYTES, vector
from weft.runtime import native

KC = 384  # sums run in blocks of this many k: part of the definition of the numbers, never tune it
HELD = 16  # tiles whose sums are held
KEPT = 4 * KC  # of a panel of B, the most that stays packed for further rows of A


@dataclass(frozen=True)
class Tile:
    """Elements of a product that live in registers: `rows` x `vectors` vectors of `lanes`."""

    element: str
    lanes: int
    rows: int
    vectors: int
    fma: bool = True
    pairs: bool = False  # an element of a and of b is two bfloat16, along k
    amx: bool = False  # pairs are multiplied in tile registers (`amx`)
    # the elements that are adjacent in a: those of "rows", of "columns", or "any"; or "sliced":
    # those of columns, copied to slices (`gemm_code`)
    a_class: str = "rows"
    runs: int = 2  # of lines of what comes next: one of each that a tile asks for in 4 steps of k

    only: tuple[int, ...] = ()  # the widths that the panels of what is computed have, if known

    @property
    def per(self) -> int:
        """The numbers along k that an element of a and of b holds."""
        return 2 if self.pairs else 1

    @property
    def columns(self) -> int:
        """The width of a packed panel."""
        return self.lanes * self.vectors

    @property
    def type(self) -> str:
        return vector(self.lanes, self.element)

    @property
    def itemsize(self) -> int:
        return BYTES[self.element]

    @property
    def align(self) -> int:
        return self.lanes * self.itemsize

    @property
    def widths(self) -> list[int]:
        """The numbers of vectors for which there are micro-kernels, widest first."""
        return [*self.only] or [self.vectors >> i for i in range(self.vectors.bit_length())]

    def widths_of(self, columns: int) -> tuple[int, ...]:
        """Those of the panels of so many columns, for `only`: to compile all takes far longer."""
        last = up(columns % self.columns, self.lanes) // self.lanes
        whole = [self.vectors] * (columns >= self.columns)
        return tuple(dict.fromkeys([*whole, *sorted(v for v in self.widths if v >= last > 0)[:1]]))

    @property
    def piece(self) -> int:
        """The k that a tile goes through at a time (`gemm_code`); 0: all of a block."""
        usual = not self.pairs and self.vectors == 4 and self.a_class in ("rows", "sliced")
        usual = usual and self.vectors in self.widths
        return 96 if usual and native.host().multiplies_twice else 0

    def is_held(self, rows: int, vectors: int) -> bool:
        """Whether such a micro-kernel may begin with sums that were held."""
        return bool(self.piece) and (rows, vectors) == (self.rows, self.vectors)

    @property
    def scratch_per_thread(self) -> int:
        """Bytes of one tile for the ragged last panel, and of sums held."""
        tiles = HELD + 1 if self.piece else 1
        return up(tiles * self.rows * self.columns * self.itemsize)


def tile_for(element: str) -> Tile:
    """The tile that fits the host's registers: accumulators, one row of B, one element of A."""
    host = native.host()
    lanes = host.lanes(BYTES[element])
    rows = 6 if host.has_fma and (host.registers < 32 or host.vector_bits == 512) else 4
    return Tile(element, lanes, rows, 4 if host.registers >= 32 else 2, host.has_fma)


def multiplies_pairs() -> bool:
    """Whether the host has an instruction for products of pairs of bfloat16 (AVX512-BF16)."""
    host = native.host()
    return host.vector_bits == 512 and host.has("avx512bf16")


def up(value: int, unit: int = 64) -> int:
    """`value` rounded up to a multiple of `unit`."""
    return -(-value // unit) * unit

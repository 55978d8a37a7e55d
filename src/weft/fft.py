"""weft.fft: discrete Fourier transforms under torch.fft's names."""

from weft.core.overrides import cover_functions as _cover
from weft.ops.fourier import *

_cover(globals(), "torch.fft")

"""Inner names of torch's loader, for the isinstance tests of trainers."""

from __future__ import annotations

import weft.data.loader as _loader

_BaseDataLoaderIter = _loader._Iterator
_MultiProcessingDataLoaderIter = _loader._WorkerIterator
_SingleProcessDataLoaderIter = _loader._Iterator

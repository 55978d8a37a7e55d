"""The first key of a seed is mt19937's, as NumPy's C code makes it."""

import numpy as np
import pytest

from weft.runtime.twister import first_key


@pytest.mark.parametrize("seed", [0, 1, 5489, 2**31, 2**32 - 1])
def test_first_key_is_numpys(seed):
    np.testing.assert_array_equal(first_key(seed), np.random.RandomState(seed).get_state()[1])


def test_the_low_32_bits_count_and_nobody_writes_to_it():
    key = first_key(2**32 + 7)
    np.testing.assert_array_equal(key, first_key(7))
    with pytest.raises(ValueError, match="read-only"):
        key[0] = 1

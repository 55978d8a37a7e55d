"""Numbers that plans choose and that change no result: sizes of pieces, whether to share out.

A plan asks `choose(name, model, others)`: the number that its own model gives, and others that a
machine might like better.  Outside of `picking` the model decides.  `compile/tune.py` times the
others, and stands between: within `picking` it sees what is asked and answers in its stead.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Picks(threading.local):
    """What a thread's plans are answered, and what they asked."""

    answers: Mapping[str, int] | None = None
    asked: dict[str, tuple[int, ...]]


_picks = Picks()


def choose(name: str, model: int, *others: int) -> int:
    """`model`, or the other number that `picking` names."""
    answers = _picks.answers
    if answers is None:
        return model
    options = tuple(dict.fromkeys((model, *others)))
    _picks.asked[name] = options
    answer = answers.get(name, model)
    return answer if answer in options else model


@contextmanager
def picking(answers: Mapping[str, int]) -> Iterator[dict[str, tuple[int, ...]]]:
    """Plans made inside get these answers; what they asked: name -> its model's number first."""
    before, asked = _picks.answers, {}
    _picks.answers, _picks.asked = answers, asked
    try:
        yield asked
    finally:
        _picks.answers = before

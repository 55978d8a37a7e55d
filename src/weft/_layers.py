"""The layers that `import weft` loads, while Python's collector of cycles waits: what an import
makes stays, and to look through it again and again takes a tenth of the time.
"""

import gc

_collects = gc.isenabled()
gc.disable()
try:
    from weft import compile, methods, sparse  # noqa: F401
finally:
    if not gc.get_freeze_count():  # all at once to the oldest generation: none looks through it now
        gc.freeze()
        gc.unfreeze()
    if _collects:
        gc.enable()

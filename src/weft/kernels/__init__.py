"""Loops to native code, for eager and compiled programs alike.

`layout` says where a kernel's operands lie, `schedule` plans launches (tiles, packing, vectors), `target` writes code.
"""

"""Planners: from the layouts of an op's operands to a `Launch`.

A plan never depends on values or pointers.
"""

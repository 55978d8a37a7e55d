"""What torch has to choose among devices or its own implementations, answered for a plain CPU.

torch_/hub.py stands behind torch.hub, the class torch_/inner.types behind torch.types, and so on:
compat/table.py says which.
"""

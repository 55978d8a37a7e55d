"""What code is made for, one target a file: `llvm` is the text that the JIT compiles."""

"""Memory, threads, random generators and calling native code."""

"""Where graphs run: one small protocol and its implementations."""

"""The decoder at run time: generator, KV cache, sampling, text."""

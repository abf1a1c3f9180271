"""One adapter a model family: its vision part, its decoder weights, its prompt."""

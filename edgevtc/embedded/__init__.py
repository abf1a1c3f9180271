"""The model that ships in the package: its checkpoint in transformers layout, and the bundle made from it."""

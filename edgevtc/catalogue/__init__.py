"""Readers of the catalogues: what to export (one TOML recipe a model) and where it runs (one TOML profile a device)."""

"""Video in: files to uint8 frames of the size a model wants."""

"""The synthetic world that examines the embedded model, and accuracy against retention."""

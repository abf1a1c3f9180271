"""Measuring a bundle on the machine at hand: whether it computes what torch computed."""

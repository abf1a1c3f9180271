"""Readers of the catalogues: what to export (one TOML recipe a model) and where it runs (one TOML profile a device)."""

from edgevtc.catalogue.profile import TOOLS, DeviceProfile, device_names, device_profile
from edgevtc.catalogue.recipe import ModelRecipe, PromptRecipe, model_names, model_recipe

__all__ = [
    "TOOLS",
    "DeviceProfile",
    "ModelRecipe",
    "PromptRecipe",
    "device_names",
    "device_profile",
    "model_names",
    "model_recipe",
]

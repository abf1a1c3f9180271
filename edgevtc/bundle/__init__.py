"""The on-disk artefact: manifest, content-addressed weights, graphs, text files; opened verified, written whole."""

from edgevtc.bundle.manifest import (
    SCHEMA_VERSION,
    AutoEntry,
    DecoderEntry,
    FileEntry,
    Manifest,
    MethodEntry,
    ModelEntry,
    PromptEntry,
    TensorEntry,
    VerificationEntry,
    VisionEntry,
)
from edgevtc.bundle.reader import Bundle, cache_dir, embedded_path, read_text
from edgevtc.bundle.writer import BundleWriter, FolderWriter

__all__ = [
    "SCHEMA_VERSION",
    "AutoEntry",
    "Bundle",
    "BundleWriter",
    "DecoderEntry",
    "FileEntry",
    "FolderWriter",
    "Manifest",
    "MethodEntry",
    "ModelEntry",
    "PromptEntry",
    "TensorEntry",
    "VerificationEntry",
    "VisionEntry",
    "cache_dir",
    "embedded_path",
    "read_text",
]

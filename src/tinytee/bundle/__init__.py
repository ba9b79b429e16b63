"""Bundles: program bytes, chunks, sealing, the container. The only room that imports cryptography, and only to seal."""

from tinytee.bundle.container import Bundle
from tinytee.bundle.manifest import Manifest, Preprocessing, TensorSpec

__all__ = ["Bundle", "Manifest", "Preprocessing", "TensorSpec"]

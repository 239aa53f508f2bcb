"""Images: the embedded CIFAR-10 subset, and whole data sets from a folder or a checked download."""

from __future__ import annotations

from snnlib.data.images import ImageSet, ImageSplits, load_images

__all__ = ["ImageSet", "ImageSplits", "load_images"]

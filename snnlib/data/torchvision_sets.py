"""CIFAR (Python layout) and SVHN through torchvision's own classes, every file checked before they open it.

The CIFAR files are pickles made by their publishers. Unpickling runs whatever a file says, so torchvision's
class is called only after every file has shown its published MD5. A subclass may carry other checksums.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from snnlib.data.checked_files import Checksums, download, extract_checked, require_all_md5, require_md5
from snnlib.data.image_set import ImageSet
from snnlib.data.torchvision_ops import import_torchvision
from snnlib.files import temporary_folder
from snnlib.optional import needs

Originals = tuple[ImageSet, ImageSet, tuple[str, ...]]
"""(training images, test images, class names) as published."""


def read_cifar100(root: Path) -> Originals:
    """CIFAR-100 with its 100 fine labels below `root`, downloaded there first where it is missing."""
    dataset_class = import_torchvision().datasets.CIFAR100
    if not has_cifar(root, dataset_class):
        fetch_cifar(root, dataset_class)
    return read_cifar(root, dataset_class)


def has_cifar(root: Path, dataset_class: type) -> bool:
    """True where `root` holds the folder or the archive that torchvision knows."""
    return (root / dataset_class.base_folder).is_dir() or (root / dataset_class.filename).is_file()


def read_cifar(root: Path, dataset_class: type) -> Originals:
    """Images of a CIFAR folder below `root`; its archive, if that is all there is, is extracted first.

    `dataset_class` is torchvision's CIFAR10 or CIFAR100. Raises InputError naming the file that is missing or
    has another MD5.
    """
    folder, archive = root / dataset_class.base_folder, root / dataset_class.filename
    if not folder.is_dir():
        remedy = "delete it and start again, or download it anew"
        require_md5(archive, dataset_class.tgz_md5, remedy)
        extract_checked(archive, _file_checksums(dataset_class), folder, remedy)
    require_all_md5(folder, _file_checksums(dataset_class), f"delete {folder} and start again")
    train, test = dataset_class(str(root), train=True), dataset_class(str(root), train=False)
    return _from_cifar(train), _from_cifar(test), tuple(train.classes)


def fetch_cifar(root: Path, dataset_class: type) -> None:
    """Download a CIFAR archive and put its checked folder below `root`; the archive is not kept."""
    remedy = f"check the network, or put {dataset_class.base_folder} into a folder and pass it as data folder"
    with temporary_folder(root / "download") as temporary:
        archive = temporary / dataset_class.filename
        download(dataset_class.url, dataset_class.tgz_md5, archive, remedy)
        extract_checked(archive, _file_checksums(dataset_class), root / dataset_class.base_folder, remedy)


def read_svhn(root: Path, dataset_class: type | None = None) -> Originals:
    """SVHN, cropped digits (train_32x32.mat, test_32x32.mat) in `root`, downloaded there where missing.

    The `extra` images are not used. The digit 0 has label 0. `dataset_class` is torchvision's SVHN.
    """
    dataset_class = dataset_class or import_torchvision().datasets.SVHN
    needs("scipy.io", extra="data")  # torchvision reads the files with it
    splits = []
    for split in ("train", "test"):
        url, name, md5 = dataset_class.split_list[split]
        if not (root / name).exists():
            remedy = f"check the network, or put {name} into a folder and pass it as data folder"
            download(url, md5, root / name, remedy)
        require_md5(root / name, md5, "delete it and start again")
        data = dataset_class(str(root), split=split)
        images = torch.from_numpy(np.ascontiguousarray(data.data))
        splits.append(ImageSet(images, torch.from_numpy(np.asarray(data.labels, dtype=np.int64))))
    return splits[0], splits[1], tuple("0123456789")


def _file_checksums(dataset_class: type) -> Checksums:
    meta = (dataset_class.meta["filename"], dataset_class.meta["md5"])
    return dict([*dataset_class.train_list, *dataset_class.test_list, meta])


def _from_cifar(data) -> ImageSet:
    images = np.ascontiguousarray(np.asarray(data.data).transpose(0, 3, 1, 2))
    return ImageSet(torch.from_numpy(images), torch.tensor(data.targets, dtype=torch.int64))

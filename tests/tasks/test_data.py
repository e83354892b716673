"""Images against the bytes they were written from, crops and flips against every window there is."""

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from howsparse.errors import InputError
from howsparse.tasks import data as module
from howsparse.tasks.data import Batches, Images, ShuffledBatches, load_images
from howsparse.tasks.recipe import Data, load_recipe
from howsparse.tasks.task import load_task

datasets = pytest.importorskip("datasets")
PIL = pytest.importorskip("PIL.Image")

Pixels = npt.NDArray[np.generic]
COLOUR = Data(source="unused", mean=(0.491, 0.482, 0.447), std=(0.247, 0.243, 0.262))
GRAY = Data(source="unused", mean=(0.5,), std=(0.25,))


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The user's own cache stays clean, and nothing asks the network."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    yield
    datasets.enable_progress_bars()


def write_split(
    folder: Path, split: str, images: list[Pixels], labels: list[int], column: str = "img", classes: int = 10
) -> None:
    """One split as the hub holds CIFAR-10: PNGs inside parquet."""
    folder.mkdir(exist_ok=True)
    features = datasets.Features({column: datasets.Image(), "label": datasets.ClassLabel(num_classes=classes)})
    rows = {column: [PIL.fromarray(image) for image in images], "label": labels}
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / f"{split}-00000-of-00001.parquet")


def noise(seed: int, *shape: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write(folder: Path, *shape: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Train and test images of noise."""
    train, test = noise(1, 11, *shape), noise(2, 4, *shape)
    write_split(folder, "train", list(train), [i % 10 for i in range(11)])
    write_split(folder, "test", list(test), [9, 8, 7, 6])
    return train, test


def test_decoding_is_lossless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_DECODE", 4)  # several chunks, the last one short
    wanted = write(tmp_path / "set", 32, 32, 3)
    found = load_images(COLOUR, str(tmp_path / "set"))
    for images, pixels in zip(found, wanted, strict=True):
        assert images.pixels.dtype == torch.uint8
        assert np.array_equal(images.pixels.permute(0, 2, 3, 1).numpy(), pixels)
    assert found[0].labels.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    assert found[1].labels.tolist() == [9, 8, 7, 6]
    assert found[0].labels.dtype == torch.int64


def test_only_the_first_images(tmp_path: Path) -> None:
    write(tmp_path / "set", 32, 32, 3)
    all_of, some = (load_images(COLOUR, str(tmp_path / "set"), first) for first in (None, 3))
    for every, few in zip(all_of, some, strict=True):
        assert torch.equal(few.pixels, every.pixels[:3])
        assert torch.equal(few.labels, every.labels[:3])


def test_gray_images_have_one_channel(tmp_path: Path) -> None:
    train, _ = write(tmp_path / "set", 8, 5)
    images, _ = load_images(GRAY, str(tmp_path / "set"))
    assert images.pixels.shape == (11, 1, 8, 5)
    assert np.array_equal(images.pixels[:, 0].numpy(), train)


def test_other_splits_and_columns(tmp_path: Path) -> None:
    first, second = noise(1, 3, 4, 4), noise(2, 2, 4, 4)
    write_split(tmp_path / "set", "train", list(first), [0, 1, 2], column="picture")
    write_split(tmp_path / "set", "validation", list(second), [3, 4], column="picture")
    data = GRAY.model_copy(update={"image": "picture", "test": "validation"})
    train, test = load_images(data, str(tmp_path / "set"))
    assert np.array_equal(train.pixels[:, 0].numpy(), first)
    assert np.array_equal(test.pixels[:, 0].numpy(), second)


def test_a_task_reads_a_folder(tmp_path: Path) -> None:
    train, _ = write(tmp_path / "set", 32, 32, 3)
    task = load_task("fc5-cifar10", str(tmp_path / "set"))
    assert [len(targets) for _, targets in task.study_batches()] == [11]
    assert [len(targets) for _, targets in task.study_batches(5)] == [5]
    assert [len(targets) for _, targets in task.epoch_batches(0)(0)] == [11]
    inputs, targets = next(iter(task.test))
    assert (inputs.shape, targets.tolist()) == ((4, 3, 32, 32), [9, 8, 7, 6])
    recipe = load_recipe("fc5-cifar10").data
    exact = (train / 255.0 - np.array(recipe.mean)) / np.array(recipe.std)
    found = torch.cat([inputs for inputs, _ in task.study_batches()])
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.permute(0, 2, 3, 1).numpy(), exact, atol=2e-6)


@pytest.mark.parametrize("chunk", [1, 2])
def test_grey_images_among_coloured_ones(tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in TinyImageNet, in its hub schema: columns image and label, splits train and valid."""
    monkeypatch.setattr(module, "_DECODE", chunk)
    coloured, grey = noise(1, 8, 8, 3), noise(2, 8, 8)
    for split in ("train", "valid"):
        write_split(tmp_path / "set", split, [coloured, grey], [3, 9], column="image")
    train, test = load_images(load_recipe("resnet18-tinyimagenet").data, str(tmp_path / "set"))
    assert len(train) == len(test) == 2
    assert np.array_equal(train.pixels[0].permute(1, 2, 0).numpy(), coloured)
    assert all(np.array_equal(train.pixels[1, channel].numpy(), grey) for channel in range(3))
    assert train.labels.tolist() == [3, 9]


def test_cifar100_has_fine_labels(tmp_path: Path) -> None:
    rows = {"img": [PIL.fromarray(noise(3, 4, 4, 3))], "fine_label": [42], "coarse_label": [7]}
    (tmp_path / "set").mkdir()
    for split in ("train", "test"):
        table = datasets.Dataset.from_dict(rows).cast_column("img", datasets.Image())
        table.to_parquet(tmp_path / "set" / f"{split}-00000-of-00001.parquet")
    train, _ = load_images(load_recipe("resnet18-cifar100").data, str(tmp_path / "set"))
    assert train.labels.tolist() == [42]


class TestErrors:
    def refused(self, data: Data, source: Path | str, *parts: str) -> None:
        with pytest.raises(InputError) as caught:
            load_images(data, str(source))
        message = str(caught.value)
        assert "\n" not in message
        assert all(part in message for part in (str(source), *parts)), message

    def test_missing_folder(self, tmp_path: Path) -> None:
        self.refused(COLOUR, tmp_path / "nowhere", "neither a local folder", "--data")

    def test_empty_folder(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        self.refused(COLOUR, tmp_path / "empty", "cannot load the folder", "--data")

    def test_error_without_a_message(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def load_dataset(source: str) -> None:
            raise ConnectionError

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        self.refused(COLOUR, "some/set", "ConnectionError")

    def test_missing_split(self, tmp_path: Path) -> None:
        write_split(tmp_path / "set", "train", list(noise(1, 3, 4, 4)), [0, 1, 2])
        self.refused(GRAY, tmp_path / "set", "no split 'test'", "it has: train")

    @pytest.mark.parametrize(("field", "name"), [("image", "image"), ("label", "fine_label")])
    def test_missing_column(self, tmp_path: Path, field: str, name: str) -> None:
        write(tmp_path / "set", 4, 4)
        data = GRAY.model_copy(update={field: name})
        self.refused(data, tmp_path / "set", f"no column '{name}'", "it has: img, label")

    def test_other_number_of_channels(self, tmp_path: Path) -> None:
        write(tmp_path / "set", 4, 4)
        self.refused(COLOUR, tmp_path / "set", "1 channels", "3")

    @pytest.mark.parametrize("labels", [["cat", "0"], [None, 1], [0.5, 1.0], [[0], [1]], [float("nan"), 1.0]], ids=str)
    def test_broken_label(self, tmp_path: Path, labels: list[Any]) -> None:
        (tmp_path / "set").mkdir()
        for split in ("train", "test"):
            features = datasets.Dataset.from_dict({"label": labels}).features | {"img": datasets.Image()}
            rows = {"img": [PIL.fromarray(image) for image in noise(1, 2, 4, 4)], "label": labels}
            path = tmp_path / "set" / f"{split}.parquet"
            datasets.Dataset.from_dict(rows, features=datasets.Features(features)).to_parquet(path)
        self.refused(GRAY, tmp_path / "set", "split 'train'", "broken image or label")

    @pytest.mark.parametrize("split", ["train", "test"])
    def test_label_that_the_network_does_not_have(self, tmp_path: Path, split: str) -> None:
        """Found before any training, wherever the label is."""
        for each in ("train", "test"):
            labels = [0, 1, 2, 10 if each == split else 3]
            write_split(tmp_path / "set", each, list(noise(1, 4, 32, 32, 3)), labels, classes=11)
        with pytest.raises(InputError, match=f"split '{split}' of .*: label 10 is none of the model's 10 classes"):
            load_task("fc5-cifar10", str(tmp_path / "set"))

    @pytest.mark.parametrize("chunk", [1, 2])
    @pytest.mark.parametrize("odd", [noise(3, 4, 5, 3), noise(3, 5, 4)], ids=["coloured", "grey"])
    def test_images_of_several_sizes(
        self, tmp_path: Path, odd: Pixels, chunk: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "_DECODE", chunk)
        write_split(tmp_path / "set", "train", [noise(1, 4, 4, 3), odd], [0, 1])
        write_split(tmp_path / "set", "test", [noise(1, 4, 4, 3)], [0])
        self.refused(COLOUR, tmp_path / "set", "column 'img'", "split 'train'", "one size")

    def test_sixteen_bits(self, tmp_path: Path) -> None:
        write_split(tmp_path / "set", "train", [np.full((4, 4), 60000, dtype=np.uint16)], [0])
        write_split(tmp_path / "set", "test", [np.full((4, 4), 60000, dtype=np.uint16)], [0])
        self.refused(GRAY, tmp_path / "set", "column 'img'", "8-bit")


def numbered(count: int, channels: int = 3, height: int = 6, width: int = 5) -> Images:
    """Images of noise labelled by their position; normalising leaves the pixel values as they are."""
    pixels = torch.from_numpy(noise(7, count, channels, height, width))
    return Images(pixels, torch.arange(count), (0.0,) * channels, (1 / 255,) * channels)


def test_crop_and_flip_give_windows_of_the_padded_image_and_all_of_them() -> None:
    images = numbered(50)
    windows: list[dict[bytes, tuple[int, int, bool]]] = []
    for image in images.pixels.numpy():
        padded = np.zeros((3, 6 + 8, 5 + 8), dtype=np.uint8)
        padded[:, 4:10, 4:9] = image
        found = {}
        for top in range(9):
            for left in range(9):
                crop = padded[:, top : top + 6, left : left + 5]
                found[crop.tobytes()] = (top, left, False)
                found[crop[..., ::-1].tobytes()] = (top, left, True)
        windows.append(found)

    seen: Counter[tuple[int, int, bool]] = Counter()
    batches = ShuffledBatches(images, size=16, augment=True)
    for epoch in range(60):
        for inputs, targets in batches(0, epoch):
            whole = inputs.round()
            assert torch.allclose(inputs, whole, atol=1e-3)
            for image, target in zip(whole.to(torch.uint8).numpy(), targets.tolist(), strict=True):
                seen[windows[target][image.tobytes()]] += 1
    assert sum(seen.values()) == 3000
    assert len(seen) == 9 * 9 * 2
    expected = 3000 / 162
    statistic = sum((count - expected) ** 2 / expected for count in seen.values())
    assert abs(statistic - 161) < 5 * (2 * 161) ** 0.5  # chi-squared: every window equally likely


@pytest.mark.parametrize("augment", [False, True])
@given(
    count=st.integers(1, 40),
    size=st.integers(1, 45),
    seed=st.integers(0, 2**40),
    epoch=st.integers(0, 1000),
    elsewhere=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=40)
def test_an_epoch_depends_on_seed_and_number_alone(
    augment: bool, count: int, size: int, seed: int, epoch: int, elsewhere: int
) -> None:
    images = numbered(count, channels=1)
    torch.manual_seed(elsewhere)
    batches = ShuffledBatches(images, size, augment)
    first = list(batches(seed, epoch))
    state = torch.get_rng_state()
    for _ in batches(seed, elsewhere):
        break
    assert torch.equal(torch.get_rng_state(), state)
    again = list(ShuffledBatches(numbered(count, channels=1), size, augment)(seed, epoch))

    assert len(first) == len(again) == math.ceil(count / size)
    for (inputs, targets), (other_inputs, other_targets) in zip(first, again, strict=True):
        assert torch.equal(inputs, other_inputs)
        assert torch.equal(targets, other_targets)
    assert all(len(targets) == size for _, targets in first[:-1])
    order = torch.cat([targets for _, targets in first])
    assert sorted(order.tolist()) == list(range(count))
    if not augment:
        inputs = torch.cat([inputs for inputs, _ in first])
        torch.testing.assert_close(inputs, images.pixels[order].float())


def test_epochs_and_seeds_differ() -> None:
    images = numbered(30, channels=1)
    orders = {
        tuple(torch.cat([targets for _, targets in ShuffledBatches(images, 8)(seed, epoch)]).tolist())
        for seed in range(5)
        for epoch in range(5)
    }
    assert len(orders) == 25  # (seed 0, epoch 1) is not (seed 1, epoch 0)


def test_batches_can_be_read_again() -> None:
    batches = Batches(numbered(7, channels=1), size=3)
    passes = [torch.cat([inputs for inputs, _ in batches]) for _ in range(2)]
    assert torch.equal(passes[0], passes[1])
    torch.testing.assert_close(passes[0], batches.images.pixels.float())
    assert len(list(batches)) == len(batches) == 3


def test_digits_are_scikit_learns_split_once() -> None:
    from sklearn.datasets import load_digits

    recipe = load_recipe("digits")
    train, test = load_images(recipe.data)
    assert (len(train), len(test)) == (1437, 360)
    bunch = load_digits()
    rows = torch.cat([train.pixels, test.pixels]).flatten(1).double() * 16 / 255  # 0 to 16, up to rounding
    labels = torch.cat([train.labels, test.labels])
    ours = sorted([*row, label] for row, label in zip(rows.round().int().tolist(), labels.tolist(), strict=True))
    theirs = sorted([*row, label] for row, label in zip(bunch.data.astype(int).tolist(), bunch.target, strict=True))
    assert ours == theirs
    again, _ = load_images(recipe.data, "digits")
    assert torch.equal(train.pixels, again.pixels)

    inputs = train.normalised(train.pixels)
    assert abs(float(inputs.mean())) < 5e-3
    assert abs(float(inputs.std()) - 1) < 5e-3

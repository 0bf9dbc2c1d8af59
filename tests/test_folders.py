"""Tasks of image folders: the content of episodes, and the errors."""

from __future__ import annotations

import io
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blur_es.episode import EpisodeSpec, make_episode
from blur_es.errors import InputError
from blur_es.keys import EpisodeKey, Phase, random_generator
from blur_es.rule import RuleSpec
from blur_es.tasks import Samples, Task, check_task_data, check_task_options, make_task
from blur_es.tasks.fetch import SOURCES
from blur_es.tasks.folders import FolderTask
from blur_es.tasks.image_files import read_classes

IMAGES = 8


def picture(value: int, index: int, side: int = 6, kind: str = "PNG") -> bytes:
    """A uniformly grey image, except for one pixel that identifies it."""
    pixels = np.full((side, side), value, np.uint8)
    pixels[index // side, index % side] = 255 - value
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def write_classes(folder: Path, values: range, images: int = IMAGES) -> Path:
    """One folder for each class, each with its own grey, in two alphabets."""
    for value in values:
        place = folder / f"alphabet{value % 2}" / f"character{value:03}"
        place.mkdir(parents=True)
        for index in range(images):
            (place / f"{index:02}.png").write_bytes(picture(value, index))
    return folder


@pytest.fixture
def omniglot(tmp_path: Path) -> Path:
    """Omniglot in small: 36 characters to train on and 12 others for the test."""
    write_classes(tmp_path / "omniglot" / "images_background", range(36))
    write_classes(tmp_path / "omniglot" / "images_evaluation", range(100, 112))
    return tmp_path


def small_omniglot(data_dir: Path) -> Task:
    return make_task({"name": "omniglot", "ways": 5, "size": 6}, data_dir)


def draw(task: Task, phase: Phase, key: int = 0) -> Samples:
    return task.sample(phase, 60, 20, random_generator(0, key))


def greys(samples: Samples) -> dict[int, set[int]]:
    """The greys of each class, from the pixels of the last row."""
    found: dict[int, set[int]] = {}
    for inputs, classes in (
        (samples.support_inputs, samples.support_labels),
        (samples.query_inputs, samples.query_labels),
    ):
        for row, label in zip(inputs, classes, strict=True):
            found.setdefault(int(label), set()).add(255 - round(255 * float(row[-1])))
    return found


def test_an_episode_has_classes_of_its_phase(omniglot: Path) -> None:
    task = small_omniglot(omniglot)
    assert isinstance(task, FolderTask)
    assert (task.name, task.inputs, task.classes, task.outputs) == ("omniglot", 36, 5, 5)
    assert task.test_size == 5 * IMAGES // 4
    seen: dict[Phase, set[int]] = {}
    for phase in (Phase.META_TRAINING, Phase.VALIDATION, Phase.TUNING, Phase.TEST):
        seen[phase] = set()
        for key in range(60):
            found = greys(draw(task, phase, key))
            assert set(found) == set(range(5))
            assert all(len(values) == 1 for values in found.values())
            chosen = {value for values in found.values() for value in values}
            assert len(chosen) == 5
            seen[phase] |= chosen
    assert seen[Phase.META_TRAINING] | seen[Phase.VALIDATION] == set(range(36))
    assert not seen[Phase.META_TRAINING] & seen[Phase.VALIDATION]
    assert seen[Phase.TUNING] == seen[Phase.VALIDATION]
    assert seen[Phase.TEST] == set(range(100, 112))


def test_queries_are_other_images_than_the_support(omniglot: Path) -> None:
    task = small_omniglot(omniglot)
    for phase in (Phase.META_TRAINING, Phase.VALIDATION, Phase.TEST):
        samples = draw(task, phase)
        support = {row.tobytes() for row in samples.support_inputs}
        query = {row.tobytes() for row in samples.query_inputs}
        assert (len(support), len(query)) == (5 * 6, 5 * 2)
        assert not support & query
        assert len(samples.support_labels) == 60
        counts = np.bincount(samples.support_labels)
        assert counts.max() - counts.min() <= 2


def test_an_episode_is_a_function_of_its_key(omniglot: Path) -> None:
    first, second = small_omniglot(omniglot), small_omniglot(omniglot)
    for one, other in zip(draw(first, Phase.TEST), draw(second, Phase.TEST), strict=True):
        np.testing.assert_array_equal(one, other)
    episode = make_episode(
        first, [8], RuleSpec(), EpisodeSpec(6, 10, 1), 0, EpisodeKey(Phase.META_TRAINING, 1, 0, 0)
    )
    assert episode.support_inputs.shape == (6, 10, 36)
    assert episode.support_labels.shape == (6, 10, 5)


def test_archives_are_read_as_folders_are(omniglot: Path, tmp_path: Path) -> None:
    home = tmp_path / "archives" / "omniglot"
    home.mkdir(parents=True)
    for part in ("images_background", "images_evaluation"):
        folder = omniglot / "omniglot" / part
        with zipfile.ZipFile(home / f"{part}.zip", "w") as archive:
            for file in sorted(folder.rglob("*.png")):
                archive.write(file, f"{part}/{file.relative_to(folder)}")
            archive.writestr(f"__MACOSX/{part}/alphabet0/._00.png", b"not an image")
    assert [f"{part}.zip" for part in ("images_background", "images_evaluation")] == list(
        SOURCES["omniglot"].md5
    )
    packed = small_omniglot(tmp_path / "archives")
    for one, other in zip(
        draw(packed, Phase.TEST), draw(small_omniglot(omniglot), Phase.TEST), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_missing_omniglot_is_found_without_reading(omniglot: Path, tmp_path: Path) -> None:
    check_task_data({"name": "omniglot"}, omniglot)
    with pytest.raises(InputError, match="blur-es fetch omniglot"):
        check_task_data({"name": "omniglot"}, tmp_path / "elsewhere")


@pytest.mark.parametrize("name", ["omniglot", "mnist"])
def test_a_folder_whose_name_is_too_long(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot look here: File name too long"):
        check_task_data({"name": name}, tmp_path / ("x" * 300))


def test_a_users_own_folders(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "own", range(30))
    task = make_task({"name": "image_folders", "path": str(folder), "ways": 2, "size": 3})
    assert (task.name, task.inputs, task.classes) == ("own", 9, 2)
    test = set().union(
        *(
            {round(255 * float(row[-1])) for row in draw(task, Phase.TEST, key).query_inputs}
            for key in range(40)
        )
    )
    assert len(test) == 30 // 5


def test_images_become_grey_and_small(tmp_path: Path) -> None:
    colour = np.zeros((4, 8, 3), np.uint8)
    colour[:, :4] = (255, 255, 255)
    (tmp_path / "a").mkdir()
    for name in ("1.PNG", "2.bmp"):
        Image.fromarray(colour).save(tmp_path / "a" / name)
    np.testing.assert_allclose(read_classes(tmp_path, 2, invert=False)["a"], [[1, 0, 1, 0]] * 2)
    np.testing.assert_allclose(read_classes(tmp_path, 2, invert=True)["a"], [[0, 1, 0, 1]] * 2)
    assert read_classes(tmp_path, None, invert=False)["a"].shape == (2, 32)


def test_pixels_of_16_bits_are_scaled_and_those_of_32_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    ramp = np.array([[0, 257, 25_700, 65_535]])
    for name in ("1.png", "2.tif"):
        Image.fromarray(ramp.astype(np.uint16)).save(tmp_path / "a" / name)
    np.testing.assert_allclose(
        255 * read_classes(tmp_path, None, invert=False)["a"], [[0, 1, 100, 255]] * 2, rtol=1e-6
    )
    for mode, pixels in (("I", ramp.astype(np.int32)), ("F", (ramp / 65_535).astype(np.float32))):
        Image.fromarray(pixels).save(tmp_path / "a" / "2.tif")
        with pytest.raises(
            InputError, match=rf"a/2\.tif: found pixels of 32 bits \(mode {mode}\), .*; save the"
        ):
            read_classes(tmp_path, None, invert=False)


def write_plain(folder: Path, classes: int = 3, kind: str = "PNG", suffix: str = "png") -> Path:
    for number in range(classes):
        (folder / f"c{number}").mkdir(parents=True)
        for index in range(2):
            content = picture(50 * number, index, kind=kind)
            (folder / f"c{number}" / f"{index}.{suffix}").write_bytes(content)
    return folder


def test_hidden_and_system_files_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_plain(tmp_path / "own")
    for name in (".ipynb_checkpoints", "__MACOSX", "@eaDir"):
        shutil.copytree(folder / "c1", folder / name / "c1")
    shutil.copytree(folder / "c1", folder / "c2" / ".thumbnails")
    (folder / "c0" / "._0.png").write_bytes(b"a Mac's resource fork")
    (folder / "c0" / "Thumbs.db").write_bytes(b"thumbnails")
    (folder / "c0" / "labels.csv").write_text("0")
    assert list(read_classes(folder, None, invert=False)) == ["c0", "c1", "c2"]
    [line] = caplog.messages
    assert line.endswith(
        "own: 3 classes, left out 1 file that is not an image, 2 hidden or system files, "
        "4 hidden or system folders"
    )


def test_links_are_followed_and_loops_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain, linked = write_plain(tmp_path / "plain"), tmp_path / "linked"
    linked.mkdir()
    for number in range(3):
        (linked / f"c{number}").symlink_to(plain / f"c{number}")
    (linked / "again").symlink_to(linked)
    (linked / "gone").symlink_to(tmp_path / "nowhere")
    expected = read_classes(plain, None, invert=False)
    found = read_classes(linked, None, invert=False)
    assert list(found) == list(expected)
    for name, images in expected.items():
        np.testing.assert_array_equal(found[name], images)
    assert "1 broken link or special file, 1 link to a folder that holds it" in caplog.text


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [("PPM", "pgm"), ("TGA", "tga"), ("PNG", "image"), ("JPEG2000", "jp2")],
)
def test_all_formats_that_pillow_reads_are_read(tmp_path: Path, kind: str, suffix: str) -> None:
    folder = write_plain(tmp_path / "own")
    for index in range(2):
        (folder / "c1" / f"{index}.png").unlink()
        (folder / "c1" / f"{index}.{suffix}").write_bytes(picture(9, index, kind=kind))
    assert list(read_classes(folder, None, invert=False)) == ["c0", "c1", "c2"]


def test_a_class_in_an_unreadable_format_is_refused(tmp_path: Path) -> None:
    folder = write_plain(tmp_path / "own")
    for file in (folder / "c1").iterdir():
        file.rename(file.with_suffix(".HEIC"))
    with pytest.raises(InputError, match=r"c1/0\.HEIC: images in the format \.heic cannot be read"):
        read_classes(folder, None, invert=False)


def test_an_archive_from_windows(tmp_path: Path) -> None:
    folder = write_plain(tmp_path / "own")
    with zipfile.ZipFile(tmp_path / "own.zip", "w") as archive:
        for file in sorted(folder.rglob("*.png")):
            info = zipfile.ZipInfo("x")
            info.filename = str(file.relative_to(folder)).replace("/", "\\")
            archive.writestr(info, file.read_bytes())
    assert list(read_classes(tmp_path / "own.zip", None, invert=False)) == ["c0", "c1", "c2"]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_their_exif_data_say(tmp_path: Path, orientation: int) -> None:
    upright = np.arange(36, dtype=np.uint8).reshape(6, 6)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, 3),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "a").mkdir()
    for index in range(2):
        Image.fromarray(stored).save(tmp_path / "a" / f"{index}.png", exif=exif)
    found = read_classes(tmp_path, None, invert=False)["a"]
    np.testing.assert_allclose(255 * found[0], upright.reshape(-1), rtol=1e-5)


def test_unreadable_images_are_named(tmp_path: Path) -> None:
    def refused(message: str, size: int | None = None) -> None:
        with pytest.raises(InputError, match=message):
            read_classes(tmp_path / "own", size, invert=False)

    refused("own: cannot read images here: No such file")
    place = tmp_path / "own" / "a"
    place.mkdir(parents=True)
    refused("own: found no images")
    (place / "1.png").write_bytes(picture(3, 0))
    refused("own/a: found 1 image of this class")
    (place / "2.png").write_bytes(picture(3, 0, side=7))
    refused("own/a/2.png: found an image of 7 x 7 pixels, expected 6 x 6")
    for broken in (b"", b"no image", picture(3, 1)[:60]):
        (place / "2.png").write_bytes(broken)
        refused("own/a/2.png: this image cannot be read")
    (place / "2.png").write_bytes(picture(3, 1))
    refused("size: found 7, expected 1 to 6", size=7)
    (tmp_path / "own.zip").write_bytes(b"PK no archive")
    with pytest.raises(InputError, match=r"own\.zip: cannot read images here"):
        read_classes(tmp_path / "own.zip", None, invert=False)


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_a_damaged_archive_is_refused_or_read(tmp_path: Path, method: int) -> None:
    path = tmp_path / "own.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        for index in range(2):
            archive.writestr(f"ä/{index}.png", picture(3, index))
    whole = path.read_bytes()
    messages = set()
    for index in range(len(whole)):
        damaged = bytearray(whole)
        damaged[index] ^= 1 << index % 8
        path.write_bytes(damaged)
        try:
            read_classes(path, None, invert=False)
        except InputError as error:
            messages.add(str(error))
    assert all(message.startswith(str(path)) for message in messages)
    assert any("cannot read images here: 'utf-8' codec" in message for message in messages)
    assert not any("here: ;" in message for message in messages)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "omniglot", "ways": 1}, "omniglot.ways: found 1, expected .* 2 to 10000"),
        ({"name": "omniglot", "size": 0}, "omniglot.size: found 0"),
        ({"name": "omniglot", "path": "x"}, "omniglot has no option 'path'"),
        (
            {"name": "image_folders"},
            "image_folders.path: this key is missing; expected the path of a folder",
        ),
        ({"name": "image_folders", "path": "x", "invert": 1}, "invert: found 1, expected true"),
    ],
)
def test_wrong_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_task_options(options)


def test_too_few_classes(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "own", range(12))
    with pytest.raises(InputError, match="classes are left for validation, expected at least 2"):
        make_task({"name": "image_folders", "path": str(folder), "ways": 2})

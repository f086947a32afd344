"""A QuPath project is a slide list, also after it was moved."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from raystp.errors import ConfigError
from raystp.slides.table import SlideRow, read_slide_table


def image(uri: str, name: str, **around: Any) -> dict[str, Any]:
    builder: dict[str, Any] = {"builderType": "uri", "providerClassName": "x", "uri": uri, "args": []}
    for kind, options in around.items():
        builder = {"builderType": kind, "builder": builder, **options}
    return {"serverBuilder": builder, "entryID": 1, "imageName": name, "metadata": {}}


def project(folder: Path, images: object, **more: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "project.qpproj"
    path.write_text(json.dumps({"version": "0.5.1", "images": images, **more}))
    return path


def rows(path: Path) -> list[SlideRow]:
    return read_slide_table(str(path), None, "unused")


def test_images_are_slides_by_their_names_and_places(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "slides").mkdir()
    for name in ("a b.svs", "TCGA-02-0001-01.svs"):
        (tmp_path / "slides" / name).touch()
    images = [
        image((tmp_path / "slides" / "a b.svs").as_uri(), "a b.svs"),
        image(
            (tmp_path / "slides" / "TCGA-02-0001-01.svs").as_uri(), "TCGA-02-0001-01.svs", rotated={"rotation": "R90"}
        ),
        image((tmp_path / "slides" / "a b.svs").as_uri(), "a b.svs - series 2"),
        image("s3://bucket/c.svs", "c.svs"),
    ]
    with caplog.at_level(logging.INFO, "raystp"):
        first, second, third = rows(project(tmp_path / "q", images))
    assert (first.slide, first.path.local_path, first.patient) == ("a_b", tmp_path / "slides" / "a b.svs", "")
    assert (second.slide, second.patient) == ("TCGA-02-0001-01", "TCGA-02-0001")
    assert (third.slide, third.path.uri) == ("c", "s3://bucket/c.svs")
    assert "'TCGA-02-0001-01.svs' are rotated or cropped in QuPath: the slides are read as they are" in caplog.text
    assert "'a b.svs - series 2' are further images of a file that is there already" in caplog.text


@pytest.mark.parametrize("former", ["file:/gone/study/project.qpproj", "file:///gone/study/project.qpproj", None])
def test_a_moved_project_finds_its_slides_beside_it(tmp_path: Path, former: str | None) -> None:
    (tmp_path / "raw").mkdir()
    place = "a.svs" if former is None else "raw/a.svs"
    (tmp_path / place).touch()
    more = {} if former is None else {"uri": former}
    (row,) = rows(project(tmp_path, [image("file:/gone/study/raw/a.svs", "a.svs")], **more))
    assert row.path.local_path == tmp_path / place


def test_a_path_of_windows_keeps_its_drive(tmp_path: Path) -> None:
    (row,) = rows(project(tmp_path, [image("file:/C:/slides/a%20b.svs", "a b.svs")]))
    assert str(row.path).endswith("C:/slides/a b.svs")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not a QuPath project: it is no JSON"),
        ("[" * 100_000, "is not a QuPath project: it is no JSON"),
        ("[]", "is not a QuPath project but JSON of type list"),
        ("{}", "has no `images`"),
        ('{"images": []}', "has no `images`"),
        ('{"images": [3]}', r"image 1 of 1 has no `serverBuilder.uri`"),
        ('{"images": [{"serverBuilder": {"builder": {}}}]}', r"image 1 of 1 has no `serverBuilder.uri`"),
    ],
)
def test_a_file_that_is_no_project_is_refused_with_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "project.qpproj").write_text(text)
    with pytest.raises(ConfigError, match=message):
        rows(tmp_path / "project.qpproj")

"""Whatever is wrong with photos, captions, recipe or checkpoint: one line that says so, exit code 2, no traceback."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

import mmsearch.training
from mmsearch.cli.app import main
from mmsearch.data.scenes import write_scenes
from mmsearch.errors import CheckpointError, ConfigError, DataError, MMSearchError, ModelError, TrainingError
from mmsearch.training.run import train

RECIPE = Path(mmsearch.training.__file__).with_name("scenes.toml")
SCENES = 20  # 16 to train on, 4 to validate with


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("bad") / "scenes", SCENES, seed=3).parent


@pytest.fixture
def photos(scenes: Path, tmp_path: Path) -> Path:
    """A good data set, to be spoilt."""
    return shutil.copytree(scenes, tmp_path / "photos")


def write_recipe(folder: Path, **changed: str) -> Path:
    """The small recipe for one epoch of two steps on `folder`/photos; `changed` values as TOML writes them."""
    text = RECIPE.read_text().replace("./scenes64", str(folder / "photos"))
    text = text.replace('name = "scenes"\n', f'name = "scenes"\ncache = "{folder / "cache"}"\n')
    values = {"epochs": "1", "batch": "8", "latent_dim": "4", **changed}
    for name, value in values.items():
        start = text.index(f"\n{name} = ") + 1
        text = text[:start] + f"{name} = {value}" + text[text.index("\n", start) :]
    path = folder / f"recipe-{values['epochs']}-{values['latent_dim']}.toml"
    path.write_text(text)
    return path


def refused(arguments: list[object], capfd: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr of a command that ends with 2 and prints nothing else."""
    assert main([str(argument) for argument in arguments]) == 2
    out, err = capfd.readouterr()
    lines = [line for line in err.splitlines() if " photos to train on, " not in line]  # what a good start says
    assert out == ""
    assert len(lines) == 1, err
    assert "Traceback" not in err
    return lines[0]


def rows(photos: Path) -> list[dict[str, str]]:
    with (photos / "captions.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def rewrite(photos: Path, kept: list[dict[str, str]]) -> None:
    with (photos / "captions.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, ["image", "caption", "split"])
        writer.writeheader()
        writer.writerows(kept)


def of_split(photos: Path, split: str) -> list[Path]:
    names = dict.fromkeys(row["image"] for row in rows(photos) if row["split"] == split)
    return [photos / name for name in names]


def lose_two(photos: Path) -> None:
    for path in of_split(photos, "train")[:2]:
        path.unlink()


def double(photos: Path) -> None:
    shutil.copyfile(of_split(photos, "train")[0], of_split(photos, "val")[1])


def double_saved_again(photos: Path) -> None:
    with Image.open(of_split(photos, "train")[0]) as image:
        image.convert("RGB").save(of_split(photos, "val")[1], "JPEG", quality=95, subsampling=0)


def empty_all(photos: Path) -> None:
    rewrite(photos, [row | {"caption": " "} for row in rows(photos)])


def cut_one(photos: Path) -> None:
    path = of_split(photos, "val")[0]
    path.write_bytes(path.read_bytes()[:200])


def keep(photos: Path, train: int, val: int) -> None:
    kept = {*of_split(photos, "train")[:train], *of_split(photos, "val")[:val]}
    rewrite(photos, [row for row in rows(photos) if photos / row["image"] in kept])


DATA: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing pictures": (lose_two, "names 2 of 20 images that are missing, first "),
    "the same file in two splits": (double, "1 of 4 validation photos are trained on under another name, the first "),
    "the same picture saved again": (double_saved_again, "a copy of "),
    "only empty captions": (empty_all, "and all are empty"),
    "a broken photo": (cut_one, "1 of 20 photos cannot be read, the first "),
    "no captions": (lambda photos: rewrite(photos, []), "holds no captions"),
    "no caption file": (lambda photos: (photos / "captions.csv").unlink(), "no captions found in"),
    "no folder": (shutil.rmtree, "no such data set"),
    "one photo to train on": (lambda photos: keep(photos, 1, 4), "too few photos to train on in "),
    "one photo to validate with": (lambda photos: keep(photos, 16, 1), "has 1 photo in split 'val'; at least 2"),
    "nothing to validate with": (lambda photos: keep(photos, 16, 0), "no examples in split 'val'; its splits: train"),
}


@pytest.mark.parametrize("fault", DATA)
def test_a_data_set_that_cannot_be_used(fault: str, photos: Path, capfd: pytest.CaptureFixture[str]) -> None:
    spoil, said = DATA[fault]
    named = [str(of_split(photos, "train")[0]), str(of_split(photos, "val")[1])]
    spoil(photos)
    recipe, out = write_recipe(photos.parent), photos.parent / "run"
    line = refused(["train", recipe, "--out", out], capfd)
    assert said in line
    assert str(photos) in line or named[0] in line
    if "same" in fault:
        assert all(name in line for name in named)  # both, so that one can be removed
    with pytest.raises(DataError) as told:
        train(recipe, out=out)
    assert str(told.value) in line
    assert not list(out.glob("**/*.safetensors"))


def test_empty_captions_among_others_are_dropped(photos: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first, *rest = rows(photos)
    rewrite(photos, [first | {"caption": ""}, *rest])
    assert main(["train", str(write_recipe(photos.parent)), "--out", str(photos.parent / "run")]) == 0
    assert f"1 of {5 * SCENES} captions are empty and dropped, the first for {first['image']}" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said", "kind"),
    [
        ({}, "nothing says what to train; name a recipe", ConfigError),
        ({"model": "clip-ViT-B-32"}, "no photos to put heads on 'clip-ViT-B-32'", ConfigError),
        ({"model": "default", "data": [Path("x")]}, "'default' is a model of mmsearch itself", ModelError),
    ],
)
def test_a_command_that_says_too_little(
    arguments: dict[str, object], said: str, kind: type[MMSearchError], capfd: pytest.CaptureFixture[str]
) -> None:
    options: list[object] = []
    for name, value in arguments.items():
        options += [f"--{name}", value[0] if isinstance(value, list) else value]
    assert said in refused(["train", *options], capfd)
    with pytest.raises(kind, match=said):
        train(**arguments)  # type: ignore[arg-type]


def test_a_recipe_without_data(photos: Path, capfd: pytest.CaptureFixture[str]) -> None:
    recipe = write_recipe(photos.parent)
    recipe.write_text(recipe.read_text().replace("[[data]]", "[other]").replace("seed = 0", "seed = 0\ndata = []"))
    recipe.write_text(recipe.read_text().replace(f'[other]\npath = "{photos}"', ""))
    assert "no [[data]] table" in refused(["train", recipe], capfd)


@pytest.fixture
def run(photos: Path) -> Path:
    """A run of one epoch that ended well."""
    train(write_recipe(photos.parent), out=photos.parent / "run")
    return photos.parent / "run"


def test_a_checkpoint_that_cannot_be_resumed(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    other = write_recipe(run.parent, latent_dim="6", epochs="2")
    line = refused(["train", other, "--out", run, "--resume"], capfd)
    assert "was begun with model.latent_dim = 4, the recipe says 6" in line
    with pytest.raises(CheckpointError, match="begun with"):
        train(other, out=run, resume=True)

    same, last = write_recipe(run.parent, epochs="2"), run / "whole" / "last.safetensors"
    (run / "recipe.json").write_text("{")  # cut off too: the checkpoint itself is what tells
    assert "of another architecture" in refused(["train", other, "--out", run, "--resume"], capfd)
    (run / "recipe.json").write_text("{")
    last.write_bytes(last.read_bytes()[:-50])
    assert "last.safetensors cannot be read" in refused(["train", same, "--out", run, "--resume"], capfd)


def test_a_loss_that_is_no_number(photos: Path, capfd: pytest.CaptureFixture[str]) -> None:
    recipe, out = write_recipe(photos.parent, rate_heads="1e30"), photos.parent / "run"
    line = refused(["train", recipe, "--out", out], capfd)
    assert "in stage whole, step 1, in its first epoch, so there is no checkpoint" in line
    with pytest.raises(TrainingError):
        train(recipe, out=out)


def test_a_model_folder_of_another_kind(run: Path, photos: Path, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    assert "model.json is missing" in refused(["eval", photos, "--model", run], capfd)
    line = refused(["train", "--model", run / "model", "--data", photos], capfd)
    assert "is a model of mmsearch itself; heads go on a sentence-transformers model" in line

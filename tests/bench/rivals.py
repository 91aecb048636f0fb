"""What people use today, each behind the same questions: how to install it, index with it, ask it, look at its rows.

In: a folder of photos, a folder for the tool's state. Out: command lines, and what its index holds afterwards. Each
lives in its own environment below `.cache/side_by_side` and is started from outside, as from a shell. The models have
the architecture that each tool takes by default, and random weights: nothing is downloaded, the arithmetic is the same.
Next: `side_by_side.py`, which measures.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from indexer.base.types import HIDDEN
from indexer.catalog.schema import LIVE
from tests.bench.common import ROOT

HOME = ROOT / ".cache" / "side_by_side"
LAUNCHER = Path(__file__).with_name("clip_retrieval_launcher.py")
QUERY = "a dog running on the beach"
Command = list[str]
Vectors = dict[str, np.ndarray]  # of each indexed file by its name


class Tool(Protocol):
    """One way to search photos."""

    name: str
    note: str

    def missing(self) -> str | None:
        """Why it cannot run here; None if it can."""

    def index(self, folder: Path, state: Path) -> list[Command]:
        """The commands that index, one after the other."""

    def query(self, folder: Path, state: Path) -> Command:
        """The command that answers one query from what is indexed."""

    def environment(self, state: Path) -> dict[str, str]:
        """What its processes find in their environment."""

    def vectors(self, state: Path) -> Vectors:
        """What can be found now."""

    def knows_caption(self, state: Path) -> bool:
        """Whether a text beside a photo is known to be about it."""


@dataclass(frozen=True)
class MmSearch:
    name: str = "mmsearch"
    note: str = "default model, EfficientNet-Lite2 and MiniLM"

    def missing(self) -> str | None:
        return None

    def index(self, folder: Path, state: Path) -> list[Command]:
        return [[sys.executable, "-m", "mmsearch", "index", str(folder), "--library", str(state / "library")]]

    def query(self, folder: Path, state: Path) -> Command:
        return [sys.executable, "-m", "mmsearch", "search", QUERY, "--library", str(state / "library"), "--paths"]

    def environment(self, state: Path) -> dict[str, str]:
        return {"MMSEARCH_HOME": str(state), "PYTHONPATH": str(ROOT)}

    def vectors(self, state: Path) -> Vectors:
        rows = _rows(
            state / "library" / "catalog.sqlite",
            "SELECT a.rel_path, v.mu FROM vectors v JOIN assets a ON a.id = v.asset_id "
            f"WHERE v.kind <> {HIDDEN} AND v.caption_id IS NULL AND a.modality = 'image' AND a.state = '{LIVE}'",
        )
        return {os.fsdecode(bytes(path)) if isinstance(path, bytes) else path: _float(mu, "<f2") for path, mu in rows}

    def knows_caption(self, state: Path) -> bool:
        return bool(_rows(state / "library" / "catalog.sqlite", "SELECT id FROM captions WHERE live"))


@dataclass(frozen=True)
class RClip:
    name: str = "rclip"
    note: str = "ViT-B/32 at 256 px, ONNX Runtime float32"
    home: Path = HOME / "rclip"

    def install(self) -> None:
        """Its environment, models of random weights, and the vocabulary out of another package."""
        pip = _environment(self.home, ["rclip==3.3.0"])
        _run([*pip, "download", "-q", "--no-deps", "-d", str(self.home), "open-clip-torch==3.3.0"])
        models = self.home / "models"
        (models / "tokenizer").mkdir(parents=True, exist_ok=True)
        (wheel,) = self.home.glob("open_clip_torch-*.whl")
        vocabulary = "open_clip/bpe_simple_vocab_16e6.txt.gz"
        with zipfile.ZipFile(wheel) as archive:
            (models / "tokenizer" / Path(vocabulary).name).write_bytes(archive.read(vocabulary))
        write_onnx_clip(models / "ViT-B-32-256-datacomp_s34b_b86k")

    def missing(self) -> str | None:
        return _not_installed(self.home, "bin/rclip", "models/ViT-B-32-256-datacomp_s34b_b86k/textual.onnx")

    def index(self, folder: Path, state: Path) -> list[Command]:
        """Indexing is what a query does first."""
        return [["env", "-C", str(folder), str(self.home / "bin" / "rclip"), "--filepath-only", QUERY]]

    def query(self, folder: Path, state: Path) -> Command:
        return [*self.index(folder, state)[0], "--no-indexing"]

    def environment(self, state: Path) -> dict[str, str]:
        for models in (self.home / "models").iterdir():
            if not (state / models.name).exists():
                (state / models.name).symlink_to(models)
        return {"RCLIP_DATADIR": str(state)}

    def vectors(self, state: Path) -> Vectors:
        rows = _rows(state / "db.sqlite3", "SELECT filepath, vector FROM images WHERE deleted IS NULL")
        return {path: _float(vector, "<f4") for path, vector in rows}

    def knows_caption(self, state: Path) -> bool:
        return False  # it has no place for one


@dataclass(frozen=True)
class ClipRetrieval:
    name: str = "clip-retrieval"
    note: str = "ViT-B/32, torch float32, batches of 16; torchvision stood in for"
    home: Path = HOME / "clip-retrieval"

    def install(self, torch: str) -> None:
        """Its environment. What its command line imports is installed with its needs, the tool itself without:
        torchvision, img2dataset and their trees are not wanted for this."""
        needs = [
            "numpy<2",
            "pandas<3",
            "pyarrow<16",
            "faiss-cpu<2",
            "transformers<5",
            "fire",
            "flask<4",
            "flask-restful",
        ]
        needs += ["flask-cors", "webdataset<0.3", "h5py", "prometheus-client", "fsspec", "wandb", "aiohttp", "ftfy"]
        needs += ["regex", "scipy", "braceexpand", "requests", "pillow", "scikit-learn", "setuptools<81", torch]
        pip = _environment(self.home, needs)
        tool = ["clip-retrieval==2.45.0", "all-clip==1.3.0", "clip-anytorch==2.6.0", "open-clip-torch<3"]
        tool += ["multilingual-clip==1.0.10", "autofaiss==2.18.0", "embedding-reader<2", "sentence-transformers<3"]
        _run([*pip, "install", "-q", "--no-deps", *tool])

    def missing(self) -> str | None:
        return _not_installed(self.home, "bin/clip-retrieval")

    def _start(self) -> Command:
        return [str(self.home / "bin" / "python"), str(LAUNCHER), str(self.home / "ViT-B-32.pt")]

    def index(self, folder: Path, state: Path) -> list[Command]:
        vectors, index = str(state / "vectors"), str(state / "index")
        encode = ["inference", "--input_dataset", str(folder), "--output_folder", vectors, "--batch_size", "16"]
        return [
            [*self._start(), *encode],
            [*self._start(), "index", "--embeddings_folder", vectors, "--index_folder", index],
        ]

    def query(self, folder: Path, state: Path) -> Command:
        found, index = str(state / "found"), str(state / "index")
        return [*self._start(), "filter", QUERY, found, index, "--num_results", "10"]

    def environment(self, state: Path) -> dict[str, str]:
        return {"WANDB_MODE": "disabled", "PYTHONPATH": "", "TOKENIZERS_PARALLELISM": "false"}

    def vectors(self, state: Path) -> Vectors:
        import pyarrow.parquet as parquet

        found: Vectors = {}
        for table in sorted((state / "vectors" / "metadata").glob("*.parquet")):
            number = table.stem.rpartition("_")[2]
            mus = np.load(state / "vectors" / "img_emb" / f"img_emb_{number}.npy").astype(np.float32)
            found |= dict(zip(parquet.read_table(table).column("image_path").to_pylist(), mus, strict=True))
        return found

    def knows_caption(self, state: Path) -> bool:
        return any((state / "vectors" / "text_emb").glob("*.npy"))


ST_SCRIPT = """
import sys, os, numpy
from PIL import Image
from sentence_transformers import SentenceTransformer
model, (how, folder, state) = SentenceTransformer(os.environ["CLIP"]), sys.argv[1:]
if how == "index":
    paths = sorted(os.path.join(folder, name) for name in os.listdir(folder))
    numpy.save(state + "/mu.npy", model.encode([Image.open(path) for path in paths], batch_size=32))
    open(state + "/names", "w").write("\\n".join(paths))
else:
    best = numpy.argsort(-(numpy.load(state + "/mu.npy") @ model.encode(how)))[:10]
    print(*(open(state + "/names").read().split("\\n")[at] for at in best), sep="\\n")
"""


@dataclass(frozen=True)
class SentenceTransformers:
    """No tool but a library: a script of a dozen lines, as its documentation has them; it keeps no state to lose."""

    name: str = "sentence-transformers, a script"
    note: str = "clip-ViT-B-32, torch float32, batches of 32"
    home: Path = HOME / "clip-ViT-B-32"

    def install(self) -> None:
        from transformers import CLIPConfig

        from tests.tiny_clip import IDS, write_clip

        write_clip(self.home, CLIPConfig(text_config=IDS))

    def missing(self) -> str | None:
        return None if (self.home / "config.json").exists() else f"no model in {self.home}; --install makes it"

    def index(self, folder: Path, state: Path) -> list[Command]:
        return [[sys.executable, "-c", ST_SCRIPT, "index", str(folder), str(state)]]

    def query(self, folder: Path, state: Path) -> Command:
        return [sys.executable, "-c", ST_SCRIPT, QUERY, str(folder), str(state)]

    def environment(self, state: Path) -> dict[str, str]:
        return {"CLIP": str(self.home), "HF_HUB_OFFLINE": "1"}

    def vectors(self, state: Path) -> Vectors:
        names = (state / "names").read_text().split("\n")
        return dict(zip(names, np.load(state / "mu.npy"), strict=True))

    def knows_caption(self, state: Path) -> bool:
        return False


def write_onnx_clip(folder: Path) -> None:
    """`visual.onnx` and `textual.onnx` of ViT-B/32 at 256 px with random weights, as rclip names their ends."""
    import torch
    from transformers import (
        CLIPTextConfig,
        CLIPTextModelWithProjection,
        CLIPVisionConfig,
        CLIPVisionModelWithProjection,
    )

    class Tower(torch.nn.Module):
        def __init__(self, model: torch.nn.Module, kind: str) -> None:
            super().__init__()
            self.model, self.kind = model.eval(), kind

        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return self.model(input)[f"{self.kind}_embeds"]  # type: ignore[no-any-return]

    folder.mkdir(parents=True, exist_ok=True)
    pictures = Tower(CLIPVisionModelWithProjection(CLIPVisionConfig(image_size=256)), "image")
    words = Tower(CLIPTextModelWithProjection(CLIPTextConfig(bos_token_id=49406, eos_token_id=49407)), "text")
    examples = torch.randn(2, 3, 256, 256), torch.randint(1, 49000, (2, 77))
    for name, tower, example in zip(("visual", "textual"), (pictures, words), examples, strict=True):
        torch.onnx.export(
            tower,
            (example,),
            str(folder / f"{name}.onnx"),
            input_names=["input"],
            output_names=["output"],
            dynamic_shapes={"input": {0: torch.export.Dim("batch")}},
            dynamo=True,
            verbose=False,
        )


def tools() -> tuple[Tool, ...]:
    return (MmSearch(), RClip(), ClipRetrieval(), SentenceTransformers())


def install(torch: str) -> None:
    """Everything below `.cache/side_by_side`; what is there already stays."""
    rclip, retrieval, script = RClip(), ClipRetrieval(), SentenceTransformers()
    for tool, work in ((rclip, rclip.install), (retrieval, lambda: retrieval.install(torch)), (script, script.install)):
        if tool.missing():
            print(f"installing {tool.name} into {tool.home}", file=sys.stderr)
            work()


def _environment(home: Path, packages: Sequence[str]) -> Command:
    """A fresh virtual environment with these packages; the beginning of a command for its pip."""
    shutil.rmtree(home, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(home)])
    pip = [str(home / "bin" / "python"), "-m", "pip"]
    _run([*pip, "install", "-q", *packages])
    return pip


def _run(command: Command) -> None:
    subprocess.run(command, check=True, stdout=sys.stderr)


def _not_installed(home: Path, *files: str) -> str | None:
    absent = [file for file in files if not (home / file).exists()]
    return f"no {absent[0]} in {home}; --install puts it there" if absent else None


def _rows(database: Path, query: str) -> list[tuple[object, ...]]:
    if not database.exists():
        return []
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        return connection.execute(query).fetchall()
    except sqlite3.OperationalError:  # interrupted before there were tables
        return []
    finally:
        connection.close()


def _float(blob: object, kind: str) -> np.ndarray:
    return np.frombuffer(blob, kind).astype(np.float32)  # type: ignore[call-overload,no-any-return]

"""A sentence-transformers folder is data or it is refused, before its packages see it, whichever version they have."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from safetensors.numpy import save_file

from mmsearch.errors import CheckpointError
from mmsearch.inference.backbone import Backbone
from mmsearch.inference.folder_checks import check_backbone_folder, check_tokenizer

TRANSFORMER = "sentence_transformers.models.Transformer"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As sentence-transformers saves one, in small."""
    made = tmp_path / "model"
    (made / "1_Dense").mkdir(parents=True)
    write(made, "modules.json", modules(TRANSFORMER) + modules("sentence_transformers.models.Dense", "1_Dense"))
    write(made, "config.json", {"model_type": "clip", "_name_or_path": "/home/x/clip", "architectures": ["CLIPModel"]})
    write(made, "sentence_bert_config.json", {"modality_config": {"image": {"method": "get_image_features"}}})
    write(made, "1_Dense/config.json", {"activation_function": "torch.nn.modules.linear.Identity"})
    write(made, "tokenizer.json", {"model": {"vocab": {"evil.py": 1, "auto_map": 2}}})
    (made / "pytorch_model.bin").write_bytes(b"beside the safetensors, never read")
    for name in ("model.safetensors", "1_Dense/model.safetensors"):
        save_file({"a": np.zeros(3, np.float32)}, made / name)
    return made


def modules(kind: str, path: str = "") -> list[dict[str, object]]:
    return [{"idx": 0, "name": "0", "path": path, "type": kind}]


def write(folder: Path, name: str, value: object) -> None:
    (folder / name).write_text(json.dumps(value))


def linked(name: str, target: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return change


def config(name: str, **values: object) -> Callable[[Path], None]:
    return lambda folder: write(folder, name, values)


REFUSED: dict[str, Callable[[Path], object]] = {
    "its own module": lambda f: write(f, "modules.json", modules("evil.Module")),
    "its own module in disguise": lambda f: write(
        f, "modules.json", modules("sentence_transformers_evil.models.Dense")
    ),
    "a module of theirs that runs names": lambda f: write(
        f, "modules.json", modules("sentence_transformers.models.WordEmbeddings")
    ),
    "something that is no module": lambda f: write(
        f, "modules.json", modules("sentence_transformers.util.import_from_string")
    ),
    "a module elsewhere": lambda f: write(f, "modules.json", modules(TRANSFORMER, "../other")),
    "a module at a root": lambda f: write(f, "modules.json", modules(TRANSFORMER, "/tmp")),
    "a module on a drive": lambda f: write(f, "modules.json", modules(TRANSFORMER, "C:\\models")),
    "a module that is no path": lambda f: write(f, "modules.json", [{"type": TRANSFORMER, "path": 3}]),
    "modules that are no list": lambda f: write(f, "modules.json", {"0": TRANSFORMER}),
    "ten thousand modules": lambda f: write(f, "modules.json", modules(TRANSFORMER) * 10_000),
    "code by auto_map": config("config.json", auto_map={"AutoModel": "evil--evil.Model"}),
    "code by auto_map deeper": config("config.json", text_config={"auto_map": ["evil.Model"]}),
    "code by _target_": config("processor_config.json", _target_="os.system"),
    "code that is trusted": config("sentence_bert_config.json", model_args={"trust_remote_code": True}),
    "a file of code": config("generation_config.json", custom="evil.py"),
    "arguments": config("sentence_bert_config.json", model_kwargs={"use_safetensors": False}),
    "another tokenizer": config("sentence_bert_config.json", tokenizer_name_or_path="/home/other"),
    "a method that is called": config("sentence_bert_config.json", modality_config={"text": {"method": "push_to_hub"}}),
    "an activation that is imported": config("1_Dense/config.json", activation_function="torch.hub.load"),
    "a kernel of the hub": config("config.json", attn_implementation="somebody/kernel"),
    "an adapter": config("adapter_config.json", base_model_name_or_path="somebody/model"),
    "shards elsewhere": config("model.safetensors.index.json", weight_map={"a": "../../other.safetensors"}),
    "shards as pickles": config("model.safetensors.index.json", weight_map={"a": "pytorch_model-1.bin"}),
    "weights as a pickle": lambda f: (f / "model.safetensors").unlink(),
    "weights of a layer as a pickle": lambda f: (f / "1_Dense/model.safetensors").unlink(),
    "weights with a long header": lambda f: (f / "model.safetensors").write_bytes((1 << 30).to_bytes(8, "little")),
    "a link out of it": linked("config.json", "/etc/passwd"),
    "a folder that is a link": linked("2_Pooling", "/tmp"),
    "a deep configuration": lambda f: (f / "config.json").write_text("[" * 500_000),
    "a tokenizer that grows": config(
        "tokenizer.json", normalizer={"type": "Replace", "pattern": {"Regex": "."}, "content": "x" * 500}
    ),
}


def test_what_is_data_passes(folder: Path) -> None:
    check_backbone_folder(folder)


@pytest.mark.parametrize("change", REFUSED)
def test_what_is_more_than_data_is_refused_before_the_packages_see_it(
    change: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    package = ModuleType("sentence_transformers")
    package.SentenceTransformer = lambda *given, **named: seen.append(given)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", package)
    REFUSED[change](folder)
    with pytest.raises(CheckpointError) as told:
        Backbone.load(str(folder))
    assert "\n" not in str(told.value)
    assert seen == []


def test_links_into_the_blobs_of_the_hubs_cache_are_followed(folder: Path, tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / "main", tmp_path / "models--a--b" / "blobs"
    blobs.mkdir(parents=True)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder)
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        path.rename(blobs / name.as_posix().replace("/", "-"))
        (snapshot / name).symlink_to(blobs / name.as_posix().replace("/", "-"))
    check_backbone_folder(snapshot)
    (tmp_path / "models--a--b" / "secret").write_text("{}")
    linked("config.json", "../../secret")(snapshot)
    with pytest.raises(CheckpointError, match="leads out of"):
        check_backbone_folder(snapshot)


@pytest.mark.parametrize(
    "normalizer",
    [
        None,
        {"type": "BertNormalizer", "lowercase": True},
        {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]},
        {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "},
        {"type": "Prepend", "prepend": "\u2581"},
        {"type": "Precompiled", "precompiled_charsmap": "AAAA" * 1000},
    ],
)
def test_tokenizers_as_they_are_pass(tmp_path: Path, normalizer: object) -> None:
    write(tmp_path, "tokenizer.json", {"normalizer": normalizer})
    check_tokenizer(tmp_path / "tokenizer.json")

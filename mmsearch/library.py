"""The composition root: a library on disk, a model and a configuration become `index`, `search`, `similar`.

In: a folder or a query. Out: an `IndexReport` or `Hit`s. The command line and a Python program enter here alike.
Next: `../indexer/store.py` for what is kept, `inference/load_model.py` for what is computed, `query/` for what lies
between.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, Literal, ParamSpec, TypeVar

from indexer.base.calls import Calls
from indexer.base.errors import SchemaOutdated
from indexer.base.plain_files import check_name
from indexer.base.types import Encoder, IndexReport, Modality, ProgressCallback
from indexer.files.excludes import Excludes, compiled
from mmsearch.config import Config, default_library, load_config
from mmsearch.errors import ConfigError, FolderNotFound, LibraryNotFound, QueryError
from mmsearch.model_choice import LibraryModel
from mmsearch.query.days import filters_of
from mmsearch.query.encode import check_query, encode_queries
from mmsearch.query.engine import QueryEngine
from mmsearch.query.everyday import everyday_texts
from mmsearch.query.hits import Hit

if TYPE_CHECKING:  # the catalog and the decoder are paid for when they are used, not when the name is imported
    from indexer.doctor import DoctorReport
    from indexer.maintenance.prune import PruneReport
    from indexer.store import SkippedFile, Status, Store
    from indexer.transfer.backup import CopyReport
    from indexer.vectors.choose import Device as SearchDevice
    from mmsearch.inference.pictures import Picture
    from mmsearch.tuning.tune import TuneReport

Device = Literal["auto", "cpu", "cuda"]

_P = ParamSpec("_P")
_T = TypeVar("_T")

log = logging.getLogger(__name__)


def _call(method: Callable[Concatenate[Library, _P], _T]) -> Callable[Concatenate[Library, _P], _T]:
    """A method that `Library.close`, called by another thread, waits for."""

    @wraps(method)
    def call(library: Library, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        with library._calls.running():
            return method(library, *args, **kwargs)

    return call


class Library:
    """Pictures and texts on disk with their vectors. Open with `Library.open`; usable as a context manager.

    Nothing is read before it is needed: the folder of the library at the first call, the model at the first call
    that computes. `status`, `errors` and `similar` of an indexed file never load the model. Threads may share
    a library.
    """

    def __init__(self, path: Path, model: str | Path | Encoder | None, device: Device, config: Config) -> None:
        self.path = path
        self.config = config
        self._model = LibraryModel(model, config.model, device)
        self._device = device
        self._store: Store | None = None
        self._opening = threading.Lock()
        self._calls = Calls()
        self._queries = QueryEngine(path, self._model, _search_device(config, device), self._open_store)

    @classmethod
    def open(
        cls,
        path: str | Path | None = None,
        *,
        model: str | Path | Encoder | None = None,
        device: Device = "auto",
        config: Config | None = None,
    ) -> Library:
        """A library, there already or to be made by the first `index`.

        Args:
            path: its folder; None is the configured one, else `$MMSEARCH_HOME/library` or the platform's folder.
            model: a name or path for `load_model`, or a loaded model. None is the model the library was written with,
                and for a new library the configured one.
            device: `auto`, `cpu` or `cuda`, for the model and the search; `auto` is the configured one.
            config: the configuration; None reads the user's `config.toml`.

        Raises:
            ConfigError: the configuration cannot be read, or `path` is an address.
            LibraryError: the folder's name is too long, or not UTF-8.
        """
        config = load_config() if config is None else config
        folder = Path(path).expanduser() if path is not None else config.library or default_library()
        if scheme := re.match(r"([a-z][a-z0-9+]+):[/\\]", str(folder)):
            raise ConfigError(
                f"the library is an address ({scheme[1]}), and must be a folder: the catalog is a SQLite file"
            )
        check_name(folder)
        return cls(folder, model, config.device if device == "auto" else device, config)

    @_call
    def index(
        self,
        folder: str | Path,
        progress: ProgressCallback | None = None,
        *,
        exclude: Sequence[str] = (),
        follow_links: bool | None = None,
    ) -> IndexReport:
        """Bring the library up to date with `folder`: new, changed, moved and unreadable files.

        Where `open` was given another model than wrote the library, all of it is encoded with that model first, beside
        the old vectors, which answer until the last is there; a run that was cut off goes on where it was.

        Args:
            folder: absolute or not; one that is known and offline is counted and left alone.
            progress: told after every file.
            exclude: patterns as in a .gitignore, relative to `folder`, for this run alone. What is in the library and
                excluded now is hidden like a file that is gone, and returns unread when it is not excluded any more.
            follow_links: whether links that lead out of `folder` are followed from now on; None leaves that as it is.
                At first they are not: `errors` lists them, and what was found behind them before stays.

        Raises:
            ConfigError: a pattern of `exclude` is not valid.
            FolderNotFound: `folder` is not there.
            LibraryLocked: another process is writing.
            LibraryError: another model was asked for while a folder is offline.
            ModelMismatch: the model's name stands for other weights now; name it to go over to them.
            ModelNotNamed: another person's model wrote the library; likewise in every call that needs the model.
        """
        folder = Path(folder).expanduser()
        _check_patterns(exclude)
        # before a library is made or a model loaded: the name may be mistyped
        if not folder.is_dir() and not self._is_offline(folder):
            found = "is not a folder" if folder.exists() else "does not exist"
            raise FolderNotFound(f"{folder} {found}; give a folder with pictures or texts")
        try:
            store = self._open_store()
        except LibraryNotFound:
            self._model.load(
                None, may_download=True
            )  # first, so that a model that cannot be loaded leaves no empty library behind
            store = self._open_store(create=True)
        except SchemaOutdated:
            store = self._open_store(create=True)  # made by a run that ended at once
        store.name(folder, follow_links=follow_links)
        changed = self._change_model(store, progress)
        encoder = self._model.load(store.model())
        excludes = Excludes(tuple(exclude), self.config.exclude)
        report = store.ingest(folder, encoder, progress=progress, batch_size=self.config.batch_size, excludes=excludes)
        if store.wants_questions():
            store.keep_questions(encode_queries(encoder, everyday_texts()).mu, encoder.fingerprint)
        if changed is None:
            return report
        return replace(report, encoded=report.encoded + changed.encoded, seconds=report.seconds + changed.seconds)

    @_call
    def search(
        self,
        text: str | None = None,
        image: Picture | None = None,
        k: int = 10,
        within: Modality | None = None,
        *,
        folder: str | Path | None = None,
        since: str | date | None = None,
        until: str | date | None = None,
    ) -> list[Hit]:
        """The `k` files nearest to some words, a picture, or both (fused by the product of experts).

        Args:
            text: what to look for.
            image: a path, a PIL image or a uint8 array `[h, w, 3]`.
            k: how many hits, at least 1.
            within: `image` or `text` to find only those.
            folder: only what lies at or below it.
            since: only pictures taken on this day or later: a date, or `2019`, `2019-05`, `2019-05-31`.
            until: only pictures taken on this day or before, likewise; a month or a year to its last day.

        Raises:
            QueryError: nothing to search for, `k` below 1, or days that are none.
            LibraryNotFound: nothing was indexed yet.
            LibraryError: nothing of `folder` is in the library.
            ModelMismatch: the library was written with another model.
        """
        check_query(text, image, k)
        return self._queries.search(text, image, k, within, filters_of(folder, since, until))

    @_call
    def search_many(
        self,
        texts: Sequence[str],
        k: int = 10,
        within: Modality | None = None,
        *,
        folder: str | Path | None = None,
        since: str | date | None = None,
        until: str | date | None = None,
    ) -> list[list[Hit]]:
        """`search` for many texts at once, in a fraction of the time: for each its hits, in the order of `texts`.

        `k`, `within`, `folder`, `since` and `until` are those of `search`, and so are the errors: QueryError also for
        one empty text among `texts`, which may itself be empty.
        """
        for text in texts:
            check_query(text, None, k)
        return self._queries.search_many(texts, k, within, filters_of(folder, since, until))

    @_call
    def similar(
        self,
        path: str | Path,
        k: int = 10,
        within: Modality | None = None,
        *,
        folder: str | Path | None = None,
        since: str | date | None = None,
        until: str | date | None = None,
    ) -> list[Hit]:
        """The `k` files nearest to a file, itself not among them. An indexed file needs no model.

        `within`, `folder`, `since` and `until` are those of `search`, and scores are those of a search for the file.

        Raises:
            QueryError: no such file, `k` below 1, or days that are none.
            LibraryNotFound: nothing was indexed yet.
            LibraryError: nothing of `folder` is in the library.
        """
        path = Path(path).expanduser()
        check_query(None, path, k)
        return self._queries.similar(path, k, within, filters_of(folder, since, until))

    @_call
    def status(self) -> Status:
        """What the library holds. Never loads the model."""
        return self._open_store().status()

    @_call
    def errors(self) -> list[SkippedFile]:
        """The files that were skipped, each with its reason. Never loads the model."""
        return self._open_store().errors()

    @_call
    def relocate(self, old: str | Path, new: str | Path) -> int:
        """Tell the library that an indexed folder is elsewhere now; returns how many files are found there.

        Every file keeps its vector, and the model is not loaded. Raises: FolderNotFound: `new` is not there;
        LibraryError: `old` is no indexed folder, `new` is one already, or none of the files is there.
        """
        return self._open_store().relocate(Path(old).expanduser(), Path(new).expanduser())

    @_call
    def prune(
        self,
        folder: str | Path | None = None,
        *,
        dry_run: bool = False,
        offline: bool = False,
        excluded: bool = False,
    ) -> PruneReport:
        """Forget files that are gone for good: the only call that removes anything. Never loads the model.

        Files of folders that are offline stay, and so do those whose folder is there and empty, as a mount point is
        without its drive, unless `folder` names that folder.

        Args:
            folder: look only at what is at or below it; None is the whole library.
            dry_run: say what would go, and change nothing.
            offline: forget the offline folders at or below `folder`, which has to be given: a disk that is lost.
            excluded: forget also what is still on disk and hidden, because it is excluded now.

        Raises:
            LibraryError: nothing of `folder` is in the library.
        """
        if offline and folder is None:
            raise QueryError("to forget offline folders name one: 'mmsearch prune --offline FOLDER'")
        path = None if folder is None else Path(folder).expanduser()
        return self._open_store().prune(path, dry_run=dry_run, offline=offline, excluded=excluded)

    @_call
    def backup(self, dest: str | Path) -> CopyReport:
        """Copy the library to a new folder, itself a library then; other processes may index and search meanwhile.

        Raises: LibraryError: there is something at `dest`, or it cannot be written.
        """
        return self._open_store().backup(Path(dest).expanduser())

    @_call
    def export(self, dest: str | Path) -> CopyReport:
        """Write the library as files that any program reads, a folder, or one file where the name ends in `.tar`.

        Parquet for the rows, safetensors for the vectors; needs pyarrow, the extra `archive`. Raises: as `backup`.
        """
        return self._open_store().export(Path(dest).expanduser())

    @_call
    def import_(self, source: str | Path) -> CopyReport:
        """Make this library, which must not be there yet, from what `export` wrote. The archive need not be trusted.

        Raises:
            LibraryError: the library is there, or `source` is not.
            LibraryCorrupt: the archive is damaged, or holds what no archive holds; nothing is left behind.
        """
        from indexer.transfer.restore import restore

        return restore(Path(source).expanduser(), self.path)

    @_call
    def doctor(self, *, repair: bool = False, sample: int = 32) -> DoctorReport:
        """Check everything the library keeps: database, references, vectors, index file, a sample against the model.

        Args:
            repair: mend what can be mended without loss. Vectors that are wrong are encoded again; a damaged database
                or index file is kept beside the new one.
            sample: how many files and captions are encoded again and compared; 0 never loads the model.

        Raises:
            LibraryNotFound: nothing was indexed yet.
            LibraryLocked: something has to be mended while another process writes.
        """
        from indexer.doctor import visit

        def load(store: Store) -> Encoder:
            model = store.model()
            return self._model.load(None) if model is None else self._model.load_matching(model, self.path)

        self.close()
        try:
            return visit(self.path, load, repair=repair, sample=sample, batch_size=self.config.batch_size)
        finally:
            self.close()  # it may be another database now

    @_call
    def rebuild(self, progress: ProgressCallback | None = None) -> IndexReport:
        """Encode every file that the model given to `open` has not encoded yet, and make it the library's model."""
        store = self._open_store()
        encoder = self._model.load(store.model(), may_download=True)
        return store.rebuild(encoder, progress=progress, batch_size=self.config.batch_size)

    @_call
    def fit_heads(self, folder: str | Path) -> Path:
        """Closed-form heads (probabilistic PCA) on the vectors of a library that a bare backbone wrote.

        Returns the model folder, which `rebuild` takes next. Raises: LibraryNotFound: nothing was indexed yet;
        ModelError: the library's model has heads already, or it holds too few images or texts.
        """
        from mmsearch.inference.library_heads import fit_library_heads
        from mmsearch.inference.load_model import torch_device

        return fit_library_heads(self.path, Path(folder).expanduser(), device=torch_device(self._device))

    @_call
    def tune(
        self,
        folder: str | Path | None = None,
        *,
        rebuild: bool = True,
        dry_run: bool = False,
        progress: ProgressCallback | None = None,
    ) -> TuneReport:
        """Fit the heads of the library's model on the library's own captions; needs torch, takes minutes.

        Searches answer from the old vectors until every file has a new one. A call that was cut off goes on where it
        was, given the same arguments.

        Args:
            folder: where the tuned model goes; None is a new folder inside the library.
            rebuild: encode the library with the tuned model at once; else `rebuild` with `model=folder` does later.
            dry_run: measure only; nothing is written.

        Raises:
            DataError: too few photos with captions.
            LibraryNotFound: nothing was indexed yet.
            ModelError: the library's model has no heads of its own, or `folder` holds something else.
            ModelMismatch: the model's folder holds other weights than wrote the library.
        """
        from mmsearch.inference.load_model import torch_device
        from mmsearch.tuning.tune import tune_library

        store = self._open_store()
        report = tune_library(store, folder, dry_run=dry_run, device=torch_device(self._device))
        if report.model is None or not rebuild:
            return report
        self._model.change_to(report.model)
        stored = store.model()
        if stored is not None and self._model.load(stored).fingerprint == stored.fingerprint:
            return report
        rebuilt = self.rebuild(progress)
        return replace(report, encoded=rebuilt.encoded, seconds=report.seconds + rebuilt.seconds)

    def serve(self, idle_s: float = 600.0, ready: Callable[[Path], None] | None = None) -> None:
        """Answer each `mmsearch search` of this user on this library, warm, until `idle_s` seconds without a question.

        0 seconds are for ever; `ready` is called with the socket's path once questions are heard. In the main thread
        SIGTERM and Ctrl-C end it, too, when what was asked is answered. Raises:
        LibraryLocked: it is served already; LibraryNotFound: nothing was indexed yet.
        """
        from mmsearch.server.serve import serve

        serve(self, idle_s, ready)

    def reopen(self) -> None:
        """Forget what was read, also a model that was not given as an object: for a library replaced on disk."""
        with self._calls.closing():
            self._give_back()
            self._model.forget()

    def close(self) -> None:
        """Give files and locks back. The library may be used again and opens itself again.

        Calls of other threads that are running end first; one that takes more than ten seconds, as `index` may, goes on
        and gives its files back when it ends.
        """
        with self._calls.closing():
            self._give_back()

    def __enter__(self) -> Library:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _give_back(self) -> None:
        self._queries.close()
        with self._opening:
            store, self._store = self._store, None
        if store is not None:
            store.close()

    def _open_store(self, create: bool = False) -> Store:
        from indexer.store import Store

        with self._opening:
            if self._store is None:
                self._store = Store.open(self.path, create=create)
            return self._store

    def _is_offline(self, folder: Path) -> bool:
        try:
            return self._open_store().is_offline(folder)
        except (LibraryNotFound, SchemaOutdated):
            return False

    def _change_model(self, store: Store, progress: ProgressCallback | None) -> IndexReport | None:
        """Where another model was asked for by name than wrote the library: everything encoded with it, then a switch.

        A model that differs under the name it had, as after an update, was not asked for: `ingest` refuses it.
        """
        stored = store.model()
        if self._model.requested is None or stored is None:
            return None
        asked = self._model.load(stored, may_download=True)
        if asked.fingerprint == stored.fingerprint:
            return None
        log.warning(
            "the library goes over from model '%s' to '%s': every file is encoded again, searches answer from the "
            "old one until all are; interrupted, the same command goes on",
            *(stored.name, asked.name),
        )
        return self.rebuild(progress)


def _search_device(config: Config, device: Device) -> SearchDevice:
    """Where vectors are searched: the device, with what the configuration says of its copy of them."""
    if config.gpu_index == "off" or device == "cpu":
        return "cpu"
    if config.gpu_index == "auto":
        return device
    from indexer.vectors.gpu import Gpu

    return Gpu(config.gpu_index, after=0 if device == "cuda" else Gpu.after)


def _check_patterns(patterns: Sequence[str]) -> None:
    try:
        if patterns:
            compiled(patterns)
    except ValueError as error:
        raise ConfigError(str(error)) from error

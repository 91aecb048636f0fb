"""The exceptions of the whole project in one tree; `mmsearch/errors.py` adds those that concern models.

    MMSearchError
    ├── LibraryError            the state on disk
    │   ├── LibraryNotFound     nothing indexed there yet
    │   ├── LibraryLocked       another process is writing
    │   ├── LibraryClosed       it was closed while it was used
    │   ├── LibraryCorrupt      a file of the library cannot be read
    │   │   └── RowCorrupt      a row of its catalog holds what no such row can
    │   ├── SchemaOutdated      the catalog has the tables of another version
    │   │   └── SchemaOlder     they are an older version's, and are brought up to date when the library is opened
    │   ├── ModelMismatch       the library was made with another model
    │   │   └── ModelNotNamed   that model was never named by this user
    │   ├── NotPlainFile        a link or a device in the place of a file of the library
    │   └── DimensionMismatch   vectors have another length
    ├── FolderNotFound          the folder to index is not there
    └── DecodeError             one file could not be read as its type; recorded as a skip
        └── DecodeInterrupted   its decoder was ended from outside; the file is worth another try

A message is one line: what was found, what was expected, what to type next. Next: `types.py`.
"""

from __future__ import annotations


class MMSearchError(Exception):
    """Root of every error this project raises on purpose."""


class LibraryError(MMSearchError):
    """The library on disk is not usable as asked."""


class LibraryNotFound(LibraryError):
    """No library at this place."""


class LibraryLocked(LibraryError):
    """Another process holds the writer's lock."""


class LibraryClosed(LibraryError):
    """The library was closed by another thread while this one used it."""


class LibraryCorrupt(LibraryError):
    """A file of the library does not hold what it should."""


class RowCorrupt(LibraryCorrupt):
    """A row of the catalog holds what no such row can; the doctor sets it aside."""


class SchemaOutdated(LibraryError):
    """The catalog has the tables of another version, and this process may not change them."""


class SchemaOlder(SchemaOutdated):
    """The catalog has tables of an older version, which can be brought up to date."""


class ModelMismatch(LibraryError):
    """The library's vectors come from another model."""


class ModelNotNamed(ModelMismatch):
    """The library's vectors come from a model that this user never named: a library cannot choose what is loaded."""


class NotPlainFile(LibraryError):
    """In the place of a file of a library there is a link, a device, a pipe or a file with a second name."""


class DimensionMismatch(LibraryError):
    """Vectors and index have different lengths."""


class FolderNotFound(MMSearchError):
    """The folder to index does not exist or is not a folder."""


class DecodeError(MMSearchError):
    """One file could not be decoded."""


class DecodeInterrupted(DecodeError):
    """The decoder of a file was killed, stopped or not started, which says nothing of the file."""

"""Measurements, on demand. They have a home of their own: nothing of the person who runs them is read or written."""

import os
import tempfile

if "MMSEARCH_HOME" not in os.environ:
    _home = tempfile.TemporaryDirectory(prefix="mmsearch-bench-")  # removed when the process ends
    os.environ["MMSEARCH_HOME"] = _home.name

"""Close a library again and again while threads search it: `python -m tests.e2e.closing LIBRARY PHOTO ROUNDS HOW`.

`HOW` is what is closed: `close`, `reopen`, `doctor`, `queries`, `searcher` or `store`. Prints how many calls were
answered; a wrong answer or any error but LibraryClosed ends it, and so would a crash.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from mmsearch import Library, LibraryClosed
from tests.fakes import FakeEncoder

THREADS = 4
ROUND_S = 0.005


def closer(library: Library, how: str) -> Callable[[], object]:
    def of_searcher() -> None:
        if (searcher := library._queries._searcher) is not None:
            searcher.close()

    def of_store() -> None:
        if (store := library._store) is not None:
            store.close()

    ways: dict[str, Callable[[], object]] = {
        "close": library.close,
        "reopen": library.reopen,
        "doctor": lambda: library.doctor(sample=0),
        "queries": library._queries.close,
        "searcher": of_searcher,
        "store": of_store,
    }
    return ways[how]


def main(path: Path, photo: Path, rounds: int, how: str) -> int:
    library = Library.open(path, model=FakeEncoder(name="default"))
    expected = [library.search("red", k=50), library.similar(photo), library.errors()]
    over, answered, failed = threading.Event(), [0] * THREADS, []

    def ask(number: int) -> None:
        while not over.is_set():
            try:
                if [library.search("red", k=50), library.similar(photo), library.errors()] != expected:
                    failed.append("another answer")
            except LibraryClosed:
                continue
            except BaseException as error:
                failed.append(repr(error))
                return
            answered[number] += 1

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    close = closer(library, how)
    for _ in range(rounds):
        close()
        time.sleep(ROUND_S)
    over.set()
    for thread in threads:
        thread.join(30)
    print(sum(answered), *sorted(set(failed)))
    return 1 if failed or not all(answered) else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))

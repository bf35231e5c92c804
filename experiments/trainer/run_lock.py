"""One process at a time in a run's folder, by a lock that ends with the process that holds it."""

import contextlib
import os
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


def take_lock(path: Path) -> IO[bytes] | None:
    """Lock a file that is made for it.

    Args:
      path: of the lock file, in a folder that exists.

    Returns:
      What `release_lock` takes, or None where another process (or this one) has the lock.
    """
    while True:
        file = open(path, "ab")
        if not _lock(file):
            file.close()
            return None
        # The process that had the lock removes the file before it lets go: then it is another one.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(path), os.fstat(file.fileno())):
                return file
        file.close()


def release_lock(file: IO[bytes]) -> None:
    """Let others take it."""
    with contextlib.suppress(OSError):  # a folder that is gone; Windows removes no open file
        os.unlink(file.name)
    file.close()


def _lock(file: IO[bytes]) -> bool:
    if fcntl is None:
        import msvcrt

        lock, how = getattr(msvcrt, "locking"), getattr(msvcrt, "LK_NBLCK")  # noqa: B009
        try:
            file.seek(0)
            lock(file.fileno(), how, 1)
        except OSError:
            return False
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True

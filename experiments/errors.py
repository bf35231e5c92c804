"""What a user can do wrong, or a machine: reported as one line, without a traceback."""

import codecs
import contextlib
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

FAILED, INTERRUPTED = 2, 130  # exit codes


class ExperimentError(Exception):
    """An error whose message is all that a user needs to see."""


# What stands for the characters of tables and messages where a stream cannot encode them.
_PLAIN = {"±": "+-", "–": "-", "−": "-", "Δ": "D", "×": "x", "→": "->", "‖": "|", "…": "..."}


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_PLAIN.get(character, "?") for character in text), error.end


codecs.register_error("plain", _plain)


@contextlib.contextmanager
def program(name: str) -> Iterator[None]:
    """The boundary of a command: what goes wrong inside becomes one line and an exit code.

    Args:
      name: of the command, at the head of the line.

    Raises:
      SystemExit: 2 after the line for an `ExperimentError`, an error of the operating system or
        memory that does not suffice; 130 after Ctrl-C.
    """
    _open_streams()
    logging.getLogger("absl").addFilter(_without_traceback)
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _unraisable
    try:
        with _ends_at_once(name):
            yield
            _flush()
    except ExperimentError as error:
        _fail(name, str(error))
    except OSError as error:
        _fail(name, of_system(error))
    except MemoryError:
        _fail(name, "not enough memory")
    except UnicodeError as error:
        _fail(name, f"text that cannot be encoded ({error})")
    except SystemExit as stop:
        if stop.code not in (0, None):
            raise
        try:
            _flush()
        except OSError as error:
            _fail(name, of_system(error))
        raise
    except Exception as error:
        if type(error).__name__ != "JaxRuntimeError":  # of a device: mostly of its memory
            raise
        _fail(name, first_line(error))
    except KeyboardInterrupt:
        _say(f"{name}: {_CONTINUES}")
        sys.exit(INTERRUPTED)


def _without_traceback(record: logging.LogRecord) -> bool:
    """The checkpoint library logs what it raises as well, from every thread."""
    return not record.exc_info


def _unraisable(problem: Any) -> None:
    """Without what tensorstore's threads tell an event loop that ended at an earlier error."""
    if "Event loop is closed" not in str(problem.exc_value):
        sys.__unraisablehook__(problem)


_CONTINUES = "interrupted; the same command continues"


def of_system(error: OSError) -> str:
    """An error of the operating system in one line."""
    reason = error.strerror or first_line(error)
    return f"{error.filename}: {reason}" if error.filename else reason


def first_line(error: BaseException) -> str:
    """What an error says, shortened to one line; its type where it says nothing."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever fails inside on what files hold becomes an ExperimentError that names them."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise ExperimentError(f"{path}: not as a run wrote it ({reason})") from error


def _fail(name: str, message: str) -> NoReturn:
    _say(f"{name}: {' '.join(message.split())}")
    with contextlib.suppress(OSError, ValueError):
        _flush()
        sys.exit(FAILED)
    # The stream takes nothing, and Python would complain when it tries again at the end.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(FAILED)


def _say(line: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _open_streams() -> None:
    for number in range(3):  # or the next file that is opened would get what is logged
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="plain")


@contextlib.contextmanager
def _ends_at_once(name: str) -> Iterator[None]:
    """Ctrl-C ends the process where it is: a run survives that, threads half-way through do not."""
    mine = threading.current_thread() is threading.main_thread()
    if not mine or signal.getsignal(signal.SIGINT) not in (signal.default_int_handler, _at_start):
        yield
        return

    def end(*_: Any) -> None:
        os.write(2, f"\n{name}: {_CONTINUES}\n".encode())
        os._exit(INTERRUPTED)

    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _at_start(*_: Any) -> None:
    os._exit(INTERRUPTED)


def quiet_start() -> None:
    """Ctrl-C while a command is still importing what it needs: an exit code, no traceback."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _at_start)

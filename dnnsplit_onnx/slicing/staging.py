"""A folder that appears whole or not at all.

What is written goes to `new` in a temporary folder beside the output, `.NAME.tmp-` and random
characters, and is renamed into place when it is complete. With `force`, the old output is renamed to
`old` in the temporary folder first, and deleted last.

The temporary folder is locked while it is in use. A run that is killed leaves its folder
unlocked, and the next run with the same output deletes it, or first puts `old` back, if the
run was killed between the two renames.

Nothing is forced to disk: a copy is not, either, and would be several times slower. After a
power cut, the checksums in the manifest find a file that never arrived.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dnnsplit_onnx.errors import OutputError

# How often a run that may replace an output begins again because another one has just done so.
_TRIES = 100


@contextmanager
def staged_folder(
    output: str | Path, *, force: bool, ours: Callable[[Path], bool], keep: Iterable[Path]
) -> Iterator[Path]:
    """A new folder to write to, which becomes `output` if all goes well.

    Args:
        output: The folder to make.
        force: Whether an existing one may be replaced.
        ours: Whether a folder is one that this tool wrote, so that replacing it loses
            nothing else.
        keep: Files that must not be lost with the old output.

    Raises:
        OutputError: The output exists and may not be replaced, or cannot be written.
    """
    target = Path(output).resolve()  # a link is followed, so that it still leads to the output
    _check_target(target, force, ours, keep)
    made = _make_parents(target.parent)
    try:
        with _locked_folder(target) as work:
            new = work / "new"
            new.mkdir()
            yield new
            for _ in range(_TRIES):
                _check_target(target, force, ours, keep)
                if _swap(new, work / "old", target, replace=force):
                    return
            raise OutputError(f"other runs keep replacing `{target}`", hint="choose another folder")
    except OSError as error:
        _remove_parents(made)
        raise _as_output_error(error, target) from error
    except BaseException:
        _remove_parents(made)
        raise


def _check_target(target: Path, force: bool, ours: Callable[[Path], bool], keep: Iterable[Path]) -> None:
    if not os.path.lexists(target):
        return
    if not force:
        raise OutputError(
            f"output exists: `{target}`", hint="pass --force to replace it, or choose another folder"
        )
    try:
        empty = not any(target.iterdir())
    except FileNotFoundError:  # another run replaces it at this moment
        return
    except NotADirectoryError:
        raise OutputError(f"output is a file: `{target}`", hint="choose another folder") from None
    if not empty and not ours(target) and target.exists():
        raise OutputError(
            f"will not replace `{target}`: it holds no manifest, so it is not a folder of slices",
            hint="choose another folder, or remove it yourself",
        )
    for path in keep:
        if path.resolve().is_relative_to(target):
            raise OutputError(
                f"will not replace `{target}`: the model itself lies in it, `{path.name}`",
                hint="choose another folder",
            )


def _swap(new: Path, old: Path, target: Path, *, replace: bool) -> bool:
    """Puts the new folder in the place of the old one, or leaves the old one there.

    Args:
        new: The folder that was written.
        old: Where one that is there is put.
        target: The place.
        replace: Whether one that is there may go. If not, one that has come since the check stays:
            a folder does not take the place of another that holds files.

    Returns:
        Whether it is in place; not if another run has made or replaced the target meanwhile.
    """
    try:
        if replace and target.exists():
            shutil.rmtree(old, ignore_errors=True)  # of an earlier try; another run's output took its place
            target.rename(old)
        new.rename(target)
    except BaseException as error:
        with suppress(OSError):  # none was moved, or another run's output is in its place
            old.rename(target)
        met = isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST)
        if met and new.exists():
            return False
        raise
    return True


@contextmanager
def _locked_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside the target, locked; those of dead runs are cleared away."""
    prefix = f".{target.name}.tmp-"
    for stale in target.parent.glob(f"{_escaped(prefix)}*"):
        _clear_stale(stale, target)
    while True:
        work = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
        # Another run may take it for stale before it is locked, and delete it.
        try:
            descriptor = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        if _lock(descriptor) and work.exists():
            break
        os.close(descriptor)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        os.close(descriptor)


def _clear_stale(stale: Path, target: Path) -> None:
    with suppress(OSError):  # another run's, or another user's: no business of ours
        descriptor = os.open(stale, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if not _lock(descriptor):
                return
            if (stale / "old").is_dir() and not target.exists():
                (stale / "old").rename(target)
            shutil.rmtree(stale, ignore_errors=True)
        finally:
            os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)  # a file system without locks
    return True


def _escaped(text: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in text)


def _make_parents(folder: Path) -> list[Path]:
    """Makes a folder and those above it; returns the ones that were not there, deepest first."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    try:
        for path in reversed(missing):
            path.mkdir(exist_ok=True)
    except OSError as error:
        raise _as_output_error(error, missing[0]) from error
    return missing


def _remove_parents(made: list[Path]) -> None:
    for path in made:
        with suppress(OSError):  # not empty: someone else uses it by now
            path.rmdir()


def _as_output_error(error: OSError, target: Path) -> OutputError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(
            f"the disk is full: cannot write `{target}`",
            hint="free some space, or choose a folder on another disk",
        )
    return OutputError(f"cannot write `{target}`: {error.strerror or error}")

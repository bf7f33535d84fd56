"""A tier's files on the machine that runs it: sent over ssh, checked there, switched at once.

    PATH/versions/ID/manifest.json    what a tier needs: the manifest, and the tier's folder
    PATH/versions/ID/TIER/...
    PATH/current -> versions/ID       what `serve PATH/current/TIER` opens
    PATH/previous -> versions/ID      what was there before, to go back to

ID is the digest of the files, so the same files are sent once. They go into a folder that no tier
reads, by rsync where both sides have it and by sftp elsewhere; what an earlier version has already
is linked there and not sent again, and what an interrupted shipment left is taken up. Only when the
far side's own digests are the right ones is the folder given its name, and only then is the link
switched. A tier that runs keeps the files that it has opened until it is restarted.

The far side needs a POSIX shell, ssh, and one of sha256sum, shasum and openssl. Nothing is installed.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from dnnsplit_onnx.errors import InputError, OutputError
from dnnsplit_onnx.files import file_sha256
from dnnsplit_onnx.slicing.checking import check_files
from dnnsplit_onnx.slicing.manifest import FILE_NAME, Manifest, load_manifest

#: Called with a phrase for each step.
Progress = Callable[[str], None]

_VERSIONS = "versions"
_SHORT = 16  # digits of a digest that name a version
_CONNECT_S = 20
# What rsync says by its exit code where the far side went away before it could say more.
_RSYNC = {11: "a file cannot be written there; is there room?", 12: "the connection was lost"}
_TARGET = re.compile(r"^(?P<host>(?:[^:@\[\]/]+@)?(?:[^:@\[\]/]+|\[[^\]]+\])):(?P<path>.+)$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Target:
    """A folder on another machine.

    Attributes:
        host: As ssh takes it, `user@host` or a name of its configuration.
        path: The folder there; relative ones start at the user's home.
        ssh: The command that opens a connection, with its options.
    """

    host: str
    path: str
    ssh: tuple[str, ...] = ("ssh",)

    @classmethod
    def parse(cls, text: str, ssh: str = "ssh") -> Target:
        """A target from `HOST:PATH`.

        Raises:
            InputError: It has another form.
        """
        match = _TARGET.match(text)
        hint = "write it as in pi@camera-1:/opt/tiers"
        if match is None or match["host"].startswith("-") or not text.isprintable():
            raise InputError(f"cannot read the target `{text}`", hint=hint)
        path = match["path"].rstrip("/") or "/"
        if path.startswith("-"):
            path = f"./{path}"
        return cls(match["host"], path, tuple(shlex.split(ssh)))

    def __str__(self) -> str:
        return f"{self.host}:{self.path}"


@dataclass(frozen=True, slots=True)
class Shipment:
    """What was sent.

    Attributes:
        tier: The tier.
        target: Where to, as `HOST:PATH`.
        version: The name of the version that `current` leads to now.
        files: Its files, relative to the version's folder, each with its SHA-256.
        sent_nbytes: Bytes of the files that were sent, not those found there.
        previous: The version that was current before; None if there was none.
        is_new: Whether it was not current already.
    """

    tier: str
    target: str
    version: str
    files: tuple[tuple[str, str], ...]
    sent_nbytes: int
    previous: str | None
    is_new: bool

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return {
            "tier": self.tier,
            "target": self.target,
            "version": self.version,
            "files": [{"file": name, "sha256": digest} for name, digest in self.files],
            "sent_nbytes": self.sent_nbytes,
            "previous": self.previous,
            "is_new": self.is_new,
        }


def ship(folder: str | Path, tier: str, target: Target, *, progress: Progress | None = None) -> Shipment:
    """Sends a tier's files, checks them there, and makes them current.

    Args:
        folder: The folder that `split` wrote.
        tier: Whose files.
        target: Where to.
        progress: Told each step.

    Raises:
        ManifestError: The folder's files are not those of its manifest.
        InputError: There is no such tier, or it has no work.
        OutputError: The far side cannot be reached or cannot take the files. What was current there
            still is, and the same call resumes.
    """
    told = progress or (lambda _: None)
    place = Path(folder)
    manifest = load_manifest(place)
    files = tier_files(place, manifest, tier)
    told("hashing")
    digests = tuple((name, file_sha256(place / name)) for name in files)
    version = hashlib.sha256(repr(digests).encode()).hexdigest()[:_SHORT]
    far = _Far(target)
    told("asking")
    state = far.ask(version, digests)
    if state.complete:
        previous, is_new = far.switch(version)
        return Shipment(tier, str(target), version, digests, 0, previous, is_new)
    missing = tuple(name for name in files if name not in state.there)
    told("sending")
    far.send(place, missing, version)
    told("checking")
    _check(far, target, version, digests)
    previous, is_new = far.switch(version)
    sent = sum((place / name).stat().st_size for name in missing)
    return Shipment(tier, str(target), version, digests, sent, previous, is_new)


def tier_files(folder: Path, manifest: Manifest, tier: str) -> tuple[str, ...]:
    """What a tier needs: the manifest, its slices, and their weights, held against the manifest.

    Raises:
        InputError: There is no such tier, or it has no work.
        ManifestError: A file is missing or was changed.
    """
    records = [r for r in (*manifest.slices, *manifest.candidates) if r.tier == tier and r.file is not None]
    if not records:
        known = dict.fromkeys(r.tier for r in manifest.slices if r.file is not None)
        raise InputError(
            f"tier `{tier}` has no files in `{folder}`", hint=f"tiers with work: {', '.join(known)}"
        )
    for record in records:
        check_files(folder, record)
    names = (name for r in records for name in (r.file, *(data.file for data in r.data)) if name)
    return tuple(dict.fromkeys((FILE_NAME, *names)))


def run_there(target: Target, command: Sequence[str]) -> str:
    """What a command prints on the far side.

    Raises:
        OutputError: It cannot be reached, or the command fails; its last words are in the message.
    """
    return _Far(target).run(f"exec {shlex.join(command)}")


def _check(far: _Far, target: Target, version: str, digests: Sequence[tuple[str, str]]) -> None:
    wrong = far.wrong(version, digests)
    if wrong:
        raise OutputError(
            f"`{wrong[0]}` arrived on {target} as another file: its checksum differs there",
            hint="it was removed there: ship again",
        )


@dataclass(frozen=True, slots=True)
class _State:
    complete: bool
    there: frozenset[str]


class _Far:
    """The far side, asked by shell scripts on the standard input of one ssh each."""

    def __init__(self, target: Target) -> None:
        self.target = target
        if shutil.which(target.ssh[0]) is None:
            raise OutputError(f"there is no `{target.ssh[0]}` here", hint="install openssh-client")

    def run(self, script: str) -> str:
        """Runs a script there, in the target's folder if it exists.

        Raises:
            OutputError: As in `run_there`.
        """
        command = [*self._ssh(), self.target.host.replace("[", "").replace("]", ""), "exec sh -s"]
        done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
        if done.returncode:
            raise self._failed(done.returncode, done.stderr)
        return done.stdout

    def ask(self, version: str, digests: Sequence[tuple[str, str]]) -> _State:
        """What is there already; what older versions have is linked into the folder that is filled."""
        wanted = "\n".join(f"{digest} {name}" for name, digest in digests)
        folders = {str(PurePosixPath(name).parent) for name, _ in digests}
        out = self.run(
            f"""{self._enter()}
            if [ -d {_VERSIONS}/{version} ]; then echo complete; exit 0; fi
            part={_VERSIONS}/.{version}
            for folder in {shlex.join(sorted(folders))}; do mkdir -p "$part/$folder" || exit 1; done
            while read -r digest name; do
                for old in current previous; do
                    [ -f "$part/$name" ] || [ ! -f "$old/$name" ] && continue
                    [ "$(sum256 "$old/$name")" = "$digest" ] || continue
                    ln "$old/$name" "$part/$name" 2>/dev/null || cp "$old/$name" "$part/$name" || exit 1
                done
                [ -f "$part/$name" ] || : >"$part/$name" || exit 1  # sftp continues what there is
                [ "$(sum256 "$part/$name")" = "$digest" ] && echo "have $name"
            done <<'WANTED'
{wanted}
WANTED
            exit 0
            """
        )
        lines = out.splitlines()
        return _State("complete" in lines, frozenset(x.removeprefix("have ") for x in lines))

    def send(self, folder: Path, names: Sequence[str], version: str) -> None:
        """Sends files into the folder that is filled; parts of them that are there are continued."""
        if not names:
            return
        part = f"{self.target.path}/{_VERSIONS}/.{version}"
        if shutil.which("rsync") and self.run("command -v rsync || true").strip():
            ssh = shlex.join(self._ssh())
            command = [
                *("rsync", "--times", "--partial", "--append-verify", "--relative", "--protect-args"),
                *("--rsh", ssh),
                *("--files-from", "-", f"{folder}/", f"{self.target.host}:{part}/"),
            ]
            text = "".join(f"{name}\n" for name in names)
        else:
            command = ["sftp", "-q", *_for_sftp(self._ssh()[1:]), "-b", "-", self.target.host]
            text = "".join(
                f"put -a {_quoted(str(folder / name))} {_quoted(f'{part}/{name}')}\n" for name in names
            )
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            raise self._failed(done.returncode, done.stdout + done.stderr)

    def wrong(self, version: str, digests: Sequence[tuple[str, str]]) -> list[str]:
        """The files that are not what they should be; they are removed there."""
        wanted = "\n".join(f"{digest} {name}" for name, digest in digests)
        out = self.run(
            f"""{self._enter()}
            cd {_VERSIONS}/.{version} || exit 1
            while read -r digest name; do
                [ "$(sum256 "$name")" = "$digest" ] || {{ rm -f "$name"; echo "$name"; }}
            done <<'WANTED'
{wanted}
WANTED
            sync 2>/dev/null
            exit 0
            """
        )
        return out.splitlines()

    def switch(self, version: str) -> tuple[str | None, bool]:
        """Gives a checked folder its name and makes it current, in one step each.

        Returns:
            The version that was current before, and whether this one was not.
        """
        out = self.run(
            f"""{self._enter()}
            if [ -d {_VERSIONS}/.{version} ]; then
                mv {_VERSIONS}/.{version} {_VERSIONS}/{version} || exit 1
            fi
            before=$(readlink current 2>/dev/null)
            echo "$before"
            [ "$before" = {_VERSIONS}/{version} ] && exit 0
            point() {{ rm -f ".$2.new"; ln -s "$1" ".$2.new" && mv -T ".$2.new" "$2" 2>/dev/null ||
                mv -fh ".$2.new" "$2"; }}
            if [ -n "$before" ]; then point "$before" previous || exit 1; fi
            point {_VERSIONS}/{version} current || exit 1
            for old in {_VERSIONS}/*; do
                [ "$old" = "$(readlink current)" ] || [ "$old" = "$(readlink previous)" ] || rm -rf "$old"
            done
            """
        )
        before = out.strip().removeprefix(f"{_VERSIONS}/") or None
        return before, before != version

    def _enter(self) -> str:
        """The beginning of each script: the folder, and a digest by what is there."""
        return f"""
            umask 022
            mkdir -p {shlex.quote(self.target.path)} && cd {shlex.quote(self.target.path)} || exit 1
            sum256() {{
                if command -v sha256sum >/dev/null; then sha256sum <"$1"
                elif command -v shasum >/dev/null; then shasum -a 256 <"$1"
                else openssl dgst -sha256 -r <"$1"; fi | cut -c1-64
            }}"""

    def _ssh(self) -> list[str]:
        options = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={_CONNECT_S}"]
        alive = ["-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"]
        return [*self.target.ssh, *options, *alive]

    def _failed(self, code: int, said: str) -> OutputError:
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        last = lines[-1] if lines else _RSYNC.get(code, f"exit {code}")
        told = next((line for line in lines if "No space left" in line), last)
        if "No space left" in said:
            hint = "make room there; what is current was not touched, and the same command resumes"
        elif "Permission denied" in said and code == 255:
            hint = f"ssh must log in without asking: try `ssh {self.target.host}`"
        else:
            hint = "what is current there was not touched; the same command resumes"
        return OutputError(f"cannot ship to {self.target}: {told}", hint=hint)


def _for_sftp(options: Sequence[str]) -> list[str]:
    """Ssh's options as sftp takes them: a port is `-P` there."""
    return ["-P" if option == "-p" else option for option in options]


def _quoted(name: str) -> str:
    """A name in a batch of sftp."""
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'

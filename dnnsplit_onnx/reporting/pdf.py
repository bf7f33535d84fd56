"""A page as a PDF, printed by a Chromium of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from dnnsplit_onnx.errors import InputError

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_LONGEST_S = 120
_HINT = "write the page, -o report.html, and print it to a PDF from any browser"


def browser() -> str:
    """The program of a Chromium or Chrome.

    Raises:
        InputError: There is none.
    """
    found = next((path for name in _PROGRAMS if (path := shutil.which(name))), None)
    if found is None:
        raise InputError(
            f"a PDF needs Chromium or Chrome: none of {', '.join(_PROGRAMS)} is here", hint=_HINT
        )
    return found


def pdf_of(page: str) -> bytes:
    """A page that needs no network, as it is printed.

    Raises:
        InputError: There is no browser, or it prints nothing.
    """
    program = browser()
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder, "page.html"), Path(folder, "page.pdf")
        source.write_text(page, encoding="utf-8")
        words = [
            program,
            "--headless",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            *(["--no-sandbox"] if os.geteuid() == 0 else []),  # Chromium as root has no other way
            f"--user-data-dir={folder}/profile",
            "--no-pdf-header-footer",
            f"--print-to-pdf={made}",
            source.as_uri(),
        ]
        try:
            ended = subprocess.run(words, capture_output=True, timeout=_LONGEST_S, check=False)
        except subprocess.TimeoutExpired:
            raise InputError(f"{program} printed nothing within {_LONGEST_S} s", hint=_HINT) from None
        if ended.returncode or not made.is_file():
            raise InputError(f"{program} printed nothing: it ended with {ended.returncode}", hint=_HINT)
        return made.read_bytes()

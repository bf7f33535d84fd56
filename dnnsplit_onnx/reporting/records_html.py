"""What a notebook shows of a result that has rows: its line, and the first of them as a table."""

from __future__ import annotations

from html import escape
from typing import Any, Protocol

from dnnsplit_onnx.reporting.units import clean


class _Rows(Protocol):
    def records(self) -> list[dict[str, Any]]: ...


# Rows that a notebook is shown; all are in `records()`.
_MOST = 30


def records_html(result: _Rows) -> str:
    """The table, without style of its own: a notebook has one."""
    records = result.records()
    columns = list(dict.fromkeys(key for record in records for key in record))
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in columns)
    rows = [
        "".join(f"<td>{_text(_said(record.get(name)))}</td>" for name in columns)
        for record in records[:_MOST]
    ]
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    more = f"<p>and {len(records) - _MOST:,} more rows: records()</p>" if len(records) > _MOST else ""
    caption = _text(repr(result) if len(repr(result)) < 200 else type(result).__name__)
    table = f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"<div>{table}{more}</div>"


def _said(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)


def _text(said: str) -> str:
    return escape(clean(said))

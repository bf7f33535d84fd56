"""Tables in which figures are always whole: where they do not fit, names give way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len, chop_cells
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

_GAP = 2
#: A column of names is worth having from this width on, unless its names are shorter.
_DECENT = 24
#: Narrower than this, a name says nothing: each row becomes lines.
_LEAST = 16


def shortened(name: str, width: int) -> str:
    """A name in at most so many columns, without its middle: both ends tell names apart."""
    if cell_len(name) <= width:
        return name
    dots = "..." if width > 6 else "." * min(width, 2)
    head = (width - len(dots)) // 2
    tail = width - len(dots) - head
    start = chop_cells(name, head)[0] if head else ""
    end = chop_cells(name[::-1], tail)[0][::-1] if tail else ""
    return f"{start}{dots}{end}"


class Grid(Table):
    """A table that fits itself to the console.

    Columns of figures keep their width. Columns that may be missed go first, from the right,
    then names are shortened in the middle, and where even that is too wide, each row is
    written as lines, one a column.

    Args:
        columns: Headings; one that starts with `>` is of figures, with `=` of figures that
            are set left, with `?` of what may be missed.
        header: Whether to print the headings.
    """

    def __init__(self, *columns: str, header: bool = True) -> None:
        super().__init__(
            box=None, show_header=header, padding=(0, _GAP, 0, 0), header_style="dim", pad_edge=False
        )
        self._marks = [heading[:1] if heading[:1] in (">", "=", "?") else "" for heading in columns]
        for heading, mark in zip(columns, self._marks, strict=True):
            title = heading.removeprefix(mark) if mark else heading
            self.add_column(title, justify="right" if mark == ">" else "left", no_wrap=True)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        cell_of = [list(column.cells) for column in self.columns]
        cells = [list(map(_plain, column)) for column in cell_of]
        natural = [
            max([cell_len(_plain(column.header)) if self.show_header else 0, *map(cell_len, texts)])
            for column, texts in zip(self.columns, cells, strict=True)
        ]
        kept = self._kept(natural, options.max_width)
        if self._needed(kept, natural, _LEAST) > options.max_width:
            yield from self._as_lines(cells, options.max_width)
            return
        widths = self._widths(kept, natural, options.max_width)
        table = Table(
            box=None,
            show_header=self.show_header,
            padding=(0, _GAP, 0, 0),
            header_style="dim",
            pad_edge=False,
        )
        for at in kept:
            column = self.columns[at]
            table.add_column(column.header, justify=column.justify, no_wrap=True, width=widths[at])
        for number, row in enumerate(self.rows):
            texts = [_fitted(cell_of[at][number], widths[at]) for at in kept]
            table.add_row(*texts, style=row.style)
        yield table

    def _kept(self, natural: Sequence[int], width: int) -> list[int]:
        """The columns that are shown."""
        kept = list(range(len(self.columns)))
        for at in reversed(range(len(self.columns))):
            if self._marks[at] == "?" and self._needed(kept, natural, _DECENT) > width:
                kept.remove(at)
        return kept

    def _needed(self, kept: Sequence[int], natural: Sequence[int], name: int) -> int:
        """The width of a table whose names have no more than so many columns."""
        taken = [natural[at] if self._is_figure(at) else min(natural[at], name) for at in kept]
        return sum(taken) + _GAP * max(0, len(kept) - 1)

    def _widths(self, kept: Sequence[int], natural: Sequence[int], width: int) -> list[int]:
        """Figures as they are; the longest names give way until all fit."""
        widths = list(natural)
        while self._over(kept, widths, width) > 0:
            longest = max((at for at in kept if not self._is_figure(at)), key=lambda at: widths[at])
            widths[longest] -= 1
        return widths

    @staticmethod
    def _over(kept: Sequence[int], widths: Sequence[int], width: int) -> int:
        return sum(widths[at] for at in kept) + _GAP * max(0, len(kept) - 1) - width

    def _is_figure(self, at: int) -> bool:
        return self._marks[at] in (">", "=")

    def _as_lines(self, cells: Sequence[Sequence[str]], width: int) -> Iterator[RenderableType]:
        """Each row as lines: its first cell, then a heading and a cell for each other column."""
        for number, row in enumerate(self.rows):
            first = _plain(self.columns[0].header) if self._is_figure(0) and self.show_header else ""
            lines = [shortened(f"{first} {cells[0][number]}".lstrip(), width)]
            for at in range(1, len(self.columns)):
                text, heading = cells[at][number], _plain(self.columns[at].header)
                if not text or self._marks[at] == "?":
                    continue
                label = f"  {heading} " if heading else "  "
                room = width - len(label)
                lines.append(label + (text if self._is_figure(at) else shortened(text, max(room, 1))))
            yield Text("\n".join(lines), style=row.style or "")


def _fitted(cell: RenderableType, width: int) -> Text:
    """A cell in so many columns; one that fits keeps its colours."""
    if isinstance(cell, Text) and cell_len(cell.plain) <= width:
        return cell
    return Text(shortened(_plain(cell), width))


def _plain(cell: RenderableType) -> str:
    """A cell as text: the cells of these tables are text, styled or not."""
    return cell.plain if isinstance(cell, Text) else str(cell)

"""One self-contained HTML page about a folder of slices.

`facts` gathers what there is to say, as data; `sections` says it, with tables of its own and
figures from `curves`, `timeline`, `front`, `bands` and `drawing`; `render` puts them into
`page.html` with `page.css` and `page.js` inlined. The page asks for nothing from any network
and runs no script but that one, which its content security policy names by hash. Names in a
model are anybody's text: everything goes through `markup`, which escapes it.
"""

from dnnsplit_onnx.reporting.page.facts import Facts, gather
from dnnsplit_onnx.reporting.page.render import render

__all__ = ["Facts", "gather", "render"]

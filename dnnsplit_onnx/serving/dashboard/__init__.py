"""A page that shows what a client of a chain does, while it does it.

`state` makes the client's state one JSON object, `page` serves that and the files of the
page, which lie in `static` and load nothing from elsewhere.
"""

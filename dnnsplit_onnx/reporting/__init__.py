"""What a person sees on the terminal: tables, bars, and sentences that say what they mean.

Nothing here computes a figure. Views take the library's own data (a `Plan`, an
`Inspection`, the dictionaries of a `Verification` and a `BenchReport`) and print it. rich
is imported only when something is rendered. `page` does the same as one HTML page.
"""

"""Per-case tables, the numbers drawn from them, their uncertainty, and a page to look at. Host side: numpy in, plain
data out.

``cases`` holds the table, ``metrics`` the quality of masks, grades and malignancy, ``statistics`` intervals and tests,
``report`` the page. Importing any of them needs numpy only; scipy, matplotlib and jinja2 are imported by the functions
that use them.
"""

"""Per-case tables, the measures computed from them, their confidence intervals, and the report page. All of it runs on
the host, on numpy arrays.

``cases`` holds the table, ``metrics`` the quality of masks, grades and malignancy, ``summary`` the rows, measures and
baselines of a table, ``calibration`` whether probabilities are frequencies and how to make them so, ``statistics``
intervals and tests, ``subgroups`` the measures in parts of the cases, ``paired`` the comparison of tables, ``report``
the page. Importing any of them needs numpy only; scipy, matplotlib and jinja2 are imported by the functions that use
them.
"""

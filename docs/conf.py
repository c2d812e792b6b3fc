"""Settings of the documentation: the pages of this folder, and a reference made from the docstrings (`make docs`)."""

import re

project = "thyroid_jax"
author = "the thyroid_jax developers"
extensions = ["myst_parser", "sphinx.ext.apidoc", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
apidoc_modules = [
    {"path": f"../{name}", "destination": f"reference/{name}", "separate_modules": True, "module_first": True}
    for name in ("thyroid_jax", "data_prep")
]
exclude_patterns = ["reference/*/modules.rst"]
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": False}
autodoc_preserve_defaults = True
napoleon_use_ivar = True  # fields are described once, by their class
napoleon_attr_annotations = False  # their types stand in the signature, and shapes such as "*n" are no markup
html_title = "thyroid_jax"
html_show_copyright = False
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing"]  # links from a page to files of the repository; a test follows them
suppress_warnings += ["ref.python"]  # some names are re-exported by their package


def setup(app):
    """Show formulas and aligned lists of docstrings as they are written, and take no sign of them as markup."""
    app.connect("autodoc-process-docstring", as_written, priority=100)
    app.connect("autodoc-skip-member", named_as_its_module)


def named_as_its_module(app, what, name, obj, skip, options):
    """Leave out of a package's page what it re-exports from a module of the same name: that module's page has it."""
    page = app.env.docname.rpartition("/")[2]
    return True if getattr(obj, "__module__", None) == f"{page}.{name}" else None


def as_written(app, what, name, obj, options, lines):
    """Turn the paragraphs that are indented or aligned into literal blocks, in place."""
    lines[:] = "\n\n".join(map(paragraph, "\n".join(lines).strip("\n").split("\n\n"))).split("\n")


def paragraph(text):
    """A paragraph of a docstring as reStructuredText."""
    rows = text.split("\n")
    if rows[0].startswith("==") or SECTION.match(rows[0]) or rows[0].lstrip().startswith((">>>", "::", "..")):
        return text
    if rows[0].startswith("  ") or sum(bool(re.search(r"\S {2,}\S", row)) for row in rows) > 1:
        return "::\n\n" + "\n".join("    " + row for row in rows)
    parts = re.split(r"(``.+?``|:\w+:`.+?`)", text, flags=re.DOTALL)
    return "".join(part if number % 2 else escaped(part) for number, part in enumerate(parts))


def escaped(text):
    """Text in which bars and underscores at the end of a word mean themselves."""
    return re.sub(r"(?<=\w)_(?!\w)", r"\\_", text.replace("|", r"\|"))


SECTION = re.compile(r"(Args|Returns|Raises|Example|Examples|Yields):$")

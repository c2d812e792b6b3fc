"""Every docstring can be set: the reference of `make docs` has no broken markup."""

import importlib
import inspect
import io
import pkgutil
from pathlib import Path

import pytest

import data_prep
import thyroid_jax

pytest.importorskip("sphinx", reason="the docs extra is not installed")
from docutils import nodes
from docutils.core import publish_doctree
from docutils.parsers.rst import Directive, directives, roles
from sphinx.ext.napoleon import GoogleDocstring

ROOT = Path(__file__).parent.parent


class Attribute(Directive):
    """Sphinx's directive, whose content alone matters here."""

    required_arguments, final_argument_whitespace, has_content = 1, True, True

    def run(self):
        self.state.nested_parse(self.content, self.content_offset, nodes.Element())
        return []


@pytest.fixture(scope="module")
def settings():
    directives.register_directive("attribute", Attribute)
    for role in ("func", "class", "mod", "data", "meth", "attr"):
        roles.register_generic_role(role, nodes.literal)
    spec = importlib.util.spec_from_file_location("docs_conf", ROOT / "docs" / "conf.py")
    conf = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(conf)
    return conf


def documented(package):
    """(name, object) of all modules of a package, and of the functions, classes and methods that they define."""
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if found.name.endswith("__main__"):
            continue
        module = importlib.import_module(found.name)
        yield found.name, module
        for name, value in list(vars(module).items()):
            if getattr(value, "__module__", None) == found.name and (
                inspect.isfunction(value) or inspect.isclass(value)
            ):
                yield f"{found.name}.{name}", value
                methods = vars(value).values() if inspect.isclass(value) else ()
                yield from (
                    (f"{found.name}.{name}.{each.__name__}", each) for each in methods if inspect.isfunction(each)
                )


def complaints(conf, text):
    """What docutils says of a docstring."""
    lines = inspect.cleandoc(text).split("\n")
    conf.as_written(None, "", "", None, None, lines)
    said = io.StringIO()
    reported = {"warning_stream": said, "report_level": 2}
    publish_doctree("\n".join(GoogleDocstring(lines).lines()), settings_overrides=reported)
    return said.getvalue()


@pytest.mark.parametrize("package", [thyroid_jax, data_prep], ids=lambda package: package.__name__)
def test_every_docstring_can_be_set(settings, package):
    texts = {name: inspect.getdoc(value) for name, value in documented(package)}
    assert len(texts) > 100
    faults = {name: said for name, text in texts.items() if text and (said := complaints(settings, text))}
    assert not faults


def test_formulas_and_aligned_lists_are_kept(settings):
    text = "One line.\n\n    Dice = 2 |A and B| / n_\n\nname  what\nlong  what else\n\nOf |x| and ``a_``."
    lines = text.split("\n")
    settings.as_written(None, "", "", None, None, lines)
    assert "\n".join(lines) == (
        "One line.\n\n::\n\n        Dice = 2 |A and B| / n_\n\n::\n\n    name  what\n    long  what else\n\n"
        "Of \\|x\\| and ``a_``."
    )
    assert complaints(settings, text) == ""
    assert "substitution" in complaints(settings, "Args:\n    x: |a| and |b|\n")  # what is broken is seen

"""Groups of settings: numbers are traced and the rest is structure; JSON and back; a wrong field is named."""

import dataclasses
import doctest
from dataclasses import dataclass, field
from typing import Literal

import jax
import pytest

import thyroid_jax.settings
from thyroid_jax.errors import InputError
from thyroid_jax.settings import check_within, flat, from_dict, settings, to_dict


@settings
class Inner:
    """A group."""

    weight: float = 1.0
    kind: Literal["a", "b"] = "a"
    names: tuple[str, ...] = ("x",)
    count: int = 3
    on: bool = False

    def __post_init__(self):
        check_within(self, "inner", ("weight",), 0, 10)


@settings
class Derived(Inner):
    """A group that adds to another and changes a default."""

    weight: float = 2.0
    margin: float = 0.5


@dataclass(frozen=True)
class Whole:
    """Groups together."""

    inner: Inner = field(default_factory=Inner)
    derived: Derived = field(default_factory=Derived)


def test_numbers_are_leaves_and_all_else_is_structure():
    assert jax.tree.leaves(Derived(weight=3.0, margin=0.25)) == [3.0, 0.25]
    assert jax.tree.structure(Inner(weight=5.0)) == jax.tree.structure(Inner())
    for change in ({"kind": "b"}, {"names": ()}, {"count": 4}, {"on": True}):
        assert jax.tree.structure(Inner(**change)) != jax.tree.structure(Inner())
    assert jax.tree_util.keystr(jax.tree_util.tree_leaves_with_path(Inner())[0][0]) == ".weight"


def test_one_program_for_all_numbers_and_one_for_each_kind():
    @jax.jit
    def weighted(group, x):
        return group.weight * x if group.kind == "a" else -group.weight * x

    assert [float(weighted(Inner(weight=w), 2.0)) for w in (0.5, 3.0)] == [1, 6]
    assert weighted._cache_size() == 1
    assert float(weighted(Inner(kind="b"), 2.0)) == -2
    assert weighted._cache_size() == 2


def test_a_group_is_checked_when_a_person_makes_it_and_not_when_jax_does():
    with pytest.raises(InputError, match=r"inner\.weight is -1.*between 0 and 10"):
        Inner(weight=-1.0)
    assert jax.tree.map(lambda w: w - 100, Inner()).weight == -99
    with pytest.raises(dataclasses.FrozenInstanceError):
        Inner().weight = 2.0
    assert hash(Inner()) == hash(Inner()) and Inner() == Inner(weight=1.0)


def test_settings_survive_json_values():
    whole = Whole(Inner(weight=0.1, kind="b", names=("p", "q")), Derived(margin=1.0, count=7))
    back = from_dict(Whole, to_dict(whole))
    assert back == whole and type(back.derived) is Derived
    assert dict(flat(to_dict(whole)))["derived.margin"] == 1.0
    assert dict(flat(to_dict(whole)))["inner.names"] == ("p", "q")


@pytest.mark.parametrize("change, message", [
    ({"inner": None}, r"config\.inner: expected a group of fields"),
    ({"inner": {}}, r"config\.inner: unknown fields \[\], missing fields \['count'"),
    ({"outer": {}}, r"config: unknown fields \['outer'\]"),
])  # fmt: skip
def test_a_wrong_shape_is_named(change, message):
    with pytest.raises(InputError, match=message):
        from_dict(Whole, to_dict(Whole()) | change)


@pytest.mark.parametrize("name, value", [
    ("weight", "1"), ("weight", True), ("weight", None), ("weight", 11.0), ("kind", "c"), ("kind", ["a"]),
    ("names", "x"), ("names", [1]), ("count", 1.5), ("count", True), ("on", 1),
])  # fmt: skip
def test_a_wrong_value_is_named_with_its_group(name, value):
    values = to_dict(Whole())
    values["inner"][name] = value
    with pytest.raises(InputError, match=rf"inner\.{name}\b"):
        from_dict(Whole, values)


def test_a_whole_number_stands_for_a_float():
    values = to_dict(Whole())
    values["inner"]["weight"] = 3
    assert type(from_dict(Whole, values).inner.weight) is float


def test_the_docstrings_example_runs():
    assert doctest.testmod(thyroid_jax.settings).failed == 0

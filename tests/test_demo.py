"""The demo's phantoms are those that were asked for, also in a folder that holds some already."""

import pytest

from experiments import demo
from thyroid_jax.data.storage import open_records
from thyroid_jax.errors import InputError


def test_phantoms_of_other_numbers_are_not_taken_for_those_asked_for(tmp_path, monkeypatch):
    arguments = demo.Arguments(out=tmp_path, count=4)
    data = demo.rendered(arguments)
    assert len(open_records(data, "phantom")[1]) == 4
    monkeypatch.setattr(demo.builder, "build", None)
    assert demo.rendered(arguments) == data  # an interrupted call goes on
    for other in (demo.Arguments(out=tmp_path, count=5), demo.Arguments(out=tmp_path, count=4, seed=1)):
        with pytest.raises(InputError, match=r"holds phantoms made with .*choose another --out"):
            demo.rendered(other)

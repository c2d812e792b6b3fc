import pytest

from data_prep.duplicates import merge_groups


def test_groups_that_share_an_image_are_joined_also_by_way_of_others():
    groups = ["a", "b", "b", "c", "d", "c", "e"]
    contents = ["1", "1", "2", "2", "3", "4", "5"]
    assert merge_groups(groups, contents) == ["a", "a", "a", "a", "d", "a", "e"]


def test_without_duplicates_nothing_changes():
    assert merge_groups(["x", "y", "x"], ["1", "2", "3"]) == ["x", "y", "x"]
    assert merge_groups([], []) == []


def test_the_name_is_the_first_group_whatever_the_order_of_joins():
    assert merge_groups(["z", "m", "a", "m"], ["1", "2", "1", "1"]) == ["z"] * 4


def test_a_long_chain():
    n = 5000
    groups = [str(i // 2) for i in range(2 * n)]
    contents = [str((i + 1) // 2) for i in range(2 * n)]
    assert set(merge_groups(groups, contents)) == {"0"}


def test_unequal_lengths():
    with pytest.raises(ValueError, match="2 groups but 1"):
        merge_groups(["a", "b"], ["1"])

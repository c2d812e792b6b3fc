"""Groups that share an image become one group, so that no split can put the same pixels on two sides."""

from __future__ import annotations

from collections.abc import Sequence


def merge_groups(groups: Sequence[str], contents: Sequence[str]) -> list[str]:
    """The group of each record after groups that share a content have been merged.

    ``groups[i]`` and ``contents[i]`` belong to record i. Groups are also merged if they share contents through other
    groups only. A merged group takes the name of the member that comes first in ``groups``, so the result depends on
    nothing but the records and their order. Raises ``ValueError`` for unequal lengths.
    """
    if len(groups) != len(contents):
        raise ValueError(f"{len(groups)} groups but {len(contents)} contents")
    parent = {group: group for group in groups}
    rank = {group: order for order, group in enumerate(dict.fromkeys(groups))}
    owner: dict[str, str] = {}
    for group, content in zip(groups, contents):
        here, there = _root(parent, group), _root(parent, owner.setdefault(content, group))
        first, other = sorted((here, there), key=rank.__getitem__)
        parent[other] = first
    return [_root(parent, group) for group in groups]


def _root(parent: dict[str, str], group: str) -> str:
    while parent[group] != group:
        parent[group] = parent[parent[group]]  # path halving keeps the trees flat
        group = parent[group]
    return group

"""The tables of a comparison as rows of one CSV table."""

from __future__ import annotations

from collections.abc import Mapping

from thyroid_jax.evaluate.cases import Cell
from thyroid_jax.evaluate.summary import interval_kind
from thyroid_jax.evaluate.tabulate.content import Comparison, Gap

CSV_COLUMNS = (
    *("method", "measure", "value", "low", "high", "predictions", "undefined", "groups", "replicates_undefined"),
    *("images", "folds", "seeds", "against", "difference", "difference_low", "difference_high", "resampled"),
    *("pairs", "pairs_left_out", "pairs_groups", "difference_replicates_undefined", "p", "p_adjusted", "tests"),
    *("margin", "decision", "worse", "margin_p", "interval"),
)


def csv_rows(found: Comparison) -> list[dict[str, Cell]]:
    """One row for each method and measure, with the difference where there is one; columns :data:`CSV_COLUMNS`.

    ``interval`` is what ``low`` and ``high`` are: "bootstrap" or "delong"; empty where there is no interval.
    ``predictions`` of the measure have a value, ``undefined`` have none. ``images`` is the number of all images of the
    method, ``folds`` and ``seeds`` the numbers of them that its table names, empty where it names none.
    """
    gaps = {(gap.method, gap.measure): gap for gap in found.gaps}
    rows: list[dict[str, Cell]] = []
    for method in found.methods:
        for measure, entry in found.summaries[method.name].items():
            row: dict[str, Cell] = {"method": method.name, "measure": measure}
            row |= {name: entry[name] for name in ("value", "low", "high")}
            row |= {"predictions": int(entry["n"]), "undefined": int(entry["undefined"])}
            row |= {"groups": int(entry["groups"]), "replicates_undefined": int(entry["replicates_undefined"])}
            row |= {"interval": interval_kind(entry) or None}
            row |= {"images": method.images, "folds": len(method.folds) or None, "seeds": len(method.seeds) or None}
            rows.append(row | _gap_cells(gaps.get((method.name, measure)), found.families))
    return rows


def _gap_cells(gap: Gap | None, families: Mapping[str, int]) -> dict[str, Cell]:
    if gap is None:
        return {}
    return {
        "against": gap.against,
        "difference": gap.value,
        "difference_low": gap.low,
        "difference_high": gap.high,
        "resampled": gap.resampled,
        "pairs": gap.pairs,
        "pairs_left_out": gap.left_out,
        "pairs_groups": gap.groups,
        "difference_replicates_undefined": gap.undefined,
        "p": gap.p,
        "p_adjusted": gap.adjusted,
        "tests": families[gap.against],
        "margin": gap.margin,
        "decision": gap.decision or None,
        "worse": int(gap.worse) if gap.decision else None,
        "margin_p": gap.margin_p,
    }

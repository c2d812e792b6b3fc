"""What a page says around its numbers: counts of labels by hand, and the training part's counts for the baselines."""

import numpy as np
from toys import CARD, toys

from thyroid_jax.evaluate.agreement import Agreement
from thyroid_jax.evaluate.summary import Counts
from thyroid_jax.predict import Trained
from thyroid_jax.runs import page_facts


def test_labels_are_counted_and_missing_ones_are_not():
    records = list(toys())
    labels = page_facts.labels_of(records)
    assert page_facts.part_counts(labels) == {
        "groups": 5, "images": 9, "with outline": 6, "with grade": 6, "with malignancy": 6,
    }  # fmt: skip
    grades = [record.grade for record in records]
    found = page_facts.training_counts(labels, CARD.grades)
    assert found == Counts({name: grades.count(place) for place, name in enumerate(CARD.grades)}, benign=3, malignant=3)
    assert sum(found.grades.values()) == 6


def test_without_labels_nothing_is_counted():
    none = [one._replace(grade=None, malignant=None) for one in page_facts.labels_of(list(toys()))]
    assert page_facts.training_counts(none, CARD.grades) == Counts({}) == page_facts.training_counts([], ())
    assert page_facts.part_counts([])["images"] == 0


def test_notes_name_the_labels_and_the_readers():
    between = Agreement(outlines=4, dice=0.8, area_icc=0.9)
    labels, readers, *rest = page_facts.notes(CARD, between)
    assert "Toy family" in labels and "Dice 0.800" in readers and tuple(rest) == page_facts.NOTES
    assert any("DeLong" in note for note in rest) and len(page_facts.notes(CARD, Agreement())) == 1 + len(rest)


def test_the_replicates_of_the_other_tables_are_named_where_they_are_fewer():
    facts = {"version": "1", "digest": "d", "split": "s"}
    trained = Trained(None, None, {"a": np.zeros((2, 3)), "b": np.zeros(4)}, facts, 7)
    assert page_facts.provenance(trained, 500, 500)["bootstrap replicates"] == 500
    found = page_facts.provenance(trained, 2000, 1000)
    assert found["bootstrap replicates"] == "2000 (measures), 1000 (other tables)" and found["parameters"] == 10

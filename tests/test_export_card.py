"""The model card says every fact that there is, and of every other one that it is missing."""

import copy
import json

import pytest

from thyroid_jax.export import card

CARD = {
    "title": "Toys",
    "source": "made | here",
    "licence": "CC BY 4.0",
    "access": "",
    "labels": "Made <up>.",
    "grouping": "patient",
    "grade_system": "Toy",
    "grades": ["low", "high"],
    "faults": ["one is blurred"],
}
COUNTS = {"groups": 3, "images": 5, "outlines": 4, "grades": 2, "malignant": 1, "benign": 0}
ENTRY = {"value": 0.71234, "low": 0.6, "high": 0.8, "n": 5, "undefined": 1, "groups": 3}
FACTS = {
    "training": {
        "run": "my_run",
        "checkpoint": "best",
        "step": 40,
        "last_step": 60,
        "total_steps": 60,
        "out_of_patience": False,
        "monitor": "dice",
        "validation_score": 0.8125,
        "tasks": ["segmentation", "grading", "malignancy"],
        "penalties": ["rlar"],
        "encoder_weights_sha256": "",
        "start_from_sha256": "",
        "settings": {"model.encoder": "residual", "model.frozen_levels": 0, "train.seed": 7, "data.also": []},
        "differing": ["train.seed"],
    },
    "calibration": None,
    "data": {
        "name": "toy",
        "digest": "d1g3st",
        "split_digest": "spl1t",
        "grade_system": "Toy",
        "card": CARD,
        "also": [],
        "parts": {"train": COUNTS, "test": COUNTS | {"images": 2}},
        "missing": "",
    },
    "results": {
        "part": "test",
        "images": 5,
        "compared": 5,
        "largest_difference": 1e-7,
        "measures": {"dice": ENTRY, "macro_auroc": dict.fromkeys(ENTRY, None) | {"n": 0, "undefined": 5}},
        "missing": "",
    },
    "versions": {"thyroid_jax": "9.9", "trained_with": "9.8", "jax": "0.10.2"},
    "program": {
        "sha256": "aa11",
        "platforms": ["cpu", "cuda"],
        "calling_convention_version": 10,
        "batch": None,
        "traced_on": "cpu",
        "forms_of": [],
        "chosen_by_platform": False,
        "check": {"platform": "cpu", "largest_difference": 2.5e-7, "accepted": 1e-5},
    },
    "parameters": {"sha256": "bb22", "fingerprint": "cc33", "count": 1234567},
    "input": {"height": 96, "width": 64, "preparation": "Crop it."},
    "answers": {"grading": {"dtype": "float32", "shape": ["b", 2], "meaning": "probability of each grade"}},
    "grades": ["low", "high"],
    "guidance": [],
}


def page(**changes):
    """The card with some entries of some groups of facts changed."""
    facts = copy.deepcopy(FACTS)
    for group, entries in changes.items():
        facts[group] |= entries
    return card.page(facts)


def test_a_card_says_every_fact():
    text = page()
    for said in ("1,234,567 parameters", "96 x 64", "aa11", "bb22", "cc33", "d1g3st", "spl1t", "9.8", "0.10.2",
                 "CC BY 4.0", "one is blurred", "float32[b 2]", "2.5e-07", "step 40", "step 60 of 60", "0.812",
                 "Toy family (low, high)", "random, seed 7", "penalties: rlar", "one group is: patient",
                 "access: none given"):  # fmt: skip
        assert said in text, said
    assert "not finished" not in text
    assert "| dice | 0.712 | 0.600 to 0.800 | 5 | 1 | 3 |" in text
    assert "| macro\\_auroc | not known | not known | 0 | 5 | not known |" in text
    assert "| train | 3 | 5 | 4 | 2 | 1 | 0 |" in text and "| test | 3 | 2 |" in text
    assert "| train.seed | 7 |  |" in text and "| model.encoder | residual | yes |" in text and "data.also" not in text
    assert text.count("\n# ") == 0 and text.startswith("# Model card: my\\_run\n")


def test_a_card_without_results_or_data_says_so():
    text = page(results={"missing": "the run has no cases.csv", "measures": {}})
    assert "Not evaluated: the run has no cases.csv." in text and "| dice" not in text
    parts = {"train": {"images": 5}, "test": {"images": None}}
    text = page(data={"card": None, "missing": "it was not at hand", "parts": parts}, results={"compared": 0})
    assert "Title, source, licence and labels are not known: it was not at hand." in text
    assert "| train | not known | 5 |" in text and "| test | not known | not known |" in text
    assert "could not be checked" in text and "rows of the table" not in text


@pytest.mark.parametrize(
    "group, entries, said",
    [
        ("training", {"last_step": 30}, "step 30 of 60; the run is not finished"),
        ("training", {"last_step": 30, "out_of_patience": True}, "step 30 of 60; ended early by train.patience"),
        ("training", {"last_step": None}, "the run's log ends at: not known"),
        ("training", {"validation_score": None}, "validation dice of the checkpoint: not known"),
        ("training", {"encoder_weights_sha256": None}, "start of the encoder: not known"),
        ("training", {"encoder_weights_sha256": "ff00"}, "published weights, file of SHA-256 ff00"),
        ("training", {"start_from_sha256": "ab12"}, "another run, parameters of SHA-256 ab12"),
        ("training", {"penalties": []}, "penalties: none"),
        ("versions", {"trained_with": None}, "with thyroid_jax not known."),
        ("program", {"check": {"platform": None}}, "The program was not run after the export"),
        ("program", {"batch": 8}, "for batches of 8 images only"),
        (
            "program",
            {"forms_of": ["measured evidence"]},
            "it computes measured evidence in the form that is fast on cpu",
        ),
        ("data", {"grade_system": ""}, "of the data set's own system (low, high)"),
    ],
)
def test_what_differs_from_the_usual_is_said(group, entries, said):
    assert said not in page() and said in page(**{group: entries})


def test_a_scaling_of_the_probabilities_is_told_and_said_not_to_be_applied():
    said = "`python -m experiments.predict` applies it; the program and `run.py` do not."
    assert "They were not calibrated.\n" in page() and said not in page()
    facts = copy.deepcopy(FACTS) | {"calibration": {"grade": {"temperature": 2.0}}}
    assert "They were not calibrated. The run has a scaling" in card.page(facts) and said in card.page(facts)


def test_added_data_sets_are_described_with_their_licence():
    added = {"name": "more", "weight": 0.5, "card": CARD | {"licence": "by request"}, "counts": COUNTS}
    text = page(data={"also": [added]})
    assert "Also trained on, with weight 0.5" in text and "Images in the set: 5." in text
    assert "licence: by request" in text and "name: more" in text
    text = page(data={"card": None, "also": [{"name": "more", "weight": 1.0, "card": None}]})
    assert "Images in the set: not known." in text and "more. Title, source, licence and labels are not known." in text


def test_text_of_a_data_set_has_no_meaning_in_markdown():
    assert card.plain("a|b <b>`x`</b>\n# *y* [z](w) \\ e_f") == (
        "a\\|b &lt;b&gt;\\`x\\`&lt;/b&gt; \\# \\*y\\* \\[z\\](w) \\\\ e\\_f"
    )
    text = page()
    assert "made \\| here" in text and "Made &lt;up&gt;." in text
    rows = [
        line
        for line in page(training={"settings": FACTS["training"]["settings"] | {"train.seed": "a|b\nc"}}).splitlines()
    ]
    assert "| train.seed | a\\|b c |  |" in rows


def test_a_card_depends_on_nothing_but_the_facts_as_json():
    assert card.page(json.loads(json.dumps(FACTS))) == page()

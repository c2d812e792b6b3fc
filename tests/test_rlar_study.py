"""The study: shares of the penalty as weighted, differences on the same fold, folders of one kind of run."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from experiments import rlar_study as study
from thyroid_jax import runs
from thyroid_jax.config import Config, replace_groups
from thyroid_jax.data.pipeline import DataConfig
from thyroid_jax.errors import InputError
from thyroid_jax.evaluate import paired
from thyroid_jax.evaluate.cases import Case, read_cases, write_cases

GRADES = ("low", "high")
LEVELS = ("stride2", "stride4", "stride16", "latent")


def row(variant, fold, dice):
    values = {key: 0.1 for _, key in study.COLUMNS} | {"quadratic_kappa": 0.2, "macro_auroc": 0.6}
    values |= {f"cosine_{level}_channel": place / 10 for place, level in enumerate(LEVELS)}
    values |= {f"cosine_size_{level}_channel": place / 5 for place, level in enumerate(LEVELS)}
    quarters = {key: [0.1, 0.2, 0.3, 0.4] for key in ("quarter_cosine", "quarter_cosine_size", "quarter_unit_share")}
    return {"variant": variant, "fold": fold, "dice": dice} | values | quarters


ROWS = [row("plain", 0, 0.60), row("plain", 1, 0.70), row("hinge 1", 0, 0.62), row("hinge 1", 1, 0.71)]


@pytest.fixture
def measured(tmp_path):
    """Arguments of a folder with the tables of ROWS: both images of fold 0 gained 0.02, those of fold 1 0.01."""
    arguments = study.Arguments(out=tmp_path)
    for each in ROWS:
        cases = [
            Case(
                case=f"{each['fold']}-{n}",
                group=f"{each['fold']}-{n}",
                dice=each["dice"] + (0.1 if n else -0.1),
                grade_truth=GRADES[n],
                grade_predicted=GRADES[n],
                probability=dict(zip(GRADES, (0.8, 0.2) if n == 0 else (0.3, 0.7))),
            )
            for n in range(2)
        ]
        table = runs.table_of(study.folder_of(each["variant"], each["fold"], arguments), "validation", "last")
        table.parent.mkdir(parents=True)
        write_cases(table, cases)
    return arguments


def logged(folder, *entries):
    (folder / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def test_the_penaltys_share_is_the_one_it_was_trained_with(tmp_path):
    at = lambda n, **shares: (
        {"split": "diagnosis", "step": n} | {f"penalty_share_latent_{space}": value for space, value in shares.items()}
    )
    logged(tmp_path, *[at(n, channel=0.01 * n, full=0.5) for n in range(1, 8)], at(8, channel=None))
    of = lambda **rlar: study.penalty_share(tmp_path, replace_groups(Config(), rlar=rlar))
    assert of(weight=10.0) == pytest.approx(10 * 0.05)  # mean of the last five, 0.03 to 0.07
    assert of(weight=2.0, space="full") == pytest.approx(1.0)
    assert of(weight=0.0) == 0
    assert np.isnan(of(weight=2.0, level="stride2"))
    assert np.isnan(of(weight=2.0, hold=("segmentation",)))  # that penalty was not diagnosed


def test_quarters_are_of_the_diagnoses_that_saw_angles(tmp_path):
    values = [0.1, 0.3, 0.5, 0.5, None, 0.2, 0.4, 0.6, 0.6]
    entries = [
        {"split": "diagnosis", "step": n, "cosine_latent_channel": value, "cosine_size_latent_channel": value,
         "penalty_share_latent_channel": 1.0}
        for n, value in enumerate(values)
    ]  # fmt: skip
    logged(tmp_path, {"split": "train", "step": 0, "cosine": 0.9}, *entries)
    found = study.quarters(tmp_path)
    assert found["quarter_cosine"] == pytest.approx([0.2, 0.5, 0.3, 0.6]) == found["quarter_cosine_size"]
    assert found["quarter_unit_share"] == [1, 1, 1, 1]
    logged(tmp_path, *entries[:2])
    np.testing.assert_allclose(study.quarters(tmp_path)["quarter_cosine"], [0.1, 0.3, np.nan, np.nan])


def test_differences_are_paired_with_plain_training_on_the_same_folds(measured, capsys):
    study.print_table(ROWS, measured)
    printed = capsys.readouterr().out
    (line,) = [line for line in printed.splitlines() if line.startswith("| hinge 1 | 2")]
    assert "| 0.665 (+0.015, +0.010 to +0.020) | 1.000 (+0.000, +0.000 to +0.000) |" in line
    (line,) = [line for line in printed.splitlines() if line.startswith("| plain | 2")]
    assert line.endswith("| 0.650 | 1.000 | 1.000 |")
    assert "| mean s; mean \\|s\\| at | stride2 | stride4 | stride16 | latent |" in printed
    assert "| +0.000; 0.000 | +0.100; 0.200 | +0.200; 0.400 | +0.300; 0.600 |" in printed
    assert "mean |s| by quarter of plain training: 0.100, 0.200, 0.300, 0.400" in printed


def test_a_variant_is_compared_on_the_folds_that_plain_training_has(measured):
    cells = study.compared("hinge 1", ROWS[1:], measured)  # plain has fold 1 alone
    assert cells["dice"] == "0.665 (+0.010, +0.010 to +0.010)"
    assert study.compared("hinge 1", ROWS[2:], measured)["dice"] == "0.665"


def test_the_picture_is_drawn():
    picture = np.asarray(Image.open(io.BytesIO(study.draw(ROWS))).convert("L"))
    assert min(picture.shape) > 100 and picture.std() > 5


def test_runs_made_otherwise_are_not_mixed_in(tmp_path):
    arguments = study.Arguments(out=tmp_path, data=DataConfig(name="drawn", height=16, width=16), epochs=2)
    study.claim(arguments)
    study.claim(arguments)
    study.claim(replace(arguments, folds=(3,), only=("plain",)))
    of_data = lambda **fields: replace(arguments, data=replace(arguments.data, **fields))
    others = [{"height": 32}, {"share": 0.5}, {"split_seed": 1}, {"folds": 4}, {"also": ("other",)}, {"split": "file"}]
    for other in (replace(arguments, epochs=3), *(of_data(**fields) for fields in others)):
        with pytest.raises(InputError, match=r"study\.json.*choose another --out"):
            study.claim(other)
        study.claim(replace(other, table=True))  # what is there can be looked at
    moved = of_data(dir="elsewhere", share=0.5)
    study.claim(replace(moved, out=tmp_path / "share"))
    study.claim(replace(of_data(share=0.5), out=tmp_path / "share"))


def test_every_variant_is_a_config_and_another_name_is_refused(tmp_path, capsys):
    arguments = study.Arguments(out=tmp_path)
    configs = [study.configure(name, 2, arguments) for name in study.variants()]
    assert len(set(configs)) == len(configs)
    assert {(config.data.fold, config.train.seed) for config in configs} == {(2, 2)}
    assert configs[0].rlar.weight == 0 and next(iter(study.variants())) == "plain"
    assert len({study.folder_of(name, 0, arguments) for name in study.variants()}) == len(configs)
    with pytest.raises(SystemExit):
        study.main(["--out", str(tmp_path), "--only", "hinge 7"])
    assert "'hinge 7' is no variant" in capsys.readouterr().err


@pytest.fixture(scope="module")
def studied(drawn_data, tmp_path_factory):
    """The command and the folder of a study of one epoch: plain training and a penalty.

    The network is shallower than a study's and has no guidance: half as long to compile.
    """
    configure, patch = study.configure, pytest.MonkeyPatch()
    fewer = {"model": {"depth": 2}, "guidance": {"weight": 0.0}}
    patch.setattr(study, "configure", lambda *arguments: replace_groups(configure(*arguments), **fewer))
    out = tmp_path_factory.mktemp("study")
    fields = f"--data.name drawn --data.dir {drawn_data} --data.height 16 --data.width 16 --out {out}"
    command = [*fields.split(), "--folds", "0", "--epochs", "1", "--width", "4"]
    study.main([*command, "--only", "plain", "hinge 1"])
    yield command, out
    patch.undo()


def test_a_study_is_measured_on_the_validation_fold(studied):
    _, out = studied
    plain, hinge = study.results(out)
    assert [plain["variant"], hinge["variant"]] == ["plain", "hinge 1"] and plain["fold"] == 0
    folder = out / "hinge-1-fold0"
    held_out = json.loads((folder / "split.json").read_text())["validation"]
    cases = read_cases(folder / "report" / "validation-last" / "cases.csv")
    assert sorted(case.case for case in cases) == sorted(held_out)
    assert hinge["dice"] == pytest.approx(np.mean([case.dice for case in cases if not np.isnan(case.dice)]))
    assert not (folder / "cases.csv").exists()  # nothing looked at the test part
    assert 0 < plain["cosine_size_latent_channel"] <= 1 and 0 < hinge["cosine_size_stride2_channel"] <= 1
    assert plain["training_penalty_share"] == 0 < hinge["training_penalty_share"]
    assert plain["quarter_cosine"][0] == pytest.approx(hinge["quarter_cosine"][0], rel=1e-3)  # the same first step
    assert (out / "study.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_there_is_not_trained_again(studied, monkeypatch, capsys):
    command, out = studied
    before = (out / "results.jsonl").read_text()

    def fail(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr("thyroid_jax.runs.evaluation.train", fail)
    study.main([*command, "--only", "hinge 1", "plain"])
    printed = capsys.readouterr().out
    assert printed.index("| plain | 1 |") < printed.index("| hinge 1 | 1 |")
    study.main([*command, "--table"])
    assert capsys.readouterr().out == printed
    assert (out / "results.jsonl").read_text() == before
    (line,) = [line for line in printed.splitlines() if line.startswith("| hinge 1 | 1 |")]
    tables = [
        read_cases(out / name / "report" / "validation-last" / "cases.csv") for name in ("hinge-1-fold0", "plain-fold0")
    ]
    gap = paired.difference(*tables, "macro_auroc")
    assert f"({gap.value:+.3f}, {gap.low:+.3f} to {gap.high:+.3f})" in line
    with pytest.raises(AssertionError, match="trained again"):
        study.main([*command, "--only", "square 1"])


def test_a_run_that_was_trained_and_not_measured_is_measured_without_training(studied, monkeypatch, capsys):
    """Killed between the table of cases and the line of results."""
    command, out = studied
    before = study.results(out)
    (out / "results.jsonl").write_text(json.dumps(before[0]) + "\n")
    monkeypatch.setattr("thyroid_jax.runs.evaluation.train", None)
    study.main([*command, "--only", "hinge 1"])
    again = study.results(out)
    assert [row["variant"] for row in again] == ["plain", "hinge 1"]
    for key in ("dice", "cosine_latent_channel", "training_penalty_share"):
        assert again[1][key] == pytest.approx(before[1][key], rel=1e-4)
    capsys.readouterr()

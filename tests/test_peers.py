"""The PyTorch twin without PyTorch: weights, count of operations, the two processes' protocol, stages and records.

With an interpreter that has PyTorch in $THYROID_JAX_TORCH_PYTHON, the twin itself is checked too.
"""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.extend
import numpy as np
import pytest

from experiments.peers import benchmark, check, flops, reference, turns, weights
from experiments.timing.rows import row_of_peer
from thyroid_jax import model
from thyroid_jax.errors import InputError

ROOT = Path(__file__).parent.parent
PEERS = ROOT / "experiments" / "peers"


# --- weights ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", reference.SIZES)
def test_every_parameter_has_one_name_and_comes_back(size):
    chosen = reference.recipe(size, "plain")
    like = reference.parameter_shapes(chosen)
    params = weights.random_params(like)
    names = weights.torch_names(params, chosen.model.blocks)
    assert len(set(names.values())) == len(names) == len(jax.tree.leaves(like))
    flat = weights.to_torch(params, chosen.model.blocks)
    assert sum(a.size for a in flat.values()) == model.parameter_count(like)
    back = weights.from_torch(flat, like, chosen.model.blocks)
    assert jax.tree.structure(back) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, back, params)


def test_kernels_and_matrices_are_in_the_layout_of_torch():
    chosen = reference.recipe("small", "plain")
    params = weights.random_params(reference.parameter_shapes(chosen))
    flat = weights.to_torch(params, chosen.model.blocks)
    shapes = {name: a.shape for name, a in flat.items()}
    assert shapes["encoder.stem.weight"] == (16, 4, 3, 3) and shapes["encoder.stem.bias"] == (16,)
    assert shapes["encoder.blocks.1.shortcut.weight"] == (32, 16, 1, 1)
    assert shapes["decoder.levels.0.reduce.weight"] == (128, 128, 1, 1)
    assert shapes["decoder.levels.3.skip.weight"] == (16, 16, 3, 3)
    assert shapes["decoder.logits.weight"] == (4, 16, 1, 1)
    assert shapes["grade.out.weight"] == (5, 128) and shapes["malignant.hidden.weight"] == (128, 128)
    kernel = params["encoder"]["ResidualBlock_1"]["Conv_0"]["kernel"]
    assert flat["encoder.blocks.1.conv1.weight"][7, 5, 2, 1] == kernel[2, 1, 5, 7]
    assert flat["embed.hidden.weight"][3, 4] == params["heads"]["embed"]["Dense_0"]["kernel"][4, 3]


def test_random_parameters_have_no_two_equal_arrays():
    """Equal arrays could be exchanged, and no check of outputs would see it."""
    params = weights.random_params(reference.parameter_shapes(reference.recipe("tiny", "plain")))
    leaves = jax.tree.leaves(params)
    assert all(leaf.std() > 0 for leaf in leaves if leaf.size > 1)
    assert len({leaf.tobytes() for leaf in leaves}) == len(leaves)


def test_weights_of_another_model_are_refused():
    chosen = reference.recipe("tiny", "plain")
    like = reference.parameter_shapes(chosen)
    flat = weights.to_torch(weights.random_params(like), chosen.model.blocks)
    with pytest.raises(ValueError, match=r"decoder\.logits\.bias"):
        weights.from_torch({name: a for name, a in flat.items() if name != "decoder.logits.bias"}, like, 1)
    with pytest.raises(ValueError, match="surplus"):
        weights.from_torch(flat | {"surplus": np.zeros(1)}, like, 1)
    with pytest.raises(ValueError, match=r"encoder.stem.bias has the shape \(9,\)"):
        weights.from_torch(flat | {"encoder.stem.bias": np.zeros(9)}, like, 1)
    with pytest.raises(ValueError, match="no place for the parameter heads/prior/weight"):
        weights.torch_names({**like, "heads": {**like["heads"], "prior": {"weight": np.zeros(4)}}}, 1)


def test_a_batch_lacks_labels_only_where_asked():
    whole, partly = (weights.random_batch(7, 8, 16, 5, missing=missing) for missing in (False, True))
    flags = [name for name in whole if name.endswith("_valid")]
    assert len(flags) == 4 and all(whole[name].all() for name in flags)
    assert all(0 < partly[name].sum() < 7 for name in flags)
    assert whole["image"].shape == (7, 1, 8, 16) and 0 <= whole["image"].min() < whole["image"].max() <= 1
    assert 0 < whole["mask"].mean() < 1 and (whole["grade"].sum(1) == 1).all()


# --- the project's side -----------------------------------------------------------------------------------------------


def test_settings_that_the_twin_lacks_are_refused():
    chosen = reference.recipe("tiny", "rlar")
    assert reference.training_fields(chosen)["rlar_weight"] == 0.1
    for group, changes in {"rlar": {"kind": "abs"}, "optimizer": {"head_decay": 3.0}}.items():
        with pytest.raises(InputError, match=next(iter(changes))):
            reference.training_fields(chosen.with_settings(group, **changes))
    with pytest.raises(InputError, match="small, base, tiny"):
        reference.recipe("demo", "plain")


def test_the_update_is_the_library_s_without_augmentation(monkeypatch):
    from thyroid_jax.train import step

    monkeypatch.setattr(step, "augment", lambda key, image, mask, config, first: (image, mask))
    chosen = reference.recipe("tiny", "plain", total_steps=0)
    batch = reference.as_batch(weights.random_batch(3, 16, 16, 5, missing=True), chosen)
    state = step.init_state(chosen, jax.random.key(0))
    after, metrics = jax.jit(step.update)(state, batch, chosen)
    params, _, number, value = jax.jit(reference.update)(
        state.params, reference.initial_optimizer(state.params, chosen), state.step, batch, chosen
    )
    assert int(number) == int(after.step) == 1
    np.testing.assert_allclose(value, metrics["loss"].sum, rtol=1e-6)
    for ours, theirs in zip(jax.tree.leaves(params), jax.tree.leaves(after.params), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


# --- operations -------------------------------------------------------------------------------------------------------


def test_flops_of_a_network_counted_by_hand():
    """Tiny at 8 x 8: levels of 4 channels at 4 x 4 and 8 channels at 2 x 2; one block a level."""
    config = reference.recipe("tiny", "plain").model
    encoder = 16 * 9 * 4 * 4 + 2 * 16 * 9 * 4 * 4 + 4 * 9 * (4 * 8 + 8 * 8) + 4 * 4 * 8
    decoder = 4 * 8 * 4 + 16 * 9 * 4 * 4 * 2 + 16 * 4 * 4
    heads = 8 * 16 + 16 * 16 + 2 * 16 * 16 + 16 * 5 + 16 * 1
    assert sum(p.flops for p in flops.products(config, 8, 8)) == 2 * (encoder + decoder + heads)
    assert flops.of_plain_step(config, 5, 8, 8) == 3 * 5 * 2 * (encoder + decoder + heads)


def counted_by_trace(jaxpr):
    """2 x multiplications of every convolution and matrix product in a traced program, borders counted in full."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape  # HWIO
            total += 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(kernel[:3])
        elif equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            inner = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
            total += 2 * math.prod(equation.outvars[0].aval.shape) * inner
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            total += counted_by_trace(inner)
    return total


@pytest.mark.parametrize("size", reference.SIZES)
def test_flops_are_those_of_the_traced_model(size):
    chosen = reference.recipe(size, "plain")
    image = jax.ShapeDtypeStruct((1, 64, 96, 1), np.float32)

    def used(params, image):  # the radiomics head has no task
        outputs = model.apply(params, chosen.model, image)
        return outputs.mask_logits, outputs.grade_logits, outputs.malignant_logit

    traced = jax.make_jaxpr(used)(reference.parameter_shapes(chosen), image)
    radiomics = 2 * chosen.model.radiomics**2  # traced all the same
    assert sum(p.flops for p in flops.products(chosen.model, 64, 96)) == counted_by_trace(traced.jaxpr) - radiomics


def test_flops_of_other_models_are_not_guessed():
    other = model.ModelConfig.preset("tiny", pooling="attention")
    with pytest.raises(InputError, match="only the residual encoder"):
        flops.products(other, 8, 8)


def test_utilisation():
    assert flops.utilisation(989e12, 2.0, 989.0) == 0.5
    assert math.isnan(flops.utilisation(1.0, 1.0, 0.0)) and math.isnan(flops.utilisation(1.0, math.nan, 1.0))


# --- turns ------------------------------------------------------------------------------------------------------------

CHILD = """
import json, os, sys, time
sys.path.insert(0, sys.argv[1])
import turns
answer = turns.private_output()
print("a library prints this")
def fail(number): raise MemoryError("out of memory\\nmore")
def leave(number): os._exit(3)
def sleep(number): time.sleep(60)
commands = {"go": turns.timed(lambda number: 2.0 * number), "fail": fail, "leave": leave, "sleep": sleep}
commands["first"] = turns.first_step(lambda: None, lambda number: 7.0 * number)
commands["warm"], commands["facts"] = commands["go"], lambda number: {"step_mib": 5.0}
print(json.dumps(turns.READY), file=answer, flush=True)
turns.serve(commands, sys.stdin, answer)
"""


@pytest.fixture
def child():
    made = turns.start("fake", [sys.executable, "-c", CHILD, str(PEERS)], os.environ)
    yield made
    turns.stop(made, 2.0)
    made.process.stdout.close()


def test_a_child_answers_in_turn_and_survives_its_errors(child):
    assert turns.answered(child, 60) == turns.READY
    reply = turns.ask(child, "go", 21, 60)
    assert reply["objective"] == 42.0 and reply["seconds"] >= 0 and not turns.failed(reply)
    assert turns.failed(turns.ask(child, "fail", 1, 60)) == "MemoryError: out of memory"
    assert turns.failed(turns.ask(child, "unknown", 1, 60)) == "KeyError: 'unknown'"
    assert turns.ask(child, "go", 1, 60)["objective"] == 2.0


def test_a_child_that_ends_or_hangs_is_an_error_and_no_wait(child):
    assert turns.answered(child, 60) == turns.READY
    assert turns.failed(turns.ask(child, "sleep", 1, 0.2)) == "no answer in time"
    turns.stop(child, 0.1)
    assert child.process.returncode == -9


def test_a_child_that_ended_says_so(child):
    assert turns.answered(child, 60) == turns.READY
    assert turns.failed(turns.ask(child, "leave", 1, 60)).startswith("the process ended, status 3")


def measured(child, monkeypatch, *words):
    arguments = benchmark.parse(["--rounds", "2", "--steps", "4", *words])
    monkeypatch.setattr(benchmark, "start", lambda *_: child)
    monkeypatch.setattr(benchmark, "groups", lambda *_: [["jax"]])
    return [benchmark.record(s, side, row, row, arguments) for s in benchmark.stages(arguments)[:1]
            for side, row in benchmark.measure([child], lambda: 60.0, arguments).items()]  # fmt: skip


def test_a_measured_child_gives_a_whole_record(child, monkeypatch):
    (line,) = measured(child, monkeypatch, "--peak-tflops", "float32=1")
    assert line["first_objective"] == 7.0 and line["last_objective"] == 8.0 and line["step_mib"] == 5.0
    assert (
        len(line["seconds"]) == len(line["cpu_seconds"]) == 2
        and line["time_ratio"] == 1.0
        and line["steps_of_turn"] == 4
    )
    assert line["mfu"] == pytest.approx(line["plain_step_flops"] / line["median_s"] / 1e12)
    assert not benchmark.differs(line)
    json.dumps(benchmark.without_nan(line), allow_nan=False)
    assert benchmark.table_row(line).count("|") == benchmark.HEADER.splitlines()[0].count("|")


def test_a_child_that_takes_too_long_to_set_up_is_ended_and_the_others_go_on(child):
    slow_words = CHILD.replace("turns.first_step(lambda: None, lambda number: 7.0 * number)", "sleep")
    slow = turns.start("slow", [sys.executable, "-c", slow_words, str(PEERS)], os.environ)
    arguments = benchmark.parse(["--set-up-seconds", "1", "--set-up", "at_once"])
    found = benchmark.measure([slow, child], lambda: 60.0, arguments)
    assert found["slow"]["error"] == "no answer in time" and slow.process.returncode == -9
    assert "error" not in found["fake"] and len(found["fake"]["seconds"]) == 3
    slow.process.stdout.close()


# --- stages and results -----------------------------------------------------------------------------------------------


def test_the_first_batch_of_every_type_comes_first():
    arguments = benchmark.parse("--device gpu --batch 32 8 --dtype bfloat16 tf32 --methods plain".split())
    order = [(stage.dtype, stage.batch) for stage in benchmark.stages(arguments)]
    assert order == [("bfloat16", 32), ("tf32", 32), ("bfloat16", 8), ("tf32", 8)]


def test_large_stages_on_a_gpu_run_one_process_after_another():
    arguments = benchmark.parse(["--device", "gpu", "--compile", "--together", "32"])
    stage = lambda dtype, batch: benchmark.Stage("base", "plain", dtype, batch, (64, 64))
    together = [["jax", "eager", "eager_nchw", "compile"]]
    alone = [[name] for name in together[0]]
    of = lambda *fields: benchmark.groups(stage(*fields), arguments.forms, arguments)
    assert of("bfloat16", 32) == of("float32", 16) == together and of("bfloat16", 33) == of("tf32", 32) == alone
    arguments.device = "cpu"
    assert of("float32", 500) == together


@pytest.mark.parametrize(
    "words, message",
    [
        ("--compile-mode max-autotune", "without --compile"),
        ("--rounds 0", "at least 1"),
        ("--starts 0", "at least 1"),
        ("--dtype tf32", "type of GPUs"),
        ("--peak-tflops half=3", "DTYPE=TFLOPS"),
        ("--peak-tflops float32=-3", "DTYPE=TFLOPS"),
        ("--peak-tflops float32=nan", "DTYPE=TFLOPS"),
    ],
)
def test_arguments_that_make_no_sense(words, message):
    with pytest.raises(InputError, match=message):
        benchmark.parse(words.split())


def test_ratios_are_of_turns_that_both_have():
    assert benchmark.median_ratio([2.0, 9.0, 8.0], [1.0, 3.0, 2.0]) == 3.0
    assert math.isnan(benchmark.median_ratio([], [])) and math.isnan(benchmark.median_ratio([1.0], [1.0, 2.0]))


def test_several_starts_of_the_processes_are_one_row_with_the_median_and_the_range():
    arguments = benchmark.parse(["--rounds", "2", "--starts", "3"])
    stage = benchmark.stages(arguments)[0]
    facts = {"first_objective": 2.0, "cpu_seconds": [1.0, 1.0]}
    start = lambda ours, theirs: {"jax": facts | {"seconds": ours}, "eager": facts | {"seconds": theirs}}
    found = benchmark.joined([
        start([1.0, 1.0], [1.2, 1.2]), start([2.0, 2.0], [1.8, 2.0]), start([1.0, 1.0], [9.0, 9.0]),
    ])  # fmt: skip
    line = benchmark.record(stage, "eager", found["eager"], found["jax"], arguments)
    assert line["time_ratios"] == pytest.approx([1.2, 0.95, 9.0]) and line["time_ratio"] == pytest.approx(1.2)
    assert line["cpu_time_ratio"] == 1.0 and line["median_s"] == pytest.approx(1.9)
    assert "1.20 (0.95 to 9.00)" in benchmark.table_row(line)
    assert row_of_peer(line).name == "plain, PyTorch eager (3 starts, 0.95 to 9.00)" and row_of_peer(line).time == 1.2
    broken = benchmark.joined([{"eager": {"error": "MemoryError", "seconds": [], "cpu_seconds": []}}, found])
    assert benchmark.record(stage, "eager", broken["eager"], found["jax"], arguments)["error"] == "MemoryError"


def test_a_failed_or_different_side_is_no_silent_number():
    arguments = benchmark.parse([])
    stage = benchmark.stages(arguments)[0]
    ours = {"seconds": [1.0, 1.0], "first_objective": 2.0}
    line = benchmark.record(stage, "eager", {"seconds": [], "error": "OutOfMemoryError: 3 GiB"}, ours, arguments)
    row = benchmark.table_row(line)
    assert "OutOfMemoryError" in row and row.count("|") == benchmark.HEADER.splitlines()[0].count("|")
    assert math.isnan(line["median_s"]) and math.isnan(line["time_ratio"]) and math.isnan(line["mfu"])
    for objective, wrong in ((2.00001, False), (2.1, True), (math.nan, True)):
        theirs = {"seconds": [1.0, 3.0], "first_objective": objective}
        line = benchmark.record(stage, "eager", theirs, ours, arguments)
        assert benchmark.differs(line) is wrong and line["time_ratio"] == 2.0
    assert benchmark.differs(benchmark.record(stage, "eager", theirs, {"seconds": []}, arguments))


# --- agreement --------------------------------------------------------------------------------------------------------


def test_differences_are_relative_and_see_what_is_missing_or_not_a_number():
    ours = {"gradient a": np.array([3.0, 4.0]), "gradient b": np.zeros(2), "loss": np.array(2.0)}
    theirs = {"gradient a": np.array([3.0, 4.5]), "gradient b": np.zeros(2), "loss": np.array(2.0)}
    found = check.differences(ours, theirs)
    assert found == {"gradient a": pytest.approx(0.1), "gradient b": 0.0, "loss": 0.0}
    found = check.differences(ours, theirs | {"gradient b": np.array([0.0, 1e-9]), "loss": np.array(np.nan)})
    assert found["gradient b"] == np.inf and np.isnan(found["loss"])
    with pytest.raises(ValueError, match="one side lacks loss"):
        check.differences(ours, {name: a for name, a in theirs.items() if name != "loss"})
    with pytest.raises(ValueError, match="shapes"):
        check.differences(ours, theirs | {"loss": np.zeros(1)})


def test_faults_are_rows_above_their_tolerance():
    table = check.rows({"loss": 1e-5, "gradient a": 1e-5, "gradient b": np.nan, "change a": 5e-3})
    assert list(table) == ["loss", "gradient, largest of 2 arrays", "change, largest of 1 arrays"]
    assert [fault.split(":")[0] for fault in check.faults(table, "float32")] == ["gradient, largest of 2 arrays"]
    assert len(check.faults(table, "float64")) == 3


@pytest.mark.parametrize("method", reference.METHODS)
def test_the_twin_agrees_with_the_project(method):
    python = os.environ.get("THYROID_JAX_TORCH_PYTHON", "")
    if not python:
        # PyTorch has an environment of its own (experiments/peers/README.md); the project's must not need it.
        pytest.skip("THYROID_JAX_TORCH_PYTHON names no interpreter that has PyTorch")
    words = ["--size", "tiny", "--method", method, "--image", "16", "24", "--batch", "7", "--torch-python", python]
    done = subprocess.run(
        [sys.executable, "-m", "experiments.peers.check", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "| gradient, largest of 44 arrays |" in done.stdout

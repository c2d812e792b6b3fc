"""The benchmark's variants are settings of their own, its table names every base, and one command runs all parts."""

import io
import json
import sys
import typing

import pytest

from experiments import bench_accelerator, benchmark, sweep_speed
from experiments.peers import benchmark as peers
from experiments.timing import rows, worker
from experiments.timing.variants import Group, configure, variants
from thyroid_jax.errors import InputError

GROUPS = typing.get_args(Group)


@pytest.mark.parametrize("group", GROUPS)
def test_every_variant_is_a_config_of_its_own(group):
    found = variants(group, flags=("xla_a=1",))
    assert next(iter(found)) == ("float32, plain" if group == "memory" else "plain")
    configs = {name: configure("small", variant, (64, 96)) for name, variant in found.items()}
    sizes = {name: (config.data.height, config.data.width) for name, config in configs.items()}
    assert all(size == (found[name].size or (64, 96)) for name, size in sizes.items())
    different = {(str(configs[name]), *found[name][1:]) for name in found}
    assert len(different) == len(found)


def test_memory_compares_precision_recomputing_and_parts():
    found = [configure("small", variant) for variant in variants("memory").values()]
    values = {(c.model.dtype, bool(c.rlar.weight), c.model.remat, c.train.accumulate) for c in found}
    for dtype in ("float32", "bfloat16"):
        for rlar in (False, True):
            for remat, parts in (("none", 1), ("activations", 1), ("blocks", 1), ("none", 4)):
                assert (dtype, rlar, remat, parts) in values


@pytest.mark.parametrize("batches", ["pipeline", "alone"])
def test_a_worker_tells_its_facts_and_then_every_turn(batches, monkeypatch, capsys):
    variant = next(v for v in variants("input").values() if v.batches == batches)
    monkeypatch.setattr(sys, "stdin", io.StringIO("go\ngo\n"))
    monkeypatch.setattr(worker, "keep_memory", lambda: True)
    worker.work(variant, configure("tiny", variant._replace(size=None), (16, 32)), 2, timed=True)
    facts, *turns = map(json.loads, capsys.readouterr().out.splitlines())
    assert (facts["gflop"] is None) == (batches == "alone") and len(turns) == 2
    for turn in turns:
        assert 0 <= turn["waited"] <= turn["seconds"] and turn["cpu"] > 0
        assert (turn["waited"] > 0) == (batches == "pipeline")


def test_rows_have_the_medians_of_turns_and_their_ratios_to_the_base():
    facts = {
        "plain": {"compile": 3.0, "gflop": 2.0, "mib": 100.0, "held": 20.0},
        "fed": {"compile": 3.0, "gflop": None, "mib": 150.0, "held": 20.0},
        "alone": {"compile": None, "gflop": None, "mib": None, "held": None},
    }
    turn = lambda seconds, waited=0.0: {"seconds": seconds, "waited": waited, "cpu": 2 * seconds}
    turns = {
        "plain": [turn(1.0), turn(2.0), turn(4.0)],
        "fed": [turn(1.5, 0.1), turn(3.0, 0.1), turn(8.0, 0.4)],
        "alone": [turn(0.5), turn(0.5), turn(0.4)],
    }
    plain, fed, waiting, alone = rows.rows_of("input", facts, turns, 4)
    assert (plain.time, plain.flops, plain.memory, plain.images_per_second) == (1.0, 1.0, 1.0, 2.0)
    assert (fed.base, fed.time, fed.memory, fed.peak_mib_per_image, fed.flops) == ("plain", 1.5, 1.5, 42.5, None)
    assert (waiting.name, waiting.seconds, waiting.time) == ("fed: waiting for data", 0.1, 0.1)
    assert (alone.time, alone.images_per_second, alone.cpu_per_image, alone.memory) == (0.25, 8.0, 0.25, None)
    assert benchmark.cores_for(alone) == "alone: 4,000 images/s keep 1000.00 cores busy."
    assert rows.line_of(fed) == "| input | fed | plain | 3.0000 | 1.500 | 1 | - | - | 150 | 1.50 | 42.50 | 3.0 |"
    compiled = rows.rows_of("memory", {"plain": facts["plain"]}, {}, 4)
    assert rows.line_of(compiled[0]) == "| memory | plain | plain | - | - | - | 2.0 | 1.00 | 100 | 1.00 | 30.00 | 3.0 |"


def test_lines_of_the_twin_are_rows_and_an_error_is_a_reason():
    line = {"method": "rlar", "side": "eager", "median_s": 0.5, "time_ratio": 1.25, "batch": 8, "step_mib": 80.0}
    found = rows.row_of_peer(line | {"setup_s": None})
    assert (found.name, found.base, found.time) == ("rlar, PyTorch eager", "rlar, JAX", 1.25)
    assert (found.images_per_second, found.peak_mib_per_image, found.compile_seconds) == (16.0, 10.0, None)
    assert rows.row_of_peer(line | {"median_s": None}).images_per_second is None
    failed = rows.line_of(rows.row_of_peer({"method": "plain", "side": "jax", "error": "out of memory"}))
    assert failed.startswith("| peers | plain, JAX | not run: out of memory | |")
    assert failed.count("|") == rows.HEADER.split("\n")[0].count("|")


def test_a_variant_that_the_config_has_no_place_for_is_a_row_that_says_so(monkeypatch):
    """The encoder of the trial's size has two levels: it ended the whole group at RLAR of a third."""
    fact = {"compile": 3.0, "gflop": 2.0, "mib": 100.0, "held": 20.0}
    monkeypatch.setattr(benchmark, "start", lambda group, name, variant, arguments: name)
    monkeypatch.setattr(benchmark, "ask", lambda worker, name: fact)
    monkeypatch.setattr(benchmark, "end", lambda worker: None)
    arguments = benchmark.Arguments(config="tiny", only=("rlar",), batch_size=2, rounds=0)
    found = {row.name: row.missing for row in benchmark.measured("rlar", arguments)}
    assert list(found) == list(variants("rlar"))
    assert "no level 'stride8'" in found.pop("RLAR at stride8") and set(found.values()) == {""}


def test_without_pytorch_the_peers_are_a_row_that_says_what_is_missing(tmp_path, capsys):
    benchmark.main(["--only", "peers", "--config", "tiny", "--out", str(tmp_path / "rows.jsonl")])
    assert "| peers | the step in PyTorch | not run: needs --torch-python" in capsys.readouterr().out
    benchmark.main(
        ["--only", "peers", "--config", "small", "--pixels", "64", "96", "--out", str(tmp_path / "rows.jsonl")]
    )
    one, other = map(json.loads, (tmp_path / "rows.jsonl").read_text().splitlines())
    assert "--torch-python" in one["missing"] and one["name"] == other["name"]
    assert (one["config"], one["pixels"], one["batch_size"]) == ("tiny", [32, 32], 8) and one["device"] == "cpu"
    assert (other["config"], other["pixels"]) == ("small", [64, 96])


@pytest.mark.parametrize("options, message", [
    ({"rounds": 0}, "times nothing"), ({"batch_size": 0}, "at least 1"), ({"flags": ("xla_a=1",)}, "--only flags"),
])  # fmt: skip
def test_options_that_would_do_nothing_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        benchmark.Arguments(**options)


# --- all parts that need an accelerator -------------------------------------------------------------------------------

GPU, CPU = bench_accelerator.Device("gpu", "NVIDIA H100 80GB HBM3"), bench_accelerator.Device("cpu", "cpu")


@pytest.mark.parametrize("trial, torch_python", [(False, ""), (False, "ENV/bin/python"), (True, "")])
def test_the_words_of_every_part_are_those_of_its_script(trial, torch_python, tmp_path):
    import tyro

    arguments = bench_accelerator.Arguments(tmp_path, trial=trial, torch_python=torch_python)
    kinds = {"benchmark": benchmark.Arguments, "sweep_speed": sweep_speed.Arguments}
    for part in bench_accelerator.SHARES:
        script, *words = bench_accelerator.words_of(part, arguments, CPU if trial else GPU, 100.0)
        words += ["--out", str(tmp_path / "rows.jsonl")]
        if part == "peers":
            found = peers.parse(words)
            assert found.forms == (["eager", "eager_nchw", "compile"] if torch_python else [])
            assert found.device == ("cpu" if trial else "gpu") and ("bfloat16" in found.peak_tflops) == (not trial)
        else:
            assert tyro.cli(kinds[script], args=words).config == (
                "tiny" if trial else "small" if part in ("rlar", "sweep") else "base"
            )


def test_parts_are_kept_and_what_is_not_finished_is_run_again(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    printed = "import os; print(os.path.relpath(os.environ['JAX_COMPILATION_CACHE_DIR'], os.environ['OUT']))"
    monkeypatch.setenv("OUT", str(tmp_path))
    scripts = {"sweep": ["-c", printed], "input": ["-c", "import sys; print('half'); sys.exit(3)"]}

    def popen(words, **options):
        return real([sys.executable, *scripts[words[3]]], **options)

    real = bench_accelerator.subprocess.Popen
    monkeypatch.setattr(bench_accelerator.subprocess, "Popen", popen)
    monkeypatch.setattr(bench_accelerator, "device_here", lambda: GPU)
    monkeypatch.setattr(bench_accelerator, "words_of", lambda part, *given: ["script", part])
    words = ["--out", str(tmp_path), "--parts", "sweep", "input"]
    bench_accelerator.main(words)
    told = capsys.readouterr().out
    assert "\ncompiled\n" in told and "input: not finished: exit status 3" in told
    scripts["input"] = ["-c", "import os; assert 'JAX_COMPILATION_CACHE_DIR' not in os.environ; print('whole')"]
    bench_accelerator.main(words)
    assert "sweep: done before" in capsys.readouterr().out
    assert (tmp_path / "sweep.md").read_text() == "compiled\n" and (
        tmp_path / "input.md"
    ).read_text() == "half\nwhole\n"
    ends = [json.loads(line) for line in (tmp_path / "parts.jsonl").read_text().splitlines()]
    assert [(end["part"], end["missing"]) for end in ends] == [("sweep", ""), ("input", "exit status 3"), ("input", "")]
    for other, device in ((["--trial"], GPU), ([], CPU._replace(platform="gpu"))):  # not taken for what is there
        monkeypatch.setattr(bench_accelerator, "device_here", lambda device=device: device)
        with pytest.raises(SystemExit):
            bench_accelerator.main([*words, *other])
        assert f"is of measurements on {GPU.name}; choose another --out" in capsys.readouterr().err
    log = tmp_path / "peers.jsonl"
    log.write_text(json.dumps({"part": "peers", "device": "a", "torch": False, "missing": ""}) + "\n")
    assert [bench_accelerator.is_finished(log, "peers", torch) for torch in (False, True)] == [True, False]
    assert bench_accelerator.is_finished(tmp_path / "parts.jsonl", "sweep", True)


def test_a_part_that_takes_too_long_is_interrupted_and_keeps_what_it_printed(tmp_path, monkeypatch):
    # A test run in the background of a shell passes on that SIGINT is ignored.
    code = "import signal, time\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "print('row', flush=True)\ntry:\n open('ready', 'w').close()\n time.sleep(600)\n"
    code += "finally: print('ended')"
    real = bench_accelerator.subprocess.Popen

    def popen(words, **options):
        process = real([sys.executable, "-c", code], cwd=tmp_path, **options)
        while not (tmp_path / "ready").exists():
            assert process.poll() is None
        return process

    monkeypatch.setattr(bench_accelerator.subprocess, "Popen", popen)
    assert bench_accelerator.run(["x"], tmp_path, "rlar", 0.1) == "stopped after 0 s"
    assert (tmp_path / "rlar.md").read_text() == "row\nended\n"


def test_a_trial_gives_each_part_the_whole_time_and_fails_where_one_does_not_run(tmp_path, monkeypatch, capsys):
    given = {}

    def run(words, out, part, seconds):
        given[part] = seconds
        return "stopped after 50 s" if part == "rlar" and not tmp_path.joinpath("mended").exists() else ""

    monkeypatch.setattr(bench_accelerator, "device_here", lambda: CPU)
    monkeypatch.setattr(bench_accelerator, "run", run)
    words = ["--out", str(tmp_path), "--trial", "--seconds", "50"]
    with pytest.raises(SystemExit) as ended:
        bench_accelerator.main(words)
    assert ended.value.code == 1 and capsys.readouterr().err == "\nnot every part runs here: rlar\n"
    assert given == dict.fromkeys(bench_accelerator.SHARES, 50.0)
    (tmp_path / "mended").touch()
    bench_accelerator.main(words)


def test_without_an_accelerator_only_a_trial_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench_accelerator, "device_here", lambda: CPU)
    with pytest.raises(SystemExit):
        bench_accelerator.main(["--out", str(tmp_path / "out")])
    assert "no accelerator here" in capsys.readouterr().err and not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="this is a tpu"):
        bench_accelerator.words_of(
            "peers", bench_accelerator.Arguments(tmp_path), bench_accelerator.Device("tpu", "v5"), 9
        )

"""The study of faults, on a stand-in for the training: each disturbance reaches its process, and a loss is found."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from experiments import faults

# Goes on from its newest checkpoint. Its first process in a folder never ends by itself, the next one is undisturbed.
TRAINING = """
import json, pathlib, signal, sys, time
folder, losing = pathlib.Path(sys.argv[1]), sys.argv[2] == "losing"
last = folder / "checkpoints" / "last"
before = max((int(path.name) for path in last.glob("*")), default=0)
endless = folder.name != "undisturbed" and before == 0
signal.signal(signal.SIGTERM, lambda *given: sys.exit(75))
step = before
while endless or step < 9:
    step += 1
    try:
        (folder / "room").write_bytes(bytes(2 << 20))
    except OSError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    (last / str(step)).mkdir(parents=True, exist_ok=True)
    time.sleep(0.01)
lost = losing and before > 0
(folder / "parameters").write_text(str(0.1 + lost * 2e-17))
(folder / "log.jsonl").write_text(json.dumps({"step": 9, "loss": 1.0 + lost, "seconds_step": time.time()}) + "\\n")
(folder / ".x.writing-1").touch() if lost else None
"""


@pytest.fixture
def study(tmp_path, monkeypatch):
    """study("whole" or "losing") -> exit status, with one disturbance of every kind."""

    def load(folder, *, checkpoint):
        return SimpleNamespace(step=9, params={"w": np.array(float((folder / "parameters").read_text()))})

    def run(kind):
        def start(run_dir, data):
            run_dir.mkdir(parents=True, exist_ok=True)
            words = [sys.executable, "-S", "-c", TRAINING, str(run_dir), kind]
            return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

        monkeypatch.setattr(faults, "start", start)
        try:
            faults.main([*f"--out {tmp_path} --kills 1 --terms 1 --failures 1 --runs 1 --seed 3".split()])
        except SystemExit as stop:
            return stop.code
        return 0

    monkeypatch.setattr(faults.predict, "load", load)
    monkeypatch.setattr(faults.builder, "build", lambda *given: None)
    return run


def test_each_disturbance_reaches_its_process_and_nothing_differs(study, capsys):
    assert study("whole") == 0
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][1:]
    assert table == [
        "| kill -9 | 1 | -9: 1 | 1 | 1 | 0 |",
        "| SIGTERM | 1 | 75: 1 | 1 | 1 | 0 |",
        "| refused write | 1 | 2: 1 | 1 | 1 | 0 |",
    ]


def test_a_lost_bit_a_changed_log_and_a_fragment_are_found(study, tmp_path, capsys):
    assert study("losing") == 1
    printed = capsys.readouterr().out
    assert [line[-4:] for line in printed.splitlines() if line.startswith("| ")][1:] == [" 1 |"] * 3
    for found in ("best parameters differ", "last parameters differ", "its log differs", "a fragment is left"):
        for name in ("kill -9", "SIGTERM", "refused write"):
            assert f"{tmp_path / name}-0: {found}" in printed


def test_a_last_process_that_fails_and_a_traceback_are_differences(tmp_path):
    last = faults.Ended(3, "one\nno space", 0)
    assert faults.faults_of(tmp_path, last, tmp_path) == ["its last process ended with 3: one\nno space"]
    shown = faults.table([faults.Tried("kill -9", [last, faults.Ended(-9, "", 2)], ["a: x", "a: y", "b: x"])], runs=4)
    assert shown.splitlines()[-1] == "| kill -9 | 2 | -9: 1, 3: 1 | 1 | 4 | 2 |"

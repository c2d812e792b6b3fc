"""One process of several that train the small run of ``loop_runs.DoubleRun`` together; started by ``test_hosts.py``.

python hosts_worker.py RUN_DIR HOST:PORT PROCESSES PROCESS [stop|die STEPS]

After STEPS of its own steps it asks to stop, or kills itself. Exit status 75: stopped before the last step.
"""

import os
import signal
import sys
from pathlib import Path

from thyroid_jax.errors import Interrupted, exits_cleanly
from thyroid_jax.train import hosts
from thyroid_jax.train.devices import by_jit


def asks(what, steps):
    """A ``stop`` for ``fit``; it is called once before the first step."""
    asked = iter(range(10**6))

    def stop():
        reached = next(asked) >= steps
        if reached and what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        return reached

    return stop


@hosts.leaves_at_once
@exits_cleanly
def main():
    folder, address, processes, process, *wish = sys.argv[1:]
    hosts.join(hosts.HostOptions(distributed=address, processes=int(processes), process=int(process)))
    from loop_runs import DoubleRun

    with hosts.together():
        run = DoubleRun(by_jit())
        state = run.train(Path(folder), asks(wish[0], int(wish[1])) if wish else lambda: False)
        step = int(state.step)
    if step < 12:
        raise Interrupted(f"stopped after step {step}", status=75)


if __name__ == "__main__":
    main()

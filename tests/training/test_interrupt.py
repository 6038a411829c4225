"""A stop signal that comes twice at once is one request; a later one ends the process."""

import signal
import subprocess
import sys

PROGRAM = """
import signal, time
from rediffuse.training import interrupt

with interrupt.stop_requests() as stop:
    signal.raise_signal({number})
    signal.raise_signal({number})
    print(stop.received.name, flush=True)
    time.sleep(interrupt.SAME_REQUEST + 0.1)
    signal.raise_signal(signal.{other})
    print("goes on", flush=True)
    signal.raise_signal({number})
    print("was not ended")
"""


def test_the_same_signal_ends_the_process_only_if_it_comes_later() -> None:
    for name, other in (("SIGTERM", "SIGINT"), ("SIGINT", "SIGTERM")):
        number = getattr(signal, name).value
        program = PROGRAM.format(number=number, other=other)
        ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert (ran.stdout, ran.returncode) == (f"{name}\ngoes on\n", -number)

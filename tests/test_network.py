"""No command opens a connection or looks up a name, and all of them work on a machine without a network."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PROGRAM = """
import os, socket, sys
from rediffuse.cli.main import main

tried = []

def watch(event, args):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.connect", "socket.sendto", "socket.sendmsg"):
        tried.append((event, args))

sys.addaudithook(watch)
try:
    socket.create_connection(("192.0.2.1", 80), timeout=5)
except OSError as error:
    assert "unreachable" in str(error), error
else:
    sys.exit("this process has a network")
assert [event for event, _ in tried] == ["socket.getaddrinfo", "socket.connect"], tried  # so others would be seen
tried.clear()
for words in open(sys.argv[1]).read().splitlines():
    status = main(words.split())
    print("finished:", words, status, tried)
    assert status == 0 and not tried
assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == os.environ["DISABLE_TELEMETRY"] == "1"
"""
COMMANDS = """
models
info default
detect image.png --report report.html --model default
dire image.png --out maps --steps 2
sample --out samples --seeds 0 --steps 2
invert image.png --out latents --steps 2
eval nll image.png --steps 2
convert default converted
audit image.png image.png
train diffusion --data . --out run --num-steps 1 --batch-size 1 --num-images 1 --num-sampling-steps 2 --device cpu
"""


def test_no_command_uses_the_network(tmp_path: Path) -> None:
    own_network = ["unshare", "--map-root-user", "--net"]  # without any route
    try:
        probe = subprocess.run([*own_network, "true"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no unshare here")
    if probe.returncode:
        pytest.skip(f"the system does not give a process a network of its own: {probe.stderr.strip()}")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    (tmp_path / "commands").write_text(COMMANDS.strip())
    program = [sys.executable, "-c", PROGRAM, "commands"]
    ran = subprocess.run([*own_network, *program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
    assert ran.stdout.count("finished:") == len(COMMANDS.strip().splitlines())

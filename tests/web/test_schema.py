"""Requests that schemathesis makes from the description of the interface.

`benchmarks/server.py schema` makes 10,000 of them.
"""

import re
import subprocess
import sys
from pathlib import Path

from web.running import Running

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def test_no_request_of_schemathesis_is_answered_otherwise_than_described(site: Running, tmp_path: Path) -> None:
    program = "from schemathesis.cli import schemathesis; schemathesis()"
    words = ["run", f"{site.url}/api/openapi.json", "--checks", CHECKS, "--phases", "coverage,fuzzing"]
    words += ["--max-examples", "5", "--seed", "0", "--exclude-path", "/api/jobs/{id}/events", "--no-color"]
    command = [sys.executable, "-c", program, *words]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)  # it keeps a cache there
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-2000:]


def test_every_reference_of_the_description_is_in_it(site: Running) -> None:
    with site.client() as client:
        answer = client.get("/api/openapi.json")
    references = set(re.findall(r'"#/components/schemas/(\w+)"', answer.text))
    assert {"Problem", "JobStatus"} <= references
    assert references <= set(answer.json()["components"]["schemas"])

"""schemathesis against the service with the bundled model, for long: no 500, no hang, nothing undescribed.

    python benchmarks/serve_fuzz.py [--examples 300] [--seed 1]

Starts `aim-local serve` on loopback and runs schemathesis' own command on its description. Exits with its exit code, or
with 1 where the service itself ended or had a fault.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile

SERVE = "from aim_local.cli import main; main()"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    command = [
        sys.executable,
        "-P",
        "-c",
        SERVE,
        "serve",
        "--port",
        "0",
        "--threads",
        "1",
        "--json",
        "--timeout",
        "60s",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        address = json.loads(service.stdout.readline())["address"]
        tool = [sys.executable, "-m", "schemathesis.cli", "run", f"{address}/openapi.json"]
        amount = ["--max-examples", str(args.examples), "--seed", str(args.seed), "--continue-on-failure"]
        checks = ["--exclude-checks", "positive_data_acceptance", "--request-timeout", "90"]
        with tempfile.TemporaryDirectory() as folder:  # it keeps a cache where it is run
            run = subprocess.run([*tool, *amount, *checks], cwd=folder, check=False)
        service.send_signal(signal.SIGTERM)
        _, log = service.communicate(timeout=120)
    faults = [line for line in log.splitlines() if line.startswith("error:") or "Traceback" in line]
    print(f"the service ended with {service.returncode}; requests: {log.count(' ms')}, faults: {faults}")
    return run.returncode or int(bool(service.returncode or faults))


if __name__ == "__main__":
    sys.exit(main())

"""A language model here, and with all its layers on one and on two RPC servers: load time, prefill, decode, bytes.

The servers are processes of this machine on loopback, one thread each, as the local run has. Bytes are counted by a
relay between client and servers, in a run of their own; times are of runs without it. A token's bytes are those of a
later token, when the graph is known to the servers. Without a vision tower: it is on this machine in each case.
Processor time is that of all processes together, and hardly depends on what else the machine does.

  python benchmarks/rpc.py [--shape 0.5b] [--type q4_0] [--frames 32] [--settings off,paper] [--rounds 3]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from rpc_case import Relay, Server

from aim_local import LoadConfig
from aim_local.lab.bench.cache import random_model
from aim_local.lab.bench.session import Session
from aim_local.lab.bench.shapes import parse_shape
from aim_local.settings import parse_setting
from aim_local.store import ModelPaths

FEW, MANY = 2, 18  # tokens decoded; the difference is what a later token costs
WHERE = {"here": 0, "one server": 1, "two servers": 2}


@dataclass(frozen=True)
class Traffic:
    """Bytes to the servers and from them."""

    up: int
    down: int

    def __sub__(self, other: Traffic) -> Traffic:
        return Traffic(self.up - other.up, self.down - other.down)

    def over(self, n: int) -> Traffic:
        return Traffic(self.up // n, self.down // n)

    def __str__(self) -> str:
        return f"{amount(self.up)} up, {amount(self.down)} down"


def amount(n: int) -> str:
    return f"{n / 1e6:.1f} MB" if n >= 1e5 else f"{n / 1e3:.1f} kB"


def sent(relays: Sequence[Relay]) -> Traffic:
    return Traffic(sum(relay.n_up for relay in relays), sum(relay.n_down for relay in relays))


def cpu_ms(servers: Sequence[Server]) -> float:
    """Processor time of this process and the servers so far."""
    ticks = 0
    for server in servers:
        facts = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(facts[11]) + int(facts[12])  # utime, stime
    return (time.process_time() + ticks / os.sysconf("SC_CLK_TCK")) * 1e3


def times(
    paths: ModelPaths, config: LoadConfig, args: argparse.Namespace, servers: Sequence[Server]
) -> dict[str, list[str]]:
    start = time.perf_counter()
    with Session(paths, config, skip_vision=True) as session:
        cells = {"load": [f"{time.perf_counter() - start:.1f} s"]}
        for setting in args.settings.split(","):
            tokens, runs = parse_setting(setting), list[dict[str, float]]()
            session.run(args.frames, tokens, FEW)
            for _ in range(args.rounds):
                marks, both = [cpu_ms(servers)], list[dict[str, float]]()
                for n_decode in (FEW, MANY):
                    both.append(session.run(args.frames, tokens, n_decode).ms)
                    marks.append(cpu_ms(servers))
                few, many = marks[1] - marks[0], marks[2] - marks[1]
                token = (many - few) / (MANY - FEW)
                cpu = {"prefill cpu": few - FEW * token, "decode cpu": token}
                runs.append({"prefill": both[0]["prefill"], "decode": both[1]["decode"], **cpu})
            for stage in ("prefill", "decode"):
                wall, cpu_time = ([run[name] for run in runs] for name in (stage, f"{stage} cpu"))
                spread = f"{median(wall):.0f} ms ({min(wall):.0f}..{max(wall):.0f})"
                cells[f"{setting}: {stage}"] = [spread, f"{median(cpu_time):.0f} ms of processors"]
    return cells


def traffic(paths: ModelPaths, config: LoadConfig, args: argparse.Namespace, relays: Sequence[Relay]) -> dict[str, str]:
    with Session(paths, config, skip_vision=True) as session:
        found = {"load": str(sent(relays))}
        for setting in args.settings.split(","):
            tokens, marks = parse_setting(setting), list[Traffic]()
            for n_decode in (FEW, FEW, MANY):  # the first one also asks the servers what is asked once
                session.run(args.frames, tokens, n_decode)
                marks.append(sent(relays))
            few, many = marks[1] - marks[0], marks[2] - marks[1]
            token = (many - few).over(MANY - FEW)
            prompt = few - Traffic(FEW * token.up, FEW * token.down)
            found |= {f"{setting}: prefill": str(prompt), f"{setting}: decode": f"{token} a token"}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", default="0.5b")
    parser.add_argument("--type", default="q4_0")
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--settings", default="off,paper")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    paths = random_model(parse_shape(args.shape), args.type, None, print)
    columns: dict[str, dict[str, list[str]]] = {}
    for name, n in WHERE.items():
        with ExitStack() as stack:
            servers = [stack.enter_context(Server()) for _ in range(n)]
            addresses = [server.address for server in servers]
            columns[name] = times(paths, LoadConfig(n_threads=1, rpc=addresses), args, servers)
            if n:
                relays = [stack.enter_context(Relay(address)) for address in addresses]
                config = LoadConfig(n_threads=1, rpc=[relay.address for relay in relays])
                for row, text in traffic(paths, config, args, relays).items():
                    columns[name][row].append(text)
        print(f"{name}: {columns[name]}", flush=True)
    print(f"\n| {paths.name}, {args.frames} frames | {' | '.join(columns)} |")
    print("|---|" + "---|" * len(columns))
    for row in columns["here"]:
        print(f"| {row} | " + " | ".join("; ".join(column[row]) for column in columns.values()) + " |")


if __name__ == "__main__":
    main()

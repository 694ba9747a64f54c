"""Many clients at once on the bundled model over loopback: answers, waiting times, memory, and how fast work is let go.

    python benchmarks/serve_load.py [--clients 32] [--minutes 10] [--queue 24]

The service runs in this process, the clients in another. Two thirds of the clients ask about clips, in conversations of
up to three turns, streaming or not; each answer is compared with the library's. The others ask for an answer that never
ends and hang up in the middle of it, or while they wait. Prints, and exits with 1 where an answer was wrong:

- answers, wrong ones, requests refused with 429
- waiting times of each client: smallest, median and largest of their medians, and Jain's index of their numbers of
  answers (1: all alike)
- memory of the service after a tenth of the time: smallest and largest, by fifths of the rest
- time from a client's hanging up until the work on its request had stopped
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from aim_local import LoadConfig, VisionLLM
from aim_local.demo.clips import held_out, write_clip
from aim_local.server.jobs import Job
from aim_local.server.limits import Limits
from aim_local.server.service import Service
from aim_local.server.serving import Settings, Told, serve

N_CLIPS = 12
THEN = ("What color is it?", "Which way does the shape move?")
ENDLESS = "root ::= [a-z ] root"
PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def load() -> VisionLLM:
    return VisionLLM.load(config=LoadConfig(n_threads=1, cache_media=False))


# --- the service's side -----------------------------------------------------------------------------------------------


def known_talks(folder: Path) -> list[dict[str, Any]]:
    """Clips with the questions and answers of a conversation about each."""
    talks = []
    with load() as llm:
        for i, clip in enumerate(held_out(N_CLIPS)):
            path = write_clip(clip, folder / f"{i}.mp4")
            with llm.chat() as chat:
                questions = (clip.question, *THEN)
                answers = [chat.ask(text, [path] if not n else []).text for n, text in enumerate(questions)]
            talks.append({"clip": path.as_uri(), "questions": questions, "answers": answers})
    return talks


class Watching:
    """Memory in MiB every few seconds, and when the work on each request stopped."""

    def __init__(self) -> None:
        self.memory: list[float] = []
        self.stopped: dict[str, float] = {}
        self._end = threading.Event()
        threading.Thread(target=self._sample, daemon=True).start()

    def _sample(self) -> None:
        while not self._end.wait(2):
            self.memory.append(int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 2**20)

    def note(self, job: Job) -> None:
        self.stopped[job.asked.user] = time.monotonic()

    def close(self) -> None:
        self._end.set()


def main() -> int:
    args = arguments()
    if args.play:
        return asyncio.run(play(json.loads(Path(args.play).read_text())))
    with tempfile.TemporaryDirectory() as name:
        folder, found = Path(name), list[dict[str, Any]]()
        keys = tuple(secrets.token_hex(8) for _ in range(args.clients))
        plan = {"keys": keys, "seconds": args.minutes * 60, "talks": known_talks(folder)}
        watching = Watching()

        def ready(address: str, service: Service) -> None:
            service.on_end = watching.note
            (folder / "plan.json").write_text(json.dumps({**plan, "url": address}))
            threading.Thread(target=drive, args=[folder / "plan.json", found]).start()

        limits = Limits(n_waiting=args.queue)
        serve(load, Settings(port=0, limits=limits, keys=keys, media_path=folder), Told(ready))
        watching.close()
    return report(args, found[0], watching) if found else 1


def drive(plan: Path, found: list[dict[str, Any]]) -> None:
    """Runs the clients, then stops the service."""
    try:
        run = subprocess.run([sys.executable, __file__, "--play", plan], stdout=subprocess.PIPE, check=True)
        found.append(json.loads(run.stdout))
    finally:
        os.kill(os.getpid(), signal.SIGTERM)


def report(args: argparse.Namespace, found: dict[str, Any], watching: Watching) -> int:
    askers = [client for client in found["clients"] if client["waits"]]
    medians = sorted(statistics.median(client["waits"]) for client in askers)
    counts = [len(client["waits"]) for client in askers]
    jain = sum(counts) ** 2 / (len(counts) * sum(n * n for n in counts))
    left = {tag: at for client in found["clients"] for tag, at in client["left"]}
    delays = sorted(watching.stopped[tag] - at for tag, at in left.items() if tag in watching.stopped)
    warm = watching.memory[len(watching.memory) // 10 :]
    print(f"{args.clients} clients, {args.minutes:g} minutes, {args.queue} may wait")
    print(f"answers: {sum(counts)}, wrong: {len(found['wrong'])}, other failures: {found['failures']}")
    print(f"429: {sum(client['refused'] for client in found['clients'])}")
    print(f"median wait of a client: {medians[0]:.2f} / {statistics.median(medians):.2f} / {medians[-1]:.2f} s", end="")
    print(f" (min / median / max of {len(medians)} clients), Jain's index {jain:.4f}")
    print(f"answers of a client: {min(counts)} / {statistics.median(counts):.0f} / {max(counts)}")
    n = max(1, len(warm) // 5)
    fifths = [warm[i : i + n] for i in range(0, 5 * n, n)]
    print("memory in MiB, each fifth of the time after warm-up:", end=" ")
    print(", ".join(f"{min(part):.0f} to {max(part):.0f}" for part in fifths if part))
    if delays:
        late = sum(delay > 0.5 for delay in delays)
        print(f"hung up: {len(left)}, of these at work: {len(delays)}; work stopped after", end=" ")
        print(f"{statistics.median(delays):.3f} s (median), {delays[-1]:.3f} s (longest); beyond 0.5 s: {late}")
    for line in found["wrong"][:5]:
        print(f"wrong: {line}")
    return int(bool(found["wrong"] or found["failures"]))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--queue", type=int, default=24)
    parser.add_argument("--play", help=argparse.SUPPRESS)
    return parser.parse_args()


# --- the clients' side ------------------------------------------------------------------------------------------------


class Client:
    """One of many. waits: seconds in the queue of each answer. left: (user, time) of each hanging up."""

    def __init__(self, plan: dict[str, Any], key: str, wrong: list[str], failures: Counter[str]) -> None:
        self.plan, self.wrong, self.failures = plan, wrong, failures
        self.random = random.Random(key)
        headers = {"Authorization": f"Bearer {key}"}
        self.http = httpx.AsyncClient(base_url=plan["url"], headers=headers, timeout=300)
        self.waits: list[float] = []
        self.left: list[tuple[str, float]] = []
        self.refused = 0

    async def ask_on(self, until: float) -> None:
        while time.monotonic() < until:
            talk, messages = self.random.choice(self.plan["talks"]), list[dict[str, Any]]()
            for i in range(self.random.randint(1, 3)):
                text = {"type": "text", "text": talk["questions"][i]}
                clip = [{"type": "video_url", "video_url": {"url": talk["clip"]}}] if not i else []
                messages.append({"role": "user", "content": [*clip, text]})
                said = await self.answer(messages, until)
                if said is None:
                    break
                if said != talk["answers"][i]:
                    self.wrong.append(f"{talk['clip']} {text['text']}: {said!r}, not {talk['answers'][i]!r}")
                messages.append({"role": "assistant", "content": talk["answers"][i]})

    async def answer(self, messages: list[dict[str, Any]], until: float) -> str | None:
        """None where the time is over, or the request failed."""
        stream = self.random.random() < 0.5
        while time.monotonic() < until:
            answer = await self.http.post("/v1/chat/completions", json={"messages": messages, "stream": stream})
            if answer.status_code == 429:
                self.refused += 1
                await asyncio.sleep(min(float(answer.headers["Retry-After"]), 2))
            elif answer.status_code != 200:
                self.failures[f"{answer.status_code} {answer.text[:200]}"] += 1
                return None
            else:
                text, timings = streamed(answer.text) if stream else whole(answer.json())
                self.waits.append(timings["queue_ms"] / 1000)
                return text
        return None

    async def leave_on(self, until: float) -> None:
        while time.monotonic() < until:
            tag = secrets.token_hex(6)
            talk = self.random.choice(self.plan["talks"])
            clip = {"type": "video_url", "video_url": {"url": talk["clip"]}}
            content = [clip, {"type": "text", "text": talk["questions"][0]}]
            body = {
                "messages": [{"role": "user", "content": content}], "grammar": ENDLESS, "max_tokens": 3000,
                "stream": True, "user": tag,
            }  # fmt: skip
            patience = self.random.choice((None, None, self.random.random()))
            try:
                async with asyncio.timeout(patience):
                    await self.begin(body)
            except TimeoutError:
                pass
            self.left.append((tag, time.monotonic()))
            await asyncio.sleep(self.random.random())

    async def begin(self, body: dict[str, Any]) -> None:
        """Reads some pieces of an answer, and hangs up."""
        n = self.random.randint(1, 20)
        async with self.http.stream("POST", "/v1/chat/completions", json=body) as answer:
            if answer.status_code == 429:
                self.refused += 1
            async for line in answer.aiter_lines():
                n -= '"content":"' in line
                if n < 0:
                    return


def whole(answer: dict[str, Any]) -> tuple[str, dict[str, float]]:
    return answer["choices"][0]["message"]["content"], answer["timings"]


def streamed(text: str) -> tuple[str, dict[str, float]]:
    chunks = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    said = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
    return said, next(chunk["timings"] for chunk in chunks if "timings" in chunk)


async def play(plan: dict[str, Any]) -> int:
    wrong, failures = list[str](), Counter[str]()
    clients = [Client(plan, key, wrong, failures) for key in plan["keys"]]
    until = time.monotonic() + plan["seconds"]
    await asyncio.gather(*(c.leave_on(until) if i % 3 == 0 else c.ask_on(until) for i, c in enumerate(clients)))
    told = [{"waits": c.waits, "left": c.left, "refused": c.refused} for c in clients]
    print(json.dumps({"clients": told, "wrong": wrong, "failures": failures}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

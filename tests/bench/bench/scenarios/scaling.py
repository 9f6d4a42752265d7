"""What more cores than this machine has would give: measured waits for what all share, and a simulation of the queues.

Every core answers one request after the other. Most of a request's time is its own; the rest it spends with what all cores
share (a counter, a lock, an object's count of references), one core at a time. How long each of those is held is derived
from `benches/parts/contention.rs`: what an operation takes by one thread, and by two that do nothing else.
"""

import heapq
import math
import os
import random
import re
import subprocess

from ..load import Wrk, median, rounds
from ..processes import Broken
from ..servers import Gateway
from ..stage import stage
from ..table import Table

CORES = (1, 2, 4, 8, 16, 32, 64)
# Of each core, in a simulation.
REQUESTS = 4_000
# What a request passes, in this order: where all ask for one object by one address, and where each for its own by its own.
ALIKE = {
    "the number of a request": "one_counter",
    "the client's rate": "limit_one_client",
    "the object": "answer_from_one_object",
    "which events are sampled": "one_counter",
    "the route's counters": "count_a_hit",
}
# The same by two threads of which each has its own: what they cost each other though nothing is shared, as two hyperthreads do.
OWN = {"limit_one_client": "limit_own_client", "answer_from_one_object": "answer_from_own_object"}
APART = {what: operation for what, operation in ALIKE.items() if operation not in OWN}
UNITS = {"ns": 1e-9, "µs": 1e-6, "us": 1e-6, "ms": 1e-3}


def run(options):
    times = contention(os.environ["BENCH_ROOT"])
    with stage(options.directory, Gateway) as on:
        (runs,) = rounds(on.servers, Wrk("/size/1k"), options).values()
    hit_secs = median(runs, lambda run: run.cpu_per_100k) / 100_000
    return "\n\n".join(str(table) for table in (measured(times, hit_secs), simulated(times, hit_secs)))


def contention(root):
    """Seconds of each operation, by one thread and by two."""
    environment = {name: value for name, value in os.environ.items() if name != "CARGO_TARGET_DIR"}
    command = ["cargo", "bench", "--bench", "parts", "--", "contention"]
    run = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    if run.returncode != 0:
        raise Broken(f"cargo bench: {run.stderr[-2000:]}")
    times = parse(run.stdout)
    if lacking := [name for name in {*ALIKE.values(), *OWN.values()} if len(times.get(name, {})) != 2]:
        raise Broken(f"cargo bench did not measure {', '.join(lacking)}:\n{run.stdout}")
    return times


def parse(text):
    """The medians in divan's tree: {operation: {threads: seconds}}."""
    times, operation = {}, None
    for line in text.splitlines():
        if not (found := re.match(r"[│ ]*[├╰]─ (\S+)\s*(.*)", line)):
            continue
        name, cells = found.groups()
        # A leaf has fastest, slowest, median, mean, samples, iterations.
        figures = re.findall(r"([\d.]+) (ns|µs|us|ms)", cells)
        if name.startswith("t=") and len(figures) >= 3:
            value, unit = figures[2]
            times.setdefault(operation, {})[int(name[2:])] = float(value) * UNITS[unit]
        else:
            operation = name
    return times


def held(times, operation):
    """How long an operation holds what is shared."""
    alone = times[OWN[operation]][2] if operation in OWN else times[operation][1]
    return held_secs(alone, times[operation][2])


def held_secs(alone, beside):
    """How long it holds what is shared, where it takes `alone` by a thread that nobody disturbs and `beside` by each of two.

    Two threads that hold it for `held` of `alone` find each other there with the probability `held / alone`, and wait for
    half of `held` then, on average: beside = alone + held² / (2 alone). It cannot be more than half of `beside`, or two could
    not take turns.
    """
    return min(math.sqrt(2 * alone * max(0.0, beside - alone)), beside / 2)


def measured(times, hit_secs):
    table = Table("What hits share", ["", "1 thread ns", "2 threads ns", "each its own ns", "held ns", "at most a second"])
    for operation in dict.fromkeys(ALIKE.values()):
        own = times[OWN[operation]][2] * 1e9 if operation in OWN else None
        secs = held(times, operation)
        alone, beside = times[operation][1] * 1e9, times[operation][2] * 1e9
        table.row(operation.replace("_", " "), alone, beside, own, secs * 1e9, int(1 / secs) if secs else None)
    table.notes.append(f"A hit of 1 KiB takes {hit_secs * 1e6:.1f} us of CPU in all, which is {hit_secs * 1e6:.1f} s for a million.")
    return table


def simulated(times, hit_secs):
    table = Table("Hits of 1 KiB on more cores", ["cores", "alike: requests/s", "of linear", "apart: requests/s", "of linear"])
    busiest = {}
    for cores in CORES:
        row = [cores]
        for title, passed in (("alike", ALIKE), ("apart", APART)):
            secs = {what: held(times, operation) for what, operation in passed.items()}
            per_sec, busy = simulate(cores, hit_secs - sum(secs.values()), list(secs.values()))
            row += [int(per_sec), per_sec * hit_secs / cores]
            busiest[title] = max(zip(busy, secs))
        table.row(*row)
    for title, (busy, name) in busiest.items():
        table.notes.append(f"{title}: on {CORES[-1]} cores the busiest is {name}, held {busy:.0%} of the time.")
    table.notes.append(
        "Simulated, not run: alike is one object asked for by one address, apart is an object and an address for each core. "
        "Without the runtime's queues and the kernel's, the network, and what it costs to fetch a line from another socket. Where "
        "the two threads ran on one core's hyperthreads, what they share costs them next to nothing, and little of it is seen."
    )
    return table


def simulate(cores, own_secs, held):
    """Requests a second, and how much of the time each of what is shared is held."""
    # Each core's next step: (when, core, step), of which step 0 is its own work.
    chance = random.Random(cores)
    own = lambda: own_secs * chance.uniform(0.5, 1.5)
    steps = [(own(), core, 0) for core in range(cores)]
    heapq.heapify(steps)
    free, busy, done = [0.0] * len(held), [0.0] * len(held), 0
    now = 0.0
    while done < cores * REQUESTS:
        now, core, step = heapq.heappop(steps)
        if step == len(held):
            done += 1
            heapq.heappush(steps, (now + own(), core, 0))
            continue
        begun = max(now, free[step])
        free[step] = begun + held[step]
        busy[step] += held[step]
        heapq.heappush(steps, (free[step], core, step + 1))
    return done / now, [spent / now for spent in busy]

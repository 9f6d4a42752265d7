"""The checker under test: it finds each broken promise in a log that has one, and none in a log that has none."""

from .checker import Kind, Outcome, Write, check
from .report import Report


def history():
    """A run in which every promise was kept: two lanes, each kind of write and each outcome."""
    writes = [
        Write(1, Kind.PLAIN, "a", Outcome.ANSWERED),
        Write(2, Kind.PLAIN, "a", Outcome.QUEUED, "i2"),
        Write(3, Kind.KEYED, "b", Outcome.QUEUED, "i3"),
        Write(4, Kind.PLAIN, "a", Outcome.QUEUED, "i4"),
        Write(5, Kind.IDEMPOTENT, "b", Outcome.QUEUED, "i5"),
        Write(6, Kind.PLAIN, "a", Outcome.UNKNOWN),
        Write(7, Kind.KEYED, "b", Outcome.QUEUED, "i7"),
        Write(8, Kind.PLAIN, "a", Outcome.QUEUED, "i8"),
        Write(9, Kind.PLAIN, "a", Outcome.REFUSED),
        Write(10, Kind.KEYED, None, Outcome.QUEUED, "i10"),
        Write(11, Kind.KEYED, None, Outcome.QUEUED, "i11"),
        Write(12, Kind.PLAIN, "a", Outcome.CANCELLED, "i12", cancelled_at=5),
    ]
    # 3 came twice with one key; 5 is a PUT, and came twice; 8 is parked; 10 and 11 are in no lane; 12 never came.
    executions = [executed(n, effect) for n, effect in [(1, 1), (3, 1), (3, 0), (2, 1), (5, 1), (5, 1), (4, 1), (6, 1)]]
    executions += [executed(11), executed(7), executed(10)]
    states = {"i8": "parked", "i2": "done"}
    return writes, executions, states


def executed(number, effect=True, intact=True):
    return {"number": number, "effect": bool(effect), "intact": intact}


def lose(_, executions, __):
    executions[:] = [line for line in executions if line["number"] != 4]


def lose_what_is_said_to_be_done(_, executions, states):
    lose(_, executions, states)
    states["i4"] = "done"


def lose_what_was_parked(_, __, states):
    del states["i8"]


def lose_the_effect_behind_a_key_of_another(_, executions, __):
    next(line for line in executions if line["number"] == 7)["effect"] = False


def double(_, executions, __):
    executions.insert(5, executed(2))


def double_one_whose_outcome_was_unknown(_, executions, __):
    executions.append(executed(6))


def double_the_effect_of_a_keyed_one(_, executions, __):
    next(line for line in executions if line["number"] == 3 and not line["effect"])["effect"] = True


def swap(_, executions, __):
    first, second = (next(i for i, line in enumerate(executions) if line["number"] == n) for n in (2, 4))
    executions[first], executions[second] = executions[second], executions[first]


def repeat_late(_, executions, __):
    executions.append(executed(5))


def execute_what_was_refused(_, executions, __):
    executions.append(executed(9))


def execute_what_was_cancelled(_, executions, __):
    executions.append(executed(12))


def alter(_, executions, __):
    executions[3]["intact"] = False


def invent(_, executions, __):
    executions.append(executed(99))


CASES = [
    (lose, {"lost": [4]}),
    (lose_what_is_said_to_be_done, {"lost": [4]}),
    (lose_what_was_parked, {"lost": [8]}),
    (lose_the_effect_behind_a_key_of_another, {"lost": [7]}),
    (double, {"doubled": [2]}),
    (double_one_whose_outcome_was_unknown, {"doubled": [6]}),
    (double_the_effect_of_a_keyed_one, {"doubled": [3]}),
    (swap, {"swapped": [2]}),
    (repeat_late, {"late": [5]}),
    (execute_what_was_refused, {"refused": [9]}),
    (execute_what_was_cancelled, {"cancelled": [12]}),
    (alter, {"altered": [2]}),
    (invent, {"invented": [99]}),
]


def add_arguments(_):
    """None."""


async def run(_):
    report = Report("self-test")
    found = check(*history()).violations()
    report.row("a history that kept every promise", "accepted" if not found else found)
    report.must(not found, f"a faultless history is accused: {found}")
    for spoil, expected in CASES:
        spoiled = history()
        spoil(*spoiled)
        found = check(*spoiled).violations()
        what = spoil.__name__.replace("_", " ")
        report.row(what, "found" if found == expected else f"FOUND {found}")
        report.must(found == expected, f"{what}: found {found}, expected {expected}")
    return report

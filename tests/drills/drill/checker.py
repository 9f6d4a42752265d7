"""Holds what clients were told against what the origin executed and what the queue still has.

Pure: it takes the writes, the origin's log and the queue's items, and finds what must not be:

lost            a client was told 202, or the origin's own success; the origin never executed it, the queue has it neither
                live nor parked nor dead
doubled         executed twice, where a repetition is no repetition of the same: neither idempotent nor with its effect
                once by its key
swapped         first executed after a write that was acknowledged later, in the same lane
late            executed again after a later write of its lane: whatever that one did is undone
refused         a client was told 503, so that it may try again; it was executed all the same
cancelled       executed after its client was told that it is cancelled
altered         the origin got other content than the client sent
invented        executed, though no client ever wrote it
"""

import dataclasses
import enum

# States that leave an acknowledged write in the hands of the queue or of an operator.
KEPT_STATES = {"queued", "sending", "waiting", "parked", "dead"}


class Kind(enum.Enum):
    """What a repetition of the write means."""

    IDEMPOTENT = "idempotent"
    KEYED = "keyed"
    PLAIN = "plain"


class Outcome(enum.Enum):
    """What the client was told."""

    QUEUED = "queued"  # 202
    ANSWERED = "answered"  # the origin's own success
    REFUSED = "refused"  # 503
    CANCELLED = "cancelled"  # queued, and taken back by its client
    UNKNOWN = "unknown"  # outcome-unknown, or no connection, or one that was lost


@dataclasses.dataclass
class Write:
    """One write of a client; `lane` is None where no order is promised."""

    number: int
    kind: Kind
    lane: str | None
    outcome: Outcome
    item: str | None = None  # the id in the receipt
    cancelled_at: int | None = None  # executions that were logged when it was cancelled


@dataclasses.dataclass
class Verdict:
    """Numbers of the writes that broke a promise, by promise, and what was counted on the way."""

    lost: list[int]
    doubled: list[int]
    swapped: list[int]
    late: list[int]
    refused: list[int]
    cancelled: list[int]
    altered: list[int]
    invented: list[int]
    counted: dict[str, int]

    def violations(self):
        """The broken promises only."""
        found = dataclasses.asdict(self)
        del found["counted"]
        return {what: numbers for what, numbers in found.items() if numbers}

    def rows(self):
        """For a table: what was counted, then every promise with how often it was broken."""
        promises = {
            "acknowledged and lost": self.lost,
            "executed twice, not idempotent, not keyed": self.doubled,
            "out of order within a lane": self.swapped,
            "repeated after a later one of the lane": self.late,
            "refused and executed": self.refused,
            "cancelled and then executed": self.cancelled,
            "content altered": self.altered,
            "executed but never written": self.invented,
        }
        return {**self.counted, **{what: len(numbers) for what, numbers in promises.items()}}


def check(writes, executions, states):
    """`writes` in the order in which they were acknowledged, `executions` as logged, `states` of items by id."""
    by_number = {write.number: write for write in writes}
    positions, effects = {}, {}
    for position, line in enumerate(executions):
        positions.setdefault(line["number"], []).append(position)
        effects[line["number"]] = effects.get(line["number"], 0) + bool(line["effect"])

    acknowledged = [write for write in writes if write.outcome in (Outcome.QUEUED, Outcome.ANSWERED)]
    swapped, late = _order(acknowledged, positions)
    return Verdict(
        lost=[w.number for w in acknowledged if not effects.get(w.number) and states.get(w.item) not in KEPT_STATES],
        doubled=[w.number for w in writes if _is_doubled(w, positions, effects)],
        swapped=swapped,
        late=late,
        refused=[w.number for w in writes if w.outcome is Outcome.REFUSED and w.number in positions],
        cancelled=[w.number for w in writes if _is_executed_after_all(w, positions)],
        altered=[line["number"] for line in executions if not line["intact"]],
        invented=[number for number in positions if number not in by_number],
        counted=_counted(writes, positions, states),
    )


def _is_doubled(write, positions, effects):
    match write.kind:
        case Kind.IDEMPOTENT:
            return False
        case Kind.KEYED:
            return effects.get(write.number, 0) > 1
        case Kind.PLAIN:
            return len(positions.get(write.number, [])) > 1


def _is_executed_after_all(write, positions):
    if write.outcome is not Outcome.CANCELLED:
        return False
    return any(position >= write.cancelled_at for position in positions.get(write.number, []))


def _order(acknowledged, positions):
    """Numbers whose first execution, and those whose last one, comes after a later write of their lane."""
    lanes = {}
    for write in acknowledged:
        if write.lane is not None and write.number in positions:
            lanes.setdefault(write.lane, []).append(write.number)
    swapped, late = [], []
    for numbers in lanes.values():
        next_first = float("inf")
        for number in reversed(numbers):
            first, *_ = positions[number]
            if first > next_first:
                swapped.append(number)
            elif positions[number][-1] > next_first:
                late.append(number)
            next_first = min(next_first, first)
    return swapped, late


def _counted(writes, positions, states):
    counted = {"writes": len(writes)}
    counted |= {f"- {outcome.value}": sum(w.outcome is outcome for w in writes) for outcome in Outcome}
    counted["executed"] = len(positions)
    repeated = [number for number, where in positions.items() if len(where) > 1]
    counted["executed more than once (idempotent or keyed)"] = len(repeated)
    for state in ("parked", "dead"):
        counted[f"left {state}"] = sum(found == state for found in states.values())
    counted["left in the queue"] = sum(found in ("queued", "sending", "waiting") for found in states.values())
    return counted

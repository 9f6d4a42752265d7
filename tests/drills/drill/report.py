"""What a drill came to: rows of a table, and what did not hold."""

import json
import math


class Report:
    """Filled by a drill, printed once at its end."""

    def __init__(self, drill):
        self.drill = drill
        self.rows = {}
        self.broken = []
        self.skipped = None

    def row(self, what, value):
        self.rows[what] = value

    def must(self, holds, otherwise):
        """Something that must hold; `otherwise` is said where it does not."""
        if not holds:
            self.broken.append(otherwise)

    def show(self):
        """The table, then the same as one line of JSON; returns the exit code."""
        width = max(map(len, self.rows), default=0)
        print(f"\n{self.drill}")
        for what, value in self.rows.items():
            print(f"  {what:<{width}}  {value:.6g}" if isinstance(value, float) else f"  {what:<{width}}  {value}")
        for otherwise in self.broken:
            print(f"  BROKEN: {otherwise}")
        outcome = "broken" if self.broken else "held"
        if self.skipped:
            outcome = "skipped"
            print(f"  SKIPPED: {self.skipped}")
        whole = {"drill": self.drill, "outcome": outcome, "numbers": self.rows, "broken": self.broken}
        print(json.dumps(whole, default=str), flush=True)
        return 1 if self.broken else 0


def percentile(values, percent):
    """By the nearest rank; NaN of nothing."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    return ordered[min(len(ordered) - 1, math.ceil(len(ordered) * percent / 100) - 1)]

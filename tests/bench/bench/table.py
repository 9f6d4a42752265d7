"""Tables in Markdown that read well as plain text too."""

from .load import median


class Table:
    def __init__(self, title, columns, notes=()):
        self.title, self.columns, self.notes = title, columns, list(notes)
        self.rows = []

    def row(self, *cells):
        self.rows.append([shown(cell) for cell in cells])

    def __str__(self):
        widths = [max(len(line[at]) for line in [self.columns, *self.rows]) for at in range(len(self.columns))]
        lines = [self.columns, ["-" * width for width in widths], *self.rows]
        drawn = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in lines]
        notes = [f"\n{note}" for note in self.notes]
        return "\n".join([f"### {self.title}", "", *drawn, *notes])


def shown(cell):
    match cell:
        case None:
            return "-"
        case float():
            return f"{cell:.3g}" if abs(cell) < 100 else f"{cell:,.0f}"
        case int():
            return f"{cell:,}"
    return str(cell)


COLUMNS = ["", "requests/s", "ratio", "CPU s/100k", "ratio", "p50 ms", "p99 ms", "MB/s", "failed"]


def of_runs(title, found, base, notes=()):
    """The usual table: medians of the runs of each server, with ratios to `base`."""
    table = Table(title, COLUMNS, notes)
    per_sec, cpu = (lambda run: run.per_sec), (lambda run: run.cpu_per_100k)
    base = base if base in found else next(iter(found))
    for name, runs in found.items():
        table.row(
            name,
            median(runs, per_sec),
            median(runs, per_sec) / median(found[base], per_sec),
            median(runs, cpu),
            median(runs, cpu) / median(found[base], cpu),
            median(runs, lambda run: run.p50_us) / 1e3,
            median(runs, lambda run: run.p99_us) / 1e3,
            median(runs, lambda run: run.bytes / run.seconds) / 1e6,
            sum(run.bad + run.errors for run in runs),
        )
    foreign = max(run.foreign for runs in found.values() for run in runs)
    table.notes.append(
        f"{len(found[base])} interleaved runs each, medians; ratios to {base}. Of other processes at most {foreign:.2f} of a core."
    )
    return table


def missing(titles):
    return [f"Not installed here: {', '.join(titles)}."] if titles else []

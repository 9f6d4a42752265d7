"""Puts tables into a document, between the marks of their scenarios."""

import platform
import pathlib
import re
import subprocess


def write(file, tables):
    text = file.read_text()
    for name, table in {"machine": machine(), **tables}.items():
        begin, end = f"<!-- {name}: measured -->\n", f"<!-- {name}: end -->"
        pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
        if not pattern.search(text):
            raise SystemExit(f"{file} has no place for {name}")
        text = pattern.sub(lambda _: f"{begin}\n{table}\n\n{end}", text)
    file.write_text(text)


def machine():
    """What the figures are of."""
    cores = pathlib.Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.*)", cores)
    count = cores.count("processor\t")
    versions = [version(*command) for command in PEERS]
    return (
        f"{count} cores ({model.group(1) if model else platform.machine()}), Linux {platform.release().split('-')[0]}; "
        + ", ".join(filter(None, versions))
        + "."
    )


PEERS = [
    ("nginx", "-v", r"nginx/([\d.]+)"),
    ("haproxy", "-v", r"version ([\d.]+)"),
    ("varnishd", "-V", r"varnish-([\d.]+)"),
    ("wrk", "-v", r"wrk \S*?([\d.]+)"),
]


def version(program, option, pattern):
    from .servers import find

    if not (found := find(program)):
        return None
    said = subprocess.run([found, option], capture_output=True, text=True)
    number = re.search(pattern, said.stdout + said.stderr)
    return f"{program} {number.group(1)}" if number else program

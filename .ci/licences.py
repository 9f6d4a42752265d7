"""Holds every crate of the lock file against the licences and sources that deny.toml allows.

Usage: licences.py ROOT

What cargo-deny would say about licences and sources, for machines without it. Advisories need its database and are not
checked here. Exits 1 when a crate is not allowed.
"""

import json
import pathlib
import re
import subprocess
import sys
import tomllib


def is_allowed(expression, allowed):
    """Whether an SPDX expression can be met with the allowed licences. `/` is an old way to write OR."""
    tokens = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))

    def alternatives():
        met = conjunction()
        while tokens[:1] == ["OR"]:
            tokens.pop(0)
            met = conjunction() or met
        return met

    def conjunction():
        met = term()
        while tokens[:1] == ["AND"]:
            tokens.pop(0)
            met = term() and met
        return met

    def term():
        token = tokens.pop(0)
        if token == "(":
            met = alternatives()
            tokens.pop(0)
            return met
        if tokens[:1] == ["WITH"]:
            tokens.pop(0)
            token = f"{token} WITH {tokens.pop(0)}"
        return token in allowed

    return alternatives()


def main(root):
    rules = tomllib.loads((root / "deny.toml").read_text())
    allowed = set(rules["licenses"]["allow"])
    registries = {f"registry+{url}" for url in rules["sources"]["allow-registry"]}
    metadata = subprocess.run(
        ["cargo", "metadata", "--locked", "--format-version", "1", "--manifest-path", root / "Cargo.toml"],
        check=True,
        capture_output=True,
        text=True,
    )
    packages = json.loads(metadata.stdout)["packages"]
    wrong = []
    for package in packages:
        name = f"{package['name']} {package['version']}"
        if not is_allowed(package["license"] or "NONE", allowed):
            wrong.append(f"{name}: licence {package['license']}")
        if package["source"] is not None and package["source"] not in registries:
            wrong.append(f"{name}: from {package['source']}")
    print("\n".join(wrong or [f"{len(packages)} crates, all with allowed licences and sources"]))
    return 1 if wrong else 0


sys.exit(main(pathlib.Path(sys.argv[1])))

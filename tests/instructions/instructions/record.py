"""The record: what each scenario cost when it was last written, and by what it was counted."""

import json
import pathlib
import platform
import re
import subprocess

PATH = pathlib.Path(__file__).parent.parent / "record.json"
# Above what is left of noise, below what one would want to know.
TOLERANCE = 0.03
RENEW = "tests/instructions/run.sh --record"
# What valgrind passes on to the program of what a processor has. The C library and memchr choose their code by these.
CPU_FLAGS = ["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "pclmulqdq", "rdrand", "rdseed", "sse4_2"]


def made_with(binary):
    """What besides the gateway's source decides how many instructions there are."""
    return {
        "compiler": compiler(binary),
        "valgrind": subprocess.run(["valgrind", "--version"], capture_output=True, text=True, check=True).stdout.strip(),
        "libc": " ".join(platform.libc_ver()),
        "cpu": cpu(),
    }


def compiler(binary):
    """rustc's version, from what it notes in the binaries that it makes."""
    found = re.search(rb"rustc version [^\0]+", binary.read_bytes())
    return found[0].decode() if found else "unknown"


def cpu():
    info = pathlib.Path("/proc/cpuinfo").read_text()
    found = re.search(r"^flags\s*:(.*)$", info, re.MULTILINE)
    flags = set(found[1].split()) if found else set()
    return " ".join([platform.machine(), *(flag for flag in CPU_FLAGS if flag in flags)])


def write(counted, made_with):
    text = json.dumps({"made_with": made_with, "instructions_per_request": counted}, indent=2)
    PATH.write_text(text + "\n")


def compare(counted, made_with):
    """Prints both; the exit code."""
    if not PATH.exists():
        print(f"\nThere is no record; {RENEW} writes one.")
        return 1
    record = json.loads(PATH.read_text())
    recorded = record["instructions_per_request"]
    print("\nBeside the record:")
    names = [*recorded, *(name for name in counted if name not in recorded)]
    failures = [failure for name in names if (failure := judge(name, counted.get(name), recorded.get(name)))]
    unknown = [name for name in names if name not in counted or name not in recorded]
    differing = [key for key in made_with if made_with[key] != record["made_with"].get(key)]
    if differing:
        print("\nCANNOT BE COMPARED, and is NOT CHECKED. The record was made with another")
        for key in differing:
            print(f"  {key}: {record['made_with'].get(key)}; here {made_with[key]}")
        print(f"To check here, renew it: {RENEW}")
        return 1 if unknown else 0
    if failures:
        print("\n" + "\n".join(failures))
        print(f"\nFind out why; if it is meant, renew the record, so that it is kept: {RENEW}")
        return 1
    print(f"\nAll within {TOLERANCE:.0%}.")
    return 0


def judge(name, now, recorded):
    """Prints a scenario's line; what is wrong with it, if something is."""
    if now is None or recorded is None:
        return f"{name}: {'not in the record' if recorded is None else 'in the record, but not counted any more'}"
    change = now / recorded - 1
    print(f"{name:<40} {now:>9}   recorded {recorded:>9}   {change:+.2%}")
    if abs(change) <= TOLERANCE:
        return None
    direction = "more" if change > 0 else "fewer"
    return f"{name}: {now} instructions a request, {abs(change):.1%} {direction} than the {recorded} of the record"

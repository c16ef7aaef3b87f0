#!/usr/bin/python3
"""What gcovr counted (its JSON on standard input) against a goal: coverage.py lines|branches PERCENT PREFIX...

Of branches, those on the lines of a condition that an abort() follows are left out: phid ends where the C library has no memory, or an
event descriptor of its own cannot be written. So are those that LEFT_OUT names, each with its reason. Prints the files below the goal; for
branches, all that are missing, by line."""
import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
# (file, what the line holds): the reason
LEFT_OUT = {
    ("daemon/store.c", "pthread_create(&s->thread"): "the kernel has no room for one more thread, at the start of phid",
}


def conditions_before_abort(lines):
    """Numbers of lines of "if (...)" whose body is abort()."""
    found = set()
    for n, line in enumerate(lines, 1):
        if re.match(r"\s*abort\(\);", line):
            at = n - 1
            while at > 0:
                found.add(at)
                if re.match(r"\s*(if|else if|while) ", lines[at - 1]):
                    break
                at -= 1
    return found


def main():
    kind, goal, prefixes = sys.argv[1], float(sys.argv[2]), tuple(sys.argv[3:])
    all_, taken = 0, 0
    for file in json.load(sys.stdin)["files"]:
        if not file["file"].startswith(prefixes):
            continue
        lines = (ROOT / file["file"]).read_text().splitlines()
        left_out = conditions_before_abort(lines) | {n for n, line in enumerate(lines, 1) for (f, part) in LEFT_OUT if f == file["file"] and part in line}
        here, got, missing = 0, 0, []
        for line in file["lines"]:
            n = line["line_number"]
            if line["gcovr/noncode"]:
                continue
            counts = [line["count"]] if kind == "lines" else [b["count"] for b in line["branches"]] if n not in left_out else []
            here += len(counts)
            got += sum(c > 0 for c in counts)
            if 0 in counts:
                missing.append(n)
        all_, taken = all_ + here, taken + got
        if here and 100 * got < goal * here or (missing and kind == "branches"):
            print(f"     {file['file']}: {100 * got / here:.0f} % of {here}" + f", without {', '.join(map(str, missing))}" * (kind == "branches"))
    percent = 100 * taken / all_ if all_ else 0
    print(f"{'ok  ' if percent >= goal else 'FAIL'} {' '.join(prefixes)}: {percent:.1f} % of {all_} {kind}; the goal is {goal:g} %")
    sys.exit(percent < goal)


if __name__ == "__main__":
    main()

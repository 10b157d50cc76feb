"""Compares what an example printed with what it should print.

    python3 .ci/expect.py EXPECTED < output

EXPECTED holds the lines as they should be. What varies is masked:

    <n>      a number: 7, 1,024, 3.5
    <time>   a duration: 12ms, 1.5s, 87.3µs, 2m
    <any>    anything within the line
    ...      alone on its line: any number of lines

Space at the end of lines does not count. The exit code is 1 when they differ, with the first line that
does.
"""

import re
import sys

MASKS = {
    "<n>": r"\d+(?:[,_]\d{3})*(?:\.\d+)?",
    "<time>": r"(?:\d+(?:\.\d+)?(?:ns|µs|us|ms|s|m|h) ?)+",
    "<any>": r"[^\n]*?",
}


def pattern(line):
    pieces = re.split("(<n>|<time>|<any>)", line.rstrip())
    return "".join(MASKS.get(piece, re.escape(piece)) for piece in pieces)


def pairs(expected, actual):
    """Which line of `actual` each line of `expected` can reach, tried with everything `...` could mean.
    Returns the furthest places in both, and whether both are at their end."""
    compiled = [None if line.strip() == "..." else re.compile(pattern(line)) for line in expected]
    furthest = (0, 0)
    open_places, seen = [(0, 0)], set()
    while open_places:
        place = open_places.pop()
        if place in seen:
            continue
        seen.add(place)
        furthest = max(furthest, place)
        e, a = place
        if e == len(compiled):
            if a == len(actual):
                return place, True
        elif compiled[e] is None:
            open_places.append((e + 1, a))
            if a < len(actual):
                open_places.append((e, a + 1))
        elif a < len(actual) and compiled[e].fullmatch(actual[a]):
            open_places.append((e + 1, a + 1))
    return furthest, False


def main():
    sys.stdin.reconfigure(encoding="utf-8")
    sys.stdout.reconfigure(encoding="utf-8")
    with open(sys.argv[1], encoding="utf-8") as file:
        expected = file.read().rstrip().splitlines()
    actual = [line.rstrip() for line in sys.stdin.read().rstrip().splitlines()]
    (e, a), same = pairs(expected, actual)
    if same:
        return
    print(f"{sys.argv[1]}:{e + 1}: the output differs")
    for line in actual[max(0, a - 3) : a]:
        print(f"      {line}")
    print(f"  -   {expected[e] if e < len(expected) else '(nothing more)'}")
    print(f"  +   {actual[a] if a < len(actual) else '(nothing more)'}")
    sys.exit(1)


main()

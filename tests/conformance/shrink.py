"""Reduces a long run that ends in a difference to the few steps that show it.

First searches for the shortest tail of the run that still shows the difference (1, 2, 4, … steps). Then removes steps in
smaller and smaller pieces (Zeller's delta debugging). Each try starts with an emptied tree, a new prefix and equal
indexes.
"""

import time

from pair import Difference, curl

SECONDS = 60        # after this time, the best result so far is used


class Shrunk:
    def __init__(self, steps, difference, lines):
        self.steps, self.difference, self.lines = steps, difference, lines


def attempt(pair, steps):
    """Runs the steps again. Returns the resulting difference, if any, with the lines that show it."""
    pair.end()
    pair.begin()
    lines = []
    for number, step in enumerate(steps):
        try:
            lines.append(pair.perform(step))
            if number + 1 == len(steps) and pair.watches:
                pair.settle(step)
        except Difference as difference:
            lines.append(difference_line(pair, steps[number]))
            return Shrunk(steps[:number + 1], difference, lines)
    return None


def difference_line(pair, step):
    if step.kind == "close":
        return "# the watch %s is closed" % step.name
    target, body = pair.concrete(step)
    return curl(pair.servers[0].port, step, target, body)


def shrink(pair, steps, difference):
    """The fewest steps found that show a difference in the same place. None if it does not occur again."""
    deadline = time.monotonic() + SECONDS
    wanted = difference.signature()

    def same(shorter):
        found = attempt(pair, shorter)
        return found if found and found.difference.signature() == wanted else None

    best, length = None, 1
    while best is None:
        best = same(steps[-length:])
        if length >= len(steps):
            break
        length *= 2
    if best is None:
        return None
    pieces = 2
    while len(best.steps) > 1 and time.monotonic() < deadline:
        shorter = without_a_piece(best.steps, pieces, same, deadline)
        if shorter:
            best, pieces = shorter, max(pieces - 1, 2)
        elif pieces >= len(best.steps):
            break
        else:
            pieces = min(pieces * 2, len(best.steps))
    return best


def without_a_piece(steps, pieces, same, deadline):
    size = -(-len(steps) // pieces)
    for start in range(0, len(steps), size):
        if time.monotonic() > deadline:
            return None
        rest = steps[:start] + steps[start + size:]
        found = same(rest) if rest else None
        if found:
            return found
    return None

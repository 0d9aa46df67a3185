"""Draws the chart, from JSON on stdin; run in the scratch environment, where matplotlib is.

Given are `names`, and for each of them `plain` and `secure` mails a second and `latencies_ms`.
"""

import json
import sys
from typing import Any, Final

import matplotlib as mpl

mpl.use("agg")

from matplotlib import pyplot as plt

_COLOURS: Final = {"plain": "#335c81", "secure": "#8fb8de"}
_LABELS: Final = {"plain": "plain", "secure": "STARTTLS + AUTH"}


def draw(given: dict[str, Any], path: str) -> None:
    """Bars of throughput beside the distribution of latencies."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(14, 4.5), layout="constrained")
    names = given["names"]
    for place, how in enumerate(_LABELS):
        at = [number + 0.4 * place for number in range(len(names))]
        bars = left.barh(at, given[how], height=0.38, color=_COLOURS[how], label=_LABELS[how])
        left.bar_label(bars, fmt="{:,.0f}", padding=3)
    left.set_yticks([number + 0.2 for number in range(len(names))], names)
    left.invert_yaxis()
    left.set_title("Throughput, mails a second (median)")
    left.margins(x=0.12)
    left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=2, frameon=False)
    for name, values in zip(names, given["latencies_ms"], strict=True):
        ordered = sorted(values)
        right.plot(ordered, [(place + 1) / len(ordered) * 100 for place in range(len(ordered))], label=name)
    right.set_xscale("log")
    for ticks in (right.xaxis.set_major_formatter, right.xaxis.set_minor_formatter):
        ticks("{x:.0f}")
    right.tick_params(axis="x", which="minor", labelsize=7)
    right.set_xlabel("milliseconds, call to 250")
    right.set_ylabel("per cent of mails")
    right.set_title("Latency of one mail on an idle system")
    right.grid(alpha=0.3)
    right.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    draw(json.load(sys.stdin), sys.argv[1])

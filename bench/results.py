"""What the parts of the bench found, as it stands in `RESULTS.md`."""

import statistics

from bench import idle
from bench.enqueueing import Enqueueing
from bench.growth import Grown
from bench.idle import Idle
from bench.limit import Limit
from bench.measuring import Measured
from bench.rounds import Figures
from bench.slow_servers import Kept
from bench.table import percentile, spread, table
from bench.under_load import Waited


def throughput(figures: list[Figures], limit: Limit) -> str:
    """Mails a second of all, and what each keeps."""
    rows = [
        [
            each.contestant.name,
            spread([one.mails_a_second for one in each.plain]),
            spread([one.mails_a_second for one in each.secure]),
            each.contestant.durable,
        ]
        for each in figures
    ]
    rows.append(["`smtp-source`, the limit", f"{limit.mails_a_second:,.0f}", "no TLS", "no: nothing is kept"])
    return table(["", "plain, mails/s", "STARTTLS + AUTH, mails/s", "outcome durable?"], rows)


def latency(figures: list[Figures]) -> str:
    """Percentiles of each."""
    percents = (50, 90, 99)
    rows = [
        [each.contestant.name, *(f"{percentile(each.latencies_ms, percent):.1f}" for percent in percents)]
        for each in figures
    ]
    return table(["", *(f"p{percent}" for percent in percents)], rows)


def cost(figures: list[Figures]) -> str:
    """Processor time by process, and memory at the end of a stream; medians."""
    rows = []
    for each in figures:
        for how, streams in (("plain", each.plain), ("STARTTLS + AUTH", each.secure)):
            ms = {name: _median_ms(streams, name) for name in streams[0].cpu_ms}
            parts = ", ".join(f"{name} {value:.2f}" for name, value in ms.items())
            memory = statistics.median(sum(one.memory_mib.values()) for one in streams)
            rows.append([f"{each.contestant.name}, {how}", f"{sum(ms.values()):.2f}", parts, f"{memory:,.0f}"])
    return table(["", "all", "of which", "memory (PSS), MiB"], rows)


def _median_ms(streams: list[Measured], process: str) -> float:
    return statistics.median(one.cpu_ms[process] / one.mails for one in streams)


def enqueueing(found: list[Enqueueing]) -> str:
    """A call, many, and memory."""
    rows = [
        [each.name, f"{each.call_ms:.2f}", f"{each.many_a_second:,.0f}", *(f"{mib:.0f}" for mib in each.peak_mib)]
        for each in found
    ]
    return table(["", "one call, p50 ms", "many, mails/s", "peak after a tenth, MiB", "after all, MiB"], rows)


def slow(found: list[Kept]) -> str:
    """How full the connections were kept."""
    rows = [
        [
            f"{each.name}, {each.case.accounts} by {each.case.connections}, {each.case.server_seconds * 1000:.0f} ms",
            f"{each.case.most_a_second:,.0f}",
            f"{each.mails_a_second:,.0f}",
            f"{each.share:.2f}",
        ]
        for each in found
    ]
    return table(["accounts by connections of each, server time", "fit, mails/s", "sent, mails/s", "share"], rows)


def under_load(found: list[Waited]) -> str:
    """How long the others waited."""
    rows = [
        [
            f"{each.when}, {each.bulk_left:,} left",
            *(
                f"{percentile(waited, 50):,.0f} / {percentile(waited, 99):,.0f}"
                for waited in (each.high_ms, each.other_ms)
            ),
        ]
        for each in found
    ]
    return table(["while", "`high`, same account, p50 / p99 ms", "another account, p50 / p99 ms"], rows)


def growth(found: list[Grown]) -> str:
    """Filled by empty."""
    rows = [
        [
            f"{each.name}: {each.recorded:,} recorded, {each.waiting:,} waiting",
            spread([one.mails_a_second for one in each.empty]),
            spread([one.mails_a_second for one in each.filled]),
            f"{each.share:.2f}",
            f"{each.cost_share:.2f}",
        ]
        for each in found
    ]
    return table(["", "empty, mails/s", "filled, mails/s", "filled ÷ empty", "processor time, filled ÷ empty"], rows)


def at_rest(found: Idle) -> str:
    """Processor time and memory by process."""
    names = [*(name for name in found.cpu_percent if name != idle.ALL), idle.ALL]
    rows = [[name, f"{found.cpu_percent[name]:.1f}", f"{found.memory_mib[name]:,.0f}"] for name in names]
    return table(["process", "% of a core", "memory (PSS), MiB"], rows)

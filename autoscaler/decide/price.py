"""Prices to risk: the newsvendor's quantile.

One replica more than needed costs its price per hour; one less costs the misses of the demand that it would have
served. Cost is least at the quantile `under / (under + over)` of demand (Arrow, Harris, Marschak 1951).
"""

from __future__ import annotations


def critical_ratio(replica_hour: float, miss: float, units_per_s: float) -> float:
    """Quantile of demand to provision for. `miss`: price of one unit unserved; `units_per_s`: a replica's capacity."""
    under = miss * units_per_s * 3600.0
    if under <= 0.0:
        return 0.0
    return under / (under + replica_hour)


def worthwhile_misses(replica_hour: float, miss: float, units_per_s: float) -> float:
    """Share of demand whose missing is cheaper than the replica that would serve it.

    A replica that is short with probability p on its margin misses about p of its own demand, so the share of misses
    that prices justify is one less the critical ratio.
    """
    return 1.0 - critical_ratio(replica_hour, miss, units_per_s)

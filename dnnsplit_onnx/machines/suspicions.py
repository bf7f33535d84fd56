"""What is possible in a topology, and most likely meant otherwise."""

from __future__ import annotations

from itertools import pairwise

from dnnsplit_onnx.machines.topology import Topology

# Beyond these a figure is of no machine and no link that there is: its unit is another's.
_MOST_GFLOPS = 1e8
_MOST_GB = 1e6
_MOST_MBPS = 1e8


def suspicions(topology: Topology) -> tuple[str, ...]:
    """What may be meant otherwise in a topology that is possible, each a sentence."""
    found = []
    for tier in topology.tiers:
        for machine in tier.singles:
            if machine.gflops is not None and machine.gflops >= _MOST_GFLOPS:
                right = f"{machine.gflops / 1e9:.6g}"
                found.append(
                    f"tier `{tier.name}`: gflops = {machine.gflops:g} is more than any machine computes; "
                    f"if these are FLOP/s, write gflops = {right}"
                )
        if tier.memory_gb is not None and tier.memory_gb >= _MOST_GB:
            found.append(
                f"tier `{tier.name}`: memory_gb = {tier.memory_gb:g} is more than any machine has; "
                f"if these are bytes, write memory_gb = {tier.memory_gb / 1e9:.6g}"
            )
    for at, link in enumerate(topology.links):
        if link.bandwidth_mbps >= _MOST_MBPS:
            found.append(
                f"link {at}: bandwidth_mbps = {link.bandwidth_mbps:g} is more than any link carries; "
                f"if these are bit/s, write bandwidth_mbps = {link.bandwidth_mbps / 1e6:.6g}"
            )
    until = topology.limits.private_until
    if until is not None and not any(tier.private or tier.private_inputs for tier in topology.tiers):
        found.append(
            f'private_until = "{until}" keeps nothing: no tier is private; write private = true under the '
            "[[tier]] where the data must stay"
        )
    speeds = [tier.gflops for tier in topology.tiers]
    known = [speed for speed in speeds if speed is not None]
    if len(known) == len(speeds) > 1 and all(a > b for a, b in pairwise(known)):
        found.append(
            f"each tier is slower than the one below it, `{topology.names[0]}` the fastest; "
            "the first [[tier]] is where the data is born: if the cloud stands first, turn the order over"
        )
    return tuple(found)

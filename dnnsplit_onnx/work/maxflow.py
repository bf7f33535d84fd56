"""Minimum cuts with whole-number capacities of any size, exact by construction.

The public solvers each round somewhere: scipy holds capacities in 32 bits, OR-tools in 64
and drags in pandas and an old protobuf, networkx cuts wrongly on floats. Python's integers
do not round at all, and the networks here are small, since `envelope` contracts what can be
contracted first, and what edges that are never cut hold to a terminal is one with it. So this is
Dinic's algorithm (1970) over lists, with the check that the flow equals the weight of the cut.

Networks of models are long and thin, where Dinic's phases, one for each length of a path,
are many. A first phase therefore pushes along a given numbering of the nodes, which rises
along all edges but those that only forbid something. A few sweeps follow that push along any
edge not yet on their path; they find what must go against the numbering, in one go where
Dinic's phases would bring it node by node. Only then, and seldom, do his phases matter: they
bound the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

#: Phases that push along any path before those that push along the shortest.
_SWEEPS = 16


class Network:
    """A directed network between a source and a sink.

    Args:
        rank: For each node, a number that rises along the edges flow can be expected to
            take. Any numbers give the right answer; good ones give it soon. The source is
            node 0 and the sink node 1; theirs do not matter.
    """

    SOURCE, SINK = 0, 1

    def __init__(self, rank: Sequence[float]) -> None:
        self._rank = [float("-inf"), float("inf"), *rank[2:]]
        self._edges: list[tuple[int, int, int | None]] = []

    def add(self, tail: int, head: int, capacity: int | None) -> None:
        """Adds an edge; one of no capacity is left out, one of capacity None is never cut."""
        if capacity != 0:
            self._edges.append((tail, head, capacity))

    def minimum_cut(self) -> tuple[int, list[bool]]:
        """The weight of a minimum cut, and whether each node is on the source's side.

        Of all minimum cuts it is the one with the smallest source side.

        Raises:
            ValueError: No cut has finite weight.
        """
        never_cut = [(tail, head) for tail, head, capacity in self._edges if capacity is None]
        below = _reached(len(self._rank), never_cut, self.SOURCE)
        above = _reached(len(self._rank), [(head, tail) for tail, head in never_cut], self.SINK)
        if below[self.SINK]:
            raise ValueError("no cut of the network has finite weight")
        # What must be on one side is one with the terminal there, and no flow need find its way through.
        place = list(range(len(self._rank)))
        for node in range(len(place)):
            if below[node] or above[node]:
                place[node] = self.SOURCE if below[node] else self.SINK
        flow = _Flow(self._rank)
        infinite = 1 + sum(capacity or 0 for _, _, capacity in self._edges)
        for tail, head, capacity in self._edges:
            flow.add(place[tail], place[head], infinite if capacity is None else capacity)
        sent, is_reached = flow.most(infinite)
        below = [is_reached[at] for at in place]
        cut = (c for tail, head, c in self._edges if below[tail] > below[head])
        weight = sum(infinite if capacity is None else capacity for capacity in cut)
        assert weight == sent, "the flow is the weight of the cut"
        return sent, below


def _reached(count: int, edges: Iterable[tuple[int, int]], start: int) -> list[bool]:
    """Whether each node is reached from one along edges."""
    heads: list[list[int]] = [[] for _ in range(count)]
    for tail, head in edges:
        heads[tail].append(head)
    reached = [False] * count
    reached[start] = True
    queue = [start]
    for node in queue:
        for head in heads[node]:
            if not reached[head]:
                reached[head] = True
                queue.append(head)
    return reached


class _Flow:
    """What flows from node 0 to node 1, and what each edge can still take."""

    SOURCE, SINK = Network.SOURCE, Network.SINK

    def __init__(self, rank: Sequence[float]) -> None:
        self._rank = rank
        self._edges: list[list[int]] = [[] for _ in rank]  # edges out of each node
        self._head: list[int] = []  # where each edge leads; edge e ^ 1 is its reverse
        self._left: list[int] = []  # what each edge can still take

    def add(self, tail: int, head: int, capacity: int) -> None:
        """Adds an edge, unless nothing that flows can take it."""
        if tail == head or tail == self.SINK or head == self.SOURCE:
            return
        self._edges[tail].append(len(self._head))
        self._edges[head].append(len(self._head) + 1)
        self._head += [head, tail]
        self._left += [capacity, 0]

    def most(self, infinite: int) -> tuple[int, list[bool]]:
        """The greatest flow, and which nodes the source still reaches."""
        flow = self._push(self._rank, infinite)
        phases = 0
        while (level := self._levels())[self.SINK] >= 0:
            flow += self._push(level if phases >= _SWEEPS else None, infinite)
            phases += 1
        return flow, [distance >= 0 for distance in level]

    def _levels(self) -> list[float]:
        """Distance from the source over edges that can take more, -1 if out of reach."""
        level: list[float] = [-1] * len(self._edges)
        level[self.SOURCE] = 0
        queue = [self.SOURCE]
        for node in queue:
            for edge in self._edges[node]:
                head = self._head[edge]
                if level[head] < 0 and self._left[edge]:
                    level[head] = level[node] + 1
                    queue.append(head)
        return level

    def _push(self, rank: Sequence[float] | None, most: int) -> int:
        """Sends what fits along edges of rising rank; returns how much.

        A depth-first search that hands each node what its parent would like to send, and
        goes back with what the node could not pass on. Without ranks it takes any edge to
        a node that is not on its path; it then finds some flow if there is any to find.
        """
        edges, head, left = self._edges, self._head, self._left
        at = [0] * len(edges)  # each node's next edge; those before it are of no more use
        nodes, wants, sent, path = [self.SOURCE], [most], [0], [-1]
        is_on_path = [False] * len(edges)
        is_on_path[self.SOURCE] = True
        while True:
            node, out = nodes[-1], edges[nodes[-1]]
            if node == self.SINK:
                sent[-1] = wants[-1]
            elif sent[-1] < wants[-1] and at[node] < len(out):
                edge = out[at[node]]
                to = head[edge]
                if left[edge] and (not is_on_path[to] if rank is None else rank[to] > rank[node]):
                    is_on_path[to] = True
                    nodes.append(to)
                    wants.append(min(left[edge], wants[-1] - sent[-1]))
                    sent.append(0)
                    path.append(edge)
                else:
                    at[node] += 1
                continue
            is_on_path[nodes.pop()] = False
            want, passed, edge = wants.pop(), sent.pop(), path.pop()
            if not nodes:
                return passed
            left[edge] -= passed
            left[edge ^ 1] += passed
            sent[-1] += passed
            if passed < want:
                at[nodes[-1]] += 1

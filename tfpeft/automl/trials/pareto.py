"""The Pareto front: points that no other point beats in one figure without losing in the other."""


def pareto_front(points, *, higher_is_better=True):
    """Returns the names of the points of the front, by growing cost.

    A point is on the front if every other point costs more, or has a worse metric, or is equal in
    both. Of equal points the first one is named.

    Args:
        points: {name: (cost, metric)}; lower costs are better. Points with a None are left out.
        higher_is_better: Whether higher values of the metric are better.
    """
    sign = 1 if higher_is_better else -1
    known = [
        (cost, -sign * metric, name)
        for name, (cost, metric) in points.items()
        if cost is not None and metric is not None
    ]
    front, best = [], float("inf")
    for _, loss, name in sorted(known, key=lambda point: point[:2]):
        if loss < best:
            front.append(name)
            best = loss
    return front

"""Families of channels: channels that are made, carried and consumed by the same weights."""

import dataclasses

import numpy as np

from tfpeft.channels.dependency_graph import PRODUCES, Slices


@dataclasses.dataclass(frozen=True, eq=False)
class Family:
    """Channels of one place in a model, such as those of a convolution.

    Attributes:
        roots: An array of tags, one for each channel.
        members: The `Slices` that belong to them, and for each slice the number of its channel;
            -1 for slices of other channels.
    """

    roots: np.ndarray
    members: list[tuple[Slices, np.ndarray]]

    def __len__(self):
        return len(self.roots)

    @property
    def layers(self):
        """The layers that make the channels."""
        return list({id(s.layer): s.layer for s, _ in self.members if s.role == PRODUCES}.values())

    @property
    def name(self):
        """The names of the layers that make the channels."""
        return " + ".join(layer.name for layer in self.layers)

    @property
    def kind(self):
        """What families have in common that are of one structure: kinds of layers and weights."""
        return tuple(
            sorted(
                (type(s.layer).__name__, s.variable.name, s.axis, s.role) for s, _ in self.members
            )
        )

    def sum(self, values):
        """Returns a total for each channel, and how many slices it has.

        Args:
            values: For each member an array with a number per slice, or None.
        """
        total, count = np.zeros(len(self)), np.zeros(len(self))
        for (_, channels), each in zip(self.members, values, strict=True):
            if each is not None:
                here = channels >= 0
                total += np.bincount(channels[here], each[here], minlength=len(self))
                count += np.bincount(channels[here], minlength=len(self))
        return total, count


def families_of(graph):
    """Returns the families of the channels of a `DependencyGraph` that can be removed."""
    members = {}
    roots = [graph.tags.roots(each.tags) for each in graph.slices]
    for index, each in enumerate(roots):
        for root in np.unique(each[each > 0]).tolist():
            members.setdefault(root, []).append(index)
    by_members = {}
    for root, indices in members.items():
        by_members.setdefault(tuple(indices), []).append(root)
    families = []
    for indices, ours in by_members.items():
        ours = np.array(sorted(ours))
        found = []
        for index in indices:
            places = np.minimum(np.searchsorted(ours, roots[index]), len(ours) - 1)
            found.append((graph.slices[index], np.where(ours[places] == roots[index], places, -1)))
        families.append(Family(ours, found))
    return families


def kernels(family):
    """Returns the members that are kernels, of rank 2 or more."""
    return [pair for pair in family.members if len(pair[0].variable.shape) > 1]

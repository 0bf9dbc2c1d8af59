"""The number of matrix products that an evaluation needs, from its shapes alone.

Only products whose results are read count. So there are none for backward synapses that nothing
reads (those of the input layer, and all after the last backward pass), synapses that both passes
share are updated once, products with inputs involve state 0 only, and only the used states of the
last layer count.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import NamedTuple

from blur_es.episode import EpisodeSpec
from blur_es.inner.base import STATISTICS_BATCHES, pools_support
from blur_es.rule import RuleSpec


class Product(NamedTuple):
    """The shape of a matrix product: (rows, depth) times (depth, columns)."""

    rows: int
    columns: int
    depth: int

    @property
    def flops(self) -> int:
        """The number of multiplications and additions."""
        return 2 * self.rows * self.columns * self.depth


def useful_products(rule: RuleSpec, sizes: Sequence[int], spec: EpisodeSpec) -> dict[Product, int]:
    """The products of one evaluation (one genome, one episode) and the number of each.

    Args:
        rule: the rule.
        sizes: layer sizes n_0 .. n_L.
        spec: number and size of the batches of the episode.
    """
    found: collections.Counter[Product] = collections.Counter()
    states, batch, layers = rule.states, spec.batch_size, len(sizes) - 1
    planes, tied = rule.planes, rule.passes_share_synapses
    # Feedback overwrites all states of the last layer but state 0, unless they were read before.
    overwritten = (
        rule.feedback != "squared_error_gradient"
        and rule.reset_neurons
        and not rule.forward_synapse_update
    )
    last_states = 1 if overwritten else states
    # Then the synapses of the last layer's other states are unused, unless the backward pass
    # shares them.
    last_planes = 1 if overwritten and not tied else planes

    def forward(times: int, outputs: int) -> None:
        for i in range(layers):
            wanted = outputs if i == layers - 1 else states
            if i == 0:
                found[Product(batch, min(wanted, planes) * sizes[1], sizes[0])] += times
            else:
                found[Product(batch, sizes[i + 1], sizes[i])] += times * wanted

    def backward() -> None:
        for i in range(1, layers):
            found[Product(batch, sizes[i], sizes[i + 1])] += states

    def update(read_by_backward_pass: bool) -> None:
        for i in range(layers):
            wanted = last_planes if i == layers - 1 else planes
            if i == 0:
                found[Product(sizes[0], wanted * sizes[1], batch)] += 1
            else:
                found[Product(sizes[i], sizes[i + 1], batch)] += wanted
                if read_by_backward_pass and not tied:
                    found[Product(sizes[i + 1], sizes[i], batch)] += planes

    last_backward = (spec.unroll - 1) // rule.supervised_every * rule.supervised_every
    for step in range(spec.unroll):
        supervised = step % rule.supervised_every == 0
        if supervised or rule.forward_synapse_update or not rule.reset_neurons:
            forward(1, last_states)
        if rule.forward_synapse_update:
            update(step <= last_backward)
        if supervised:
            backward()
            update(step < last_backward)
    pooled = pools_support(rule)
    forward((min(STATISTICS_BATCHES, spec.unroll) if pooled else 0) + spec.query_batches, 1)
    return {product: count for product, count in found.items() if count}


def total_flops(products: dict[Product, int]) -> int:
    """The number of multiplications and additions of all products."""
    return sum(product.flops * count for product, count in products.items())

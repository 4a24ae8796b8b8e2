"""Joint fine-tuning: how much on-policy experience, and how fast (appendix F.3).

Kalashnikov et al. 2018 train on a log first, and go on with what the policy of the time
collects: little of it to begin with, and gated, since robots stop when they like.

  share     of a minibatch that is on-policy, u updates into the fine-tuning
              start + (end - start) min(1, u / updates)
  balance   updates for an on-policy transition, between `least` and `most`:
              no update above, no block of transitions below

A limiter of a replay table counts samples for an insertion, which the share multiplies:
with 32 examples and 6 updates a transition it would have to move from 1.9 to 96. This
one counts what the paper fixes.
"""

from __future__ import annotations

from typing import NamedTuple


class Ramp(NamedTuple):
  """The share of on-policy examples in a minibatch.

  Attributes:
    start: when fine-tuning begins.
    end: from `updates` on.
    updates: that it takes to get there.
  """

  start: float
  end: float
  updates: int

  def share(self, updates: int) -> float:
    """Returns the share so many updates into the fine-tuning."""
    progress = min(1.0, max(0, updates) / self.updates)
    return self.start + (self.end - self.start) * progress


class Balancer(NamedTuple):
  """Keeps updates and on-policy transitions together.

  Updates may overshoot by those of a call, transitions by those of a block; so neither
  ever waits for the other for good.

  Attributes:
    least: updates a transition, below which no transitions are taken.
    most: updates a transition, above which none are made.
  """

  least: float
  most: float

  def trains(self, updates: int, transitions: int) -> bool:
    """Whether updates are allowed, after so many of both."""
    return updates < self.most * transitions

  def takes(self, updates: int, transitions: int) -> bool:
    """Whether more transitions are welcome, after so many of both."""
    return updates >= self.least * transitions


def check(ramp: Ramp, balancer: Balancer) -> None:
  """Raises ValueError unless shares are shares and ratios are ratios."""
  if not (0 <= ramp.start <= 1 and 0 <= ramp.end <= 1 and ramp.updates >= 1):
    raise ValueError(
      f'the on-policy share is {tuple(ramp)}: give 0 to 1, over 1 update'
    )
  if not 0 < balancer.least <= balancer.most:
    raise ValueError(
      f'updates a transition are {tuple(balancer)}: give two above 0, rising'
    )

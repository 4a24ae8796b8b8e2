"""Keeping a beat: a trainer and collectors at set rates, as on real robots."""

from __future__ import annotations

import time
from typing import Any

import chex

from armfarm.envs import task


class Pacer:
  """Ticks at absolute deadlines, so that no lateness adds up.

  Attributes:
    ticks: that were waited for.
    late: of them, those that were asked for after their time.
  """

  def __init__(self, hertz: float):
    """Starts at the first `wait`.

    Raises:
      ValueError: the rate is not positive.
    """
    if not hertz > 0:
      raise ValueError(f'a pace of {hertz} Hz: give a rate above 0')
    self._period = 1.0 / hertz
    self._next: float | None = None
    self.ticks = 0
    self.late = 0

  def wait(self) -> None:
    """Sleeps until the next tick; one that came a period late starts the beat anew."""
    now = time.monotonic()
    deadline = self._next if self._next is not None else now
    self.ticks += 1
    self.late += now > deadline
    if now > deadline + self._period:
      deadline = now
    self._next = deadline + self._period
    time.sleep(max(0.0, deadline - now))

  def pause(self) -> None:
    """Lets the next tick begin the beat anew, and be in time."""
    self._next = None


class Paced:
  """An environment whose steps keep a beat, as an arm's do."""

  def __init__(self, environment: task.Environment, pacer: Pacer):
    self._environment = environment
    self._pacer = pacer
    self.observation_size = environment.observation_size
    self.action_size = environment.action_size
    self.episode_steps = environment.episode_steps

  def reset(self, key: chex.PRNGKey) -> Any:
    """See `task.Environment`; an arm that is put back need not keep the beat."""
    self._pacer.pause()
    return self._environment.reset(key)

  def step(self, action: Any) -> task.Step:
    """Waits for the beat, then steps; see `task.Environment`."""
    self._pacer.wait()
    return self._environment.step(action)

  def state(self) -> dict[str, Any]:
    """See `task.Environment`."""
    return self._environment.state()

  def restore(self, state: dict[str, Any]) -> None:
    """See `task.Environment`."""
    self._environment.restore(state)

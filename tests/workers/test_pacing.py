"""Keeping a beat, by a clock that moves when told to."""

import jax
import pytest

from armfarm.workers import pacing


@pytest.fixture
def time(clock):
  return clock(pacing)


@pytest.mark.parametrize(
  ('work', 'ticks', 'late'),
  [
    # Seconds of work after each tick -> when the ticks are, at 10 Hz.
    ([0.0, 0.0, 0.0], [0.0, 0.1, 0.2, 0.3], 0),
    ([0.05, 0.09, 0.01], [0.0, 0.1, 0.2, 0.3], 0),
    ([0.15, 0.0, 0.0], [0.0, 0.15, 0.2, 0.3], 1),  # a little late: made up for
    ([0.15, 0.1, 0.1], [0.0, 0.15, 0.25, 0.35], 3),
    ([0.5, 0.0, 0.0], [0.0, 0.5, 0.6, 0.7], 1),  # a period late: begun anew
    ([0.5, 0.5, 0.0], [0.0, 0.5, 1.0, 1.1], 2),
  ],
)
def test_ticks_come_at_absolute_deadlines(time, work, ticks, late):
  pacer, began, found = pacing.Pacer(10.0), time.now, []
  for seconds in [*work, 0.0]:
    pacer.wait()
    found.append(time.now - began)
    time.now += seconds
  assert found == pytest.approx(ticks)
  assert (pacer.ticks, pacer.late) == (4, late)


def test_a_pause_is_not_late(time):
  pacer, began = pacing.Pacer(10.0), time.now
  pacer.wait()
  time.now += 7.03
  pacer.pause()
  for _ in range(2):
    pacer.wait()
  assert time.now - began == pytest.approx(7.13)
  assert (pacer.ticks, pacer.late) == (3, 0)


def test_who_is_put_back_begins_the_beat_anew(time, robot):
  pacer = pacing.Pacer(20.0)
  paced = pacing.Paced(robot, pacer)
  for _ in range(2):
    paced.reset(jax.random.key(0))
    time.now += 1.0
    paced.step([0.01])
  assert (pacer.ticks, pacer.late) == (2, 0)


@pytest.mark.parametrize('hertz', [0.0, -1.0, float('nan')])
def test_a_rate_that_is_none(hertz):
  with pytest.raises(ValueError, match='give a rate above 0'):
    pacing.Pacer(hertz)


def test_a_paced_robot_is_the_robot_at_a_beat(time, robot):
  paced, plain = pacing.Paced(robot, pacing.Pacer(20.0)), type(robot)()
  assert (paced.observation_size, paced.action_size, paced.episode_steps) == (2, 1, 5)
  for environment in (paced, plain):
    environment.reset(jax.random.key(0))
  began, state = time.now, paced.state()
  for _ in range(2):
    steps = [[e.step([0.01]) for _ in range(3)] for e in (paced, plain)]
    assert repr(steps[0]) == repr(steps[1])
    for environment in (paced, plain):
      environment.restore(state)
  assert time.now - began == pytest.approx(0.25)  # six ticks, the first at once

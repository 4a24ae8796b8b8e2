"""The ramp and the balancer do what appendix F.3 says."""

import itertools

import numpy as np
import pytest

from armfarm.workers import joint
from armfarm.workers.joint import Balancer
from armfarm.workers.joint import Ramp

_RAMP = Ramp(start=0.01, end=0.5, updates=1_000_000)
_BALANCER = Balancer(least=6.0, most=11.0)


@pytest.mark.parametrize(
  ('updates', 'share'),
  [
    *((-5, 0.01), (0, 0.01), (250_000, 0.1325), (500_000, 0.255)),
    *((1_000_000, 0.5), (5_000_000, 0.5)),
  ],
)
def test_the_share_rises_in_a_line(updates, share):
  assert _RAMP.share(updates) == pytest.approx(share, rel=1e-12)


@pytest.mark.parametrize(
  ('updates', 'transitions', 'trains', 'takes'),
  [
    (0, 0, False, True),
    (0, 1, True, False),
    (5, 1, True, False),
    (6, 1, True, True),
    (10, 1, True, True),
    (11, 1, False, True),
    (600, 100, True, True),
    (599, 100, True, False),
    (1100, 100, False, True),
  ],
)
def test_the_balancer_by_hand(updates, transitions, trains, takes):
  assert _BALANCER.trains(updates, transitions) == trains
  assert _BALANCER.takes(updates, transitions) == takes


@pytest.mark.parametrize(
  'balancer', [_BALANCER, Balancer(8.0, 8.0), Balancer(0.2, 0.3)]
)
@pytest.mark.parametrize('speed', [0.001, 0.3, 1.0, 3.0, 1000.0])
@pytest.mark.parametrize(('call', 'block'), [(1, 1), (7, 20), (40, 3)])
def test_whoever_is_faster_waits_and_nobody_for_good(balancer, speed, call, block):
  """Updates and blocks ask for leave at random, one `speed` times as often."""
  rng = np.random.default_rng(0)
  updates = transitions = moves = 0
  for _ in range(5000):
    train, take = (
      balancer.trains(updates, transitions),
      balancer.takes(updates, transitions),
    )
    assert train or take
    is_update = rng.random() < speed / (1 + speed)
    if is_update and train:
      updates += call
    if not is_update and take:
      transitions += block
    moves += (train and is_update) or (take and not is_update)
    assert updates < balancer.most * transitions + call
    assert updates >= balancer.least * (transitions - block)
  assert moves > 0


def test_a_limiter_of_samples_would_have_to_move():
  """What the balancer fixes, told in samples for an insertion, as Reverb would."""
  batch = 32
  samples = [
    ratio * batch * _RAMP.share(updates)
    for updates, ratio in itertools.product((0, 1_000_000), _BALANCER)
  ]
  np.testing.assert_allclose(samples, [1.92, 3.52, 96.0, 176.0])


@pytest.mark.parametrize(
  ('ramp', 'balancer'),
  [
    (_RAMP._replace(start=-0.1), _BALANCER),
    (_RAMP._replace(end=1.1), _BALANCER),
    (_RAMP._replace(updates=0), _BALANCER),
    (_RAMP, Balancer(0.0, 11.0)),
    (_RAMP, Balancer(11.0, 6.0)),
  ],
)
def test_numbers_that_make_no_sense(ramp, balancer):
  joint.check(_RAMP, _BALANCER)
  with pytest.raises(ValueError, match='give'):
    joint.check(ramp, balancer)

"""The trainer: what it counts, when it updates and publishes, how it goes on."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armfarm.workers import trainer as trainers
from armfarm.workers.trainer import Counters
from armfarm.workers.trainer import Episode


@pytest.mark.parametrize(
  ('updates_per_step', 'block_steps', 'warmup_steps', 'updates'),
  [
    (1.0, 2, 0, [2, 4, 6, 8]),
    (1.0, 2, 4, [0, 0, 2, 4]),
    (1.0, 2, 3, [0, 0, 2, 4]),  # the ratio is never exceeded
    (5.0, 2, 4, [0, 0, 10, 20]),
    (0.2, 5, 5, [0, 1, 2, 3]),
    (0.2, 10, 5, [0, 2, 4, 6]),
    (5 / 8, 8, 8, [0, 5, 10, 15]),
    (1 / 3, 3, 0, [1, 2, 3, 4]),
  ],
)
def test_the_ratio_is_exact(
  make_trainer, script, updates_per_step, block_steps, warmup_steps, updates
):
  trainer, _ = make_trainer(updates_per_step, block_steps, warmup_steps=warmup_steps)
  counters, warm = [], []
  for block in script('.' * 4 * block_steps, block_steps):
    trainer.advance(block)
    counters.append(trainer.counters)
    warm.append(trainer.warm)
  steps = [block_steps * n for n in (1, 2, 3, 4)]
  expected = [Counters(*row, episodes=0) for row in zip(steps, updates, strict=True)]
  assert counters == expected
  assert warm == [count >= warmup_steps for count in steps]
  assert trainer.state()['learner'].updates == updates[-1]
  ratio = updates[-1] / (steps[-1] - warmup_steps)
  assert trainer.metrics()['updates_per_step'] == ratio


def test_updates_that_are_due_are_caught_up_on(make_trainer, script):
  trainer, _ = make_trainer(block_steps=2, warmup_steps=2)
  for block in script('.' * 8, 2):
    trainer.ingest(block)
  assert trainer.counters == Counters(env_steps=8)
  trainer.train_due()
  assert trainer.counters == Counters(env_steps=8, updates=6)


def test_nothing_is_learned_of_an_empty_memory(make_trainer):
  # As of steps all of which wait for the end of their episode, see `hindsight`.
  trainer, _ = make_trainer(block_steps=2, warmup_steps=2)
  trainer.counters = Counters(env_steps=8)
  assert trainer.warm and not trainer.ready
  trainer.train_due()
  assert trainer.counters.updates == 0


@pytest.mark.parametrize(
  ('updates_per_step', 'block_steps', 'message'),
  [
    (0.2, 4, 'set block_steps to a multiple of 5'),
    (5 / 8, 10, 'set block_steps to a multiple of 8'),
    (0.1, 1, 'set block_steps to a multiple of 10'),
  ],
)
def test_a_ratio_that_no_block_pays_for(updates_per_step, block_steps, message):
  options = trainers.Options(updates_per_step, 0, block_steps, 1, 1)
  with pytest.raises(ValueError, match=message):
    _ = options.updates_per_call


def test_variables_are_published_in_time_and_stay_what_they_were(make_trainer, script):
  trainer, outbox = make_trainer(block_steps=2, publish_every=4)
  trainer.publish()
  weights = [trainer.variables()['weight']]
  for block in script('.' * 18, 2):
    trainer.advance(block)
    weights.append(trainer.variables()['weight'])
  assert [sent.version for sent in outbox.sent] == [1, 5, 9, 13, 17]
  for sent in outbox.sent:
    calls = (sent.version - 1) // 2
    np.testing.assert_array_equal(sent.variables['weight'], weights[calls])
  assert len(set(map(float, weights))) == len(weights)


@pytest.mark.parametrize('last', [np.nan, np.inf])
def test_a_loss_that_is_not_finite_is_not_published(make_trainer, script, last):
  trainer, outbox = make_trainer(block_steps=2, publish_every=4)
  blocks = script('.T.T', 2, reward=1.0) + script('.T', 2, episode=2, reward=last)
  blocks += script('.T' * 5, 2, episode=3, reward=last)
  for block in blocks[:3]:  # the third call is under way when the second is sent
    trainer.advance(block)
  assert [sent.version for sent in outbox.sent] == [5]
  with pytest.raises(trainers.Diverged, match='after 8 updates .5 episodes.'):
    for block in blocks[3:]:
      trainer.advance(block)
  assert [sent.version for sent in outbox.sent] == [5]


def test_metrics_are_means_of_the_last_call(make_trainer, script):
  trainer, _ = make_trainer(updates_per_step=2.0, block_steps=2)
  assert trainer.metrics() == {'updates_per_step': 0.0}
  for block in script('....', 2, reward=3.0):
    trainer.advance(block)
  # Updates 4, 5, 6 and 7 were the last.
  assert trainer.metrics() == {'loss': 3.0, 'updates': 5.5, 'updates_per_step': 2.0}


def test_what_arrives_again_is_dropped_and_counted(make_trainer, script):
  trainer, _ = make_trainer(block_steps=2)
  a = script('..T...', 2)
  b = script('..T...', 2, collector=1)
  order = [a[0], b[0], a[0], a[1], b[0], a[0], a[1], b[1], a[2], a[2]]
  dropped = []
  for block in order:
    trainer.advance(block)
    dropped.append(trainer.dropped)
  assert dropped == [0, 0, 2, 2, 4, 6, 8, 8, 8, 10]
  assert trainer.counters == Counters(env_steps=10, updates=10, episodes=2)


def test_a_block_of_one_step_that_arrives_again_is_dropped(make_trainer, script):
  trainer, _ = make_trainer(block_steps=1)
  for block in script('.T.', 1):
    trainer.advance(block)
    trainer.advance(block)
  assert trainer.dropped == 3
  assert trainer.counters == Counters(env_steps=3, updates=3, episodes=1)


def _episode(number, steps, total, success=False, **changes):
  row = Episode(0, number, steps, total, success, version=1, age_updates=0, age_s=0.5)
  return row._replace(**changes)


# Rewards are 1, 2, 3 ... and blocks have three steps: what ends in each?
@pytest.mark.parametrize(
  ('letters', 'ended'),
  [
    ('......', [[], []]),
    ('..T..L', [[_episode(0, 3, 6.0)], [_episode(1, 3, 15.0)]]),
    ('.T...S', [[_episode(0, 2, 3.0)], [_episode(1, 4, 18.0, True)]]),
    ('....S.', [[], [_episode(0, 5, 15.0, True)]]),
    ('TSL...', [[_episode(i, 1, i + 1.0, success=i == 1) for i in range(3)], []]),
    ('.....L', [[], [_episode(0, 6, 21.0)]]),
  ],
)
def test_episodes_are_added_up(make_trainer, script, letters, ended):
  trainer, _ = make_trainer(block_steps=3, warmup_steps=100)
  assert [trainer.advance(block) for block in script(letters, 3)] == ended
  assert trainer.counters.episodes == sum(map(len, ended))


def test_collectors_are_added_up_apart(make_trainer, script):
  trainer, _ = make_trainer(block_steps=2)
  a, b = script('...S', 2), script('...S', 2, collector=1, episode=4, version=3)
  found = [trainer.advance(block) for block in (a[0], b[0], a[1], b[1])]
  assert found == [
    [],
    [],
    [_episode(0, 4, 10.0, True, age_updates=4)],
    [_episode(4, 4, 10.0, True, collector=1, version=3, age_updates=4)],
  ]
  assert [trainer.next_episode(number) for number in range(3)] == [1, 5, 0]


def test_what_is_restored_goes_on_to_the_bit(make_trainer, script):
  blocks = script('...S' * 5, 2)
  trainer, _ = make_trainer(block_steps=2)
  for block in (*blocks[:5], blocks[0]):  # in the middle of an episode; one is old
    trainer.advance(block)
  state = jax.tree.map(np.array, trainer.state())
  progress = json.loads(json.dumps(trainer.progress()))
  other, _ = make_trainer(block_steps=2)
  other.restore(jax.tree.map(jax.numpy.asarray, state), progress)
  for block in blocks[4:]:  # the first is old
    assert trainer.advance(block) == other.advance(block)
  assert other.counters == trainer.counters == Counters(20, 20, 5)
  assert other.dropped == trainer.dropped == 4
  assert other.metrics() == trainer.metrics()
  jax.tree.map(np.testing.assert_array_equal, other.state(), trainer.state())


def test_every_minibatch_is_labelled_by_the_newest_variables(make_trainer, script):
  traces = []

  def label(variables, actor_state, experience, key):
    assert actor_state == ()
    traces.append(key)
    reward = experience.reward + jnp.abs(variables['weight'])
    return experience._replace(reward=reward), actor_state

  trainer, _ = make_trainer(updates_per_step=2.0, block_steps=2, label=label)
  before = trainer.variables()['weight']
  for block in script('....', 2, reward=1.0):
    trainer.advance(block)
  assert trainer.counters.updates == 8
  # With a loss of 1 + w, an update takes w to 1 + 2 w, and some 0.001 of noise.
  w = before
  for _ in range(8):
    last, w = w, 1.0 + 2.0 * w
  np.testing.assert_allclose(trainer.variables()['weight'], w, rtol=0.02)
  assert trainer.metrics()['loss'] > 1.0 + 0.3 * last
  assert len(traces) == 1


def test_a_learner_hears_how_it_did_before_its_next_call(make_trainer, script):
  def judge(state, success):
    return state._replace(weight=state.weight + success)

  trainer, outbox = make_trainer(block_steps=2, judge=judge)
  before = trainer.variables()['weight']
  trainer.judge(3.0)
  trainer.judge(0.25)
  assert trainer.variables()['weight'] == before
  trainer.publish()
  assert outbox.latest(0.0).variables['weight'] == pytest.approx(before + 3.25)
  trainer.publish()
  assert trainer.variables()['weight'] == pytest.approx(before + 3.25)


def test_a_learner_that_does_not_ask_is_told_nothing(make_trainer):
  trainer, _ = make_trainer(block_steps=2)
  before = trainer.variables()['weight']
  trainer.judge(1.0)
  trainer.publish()
  assert trainer.variables()['weight'] == before


def test_the_update_is_traced_once(make_trainer, script, toy):
  trainer, _ = make_trainer(updates_per_step=3.0, block_steps=2, publish_every=6)
  traces = toy.traces
  for block in script('.' * 40, 2):
    trainer.advance(block)
  assert trainer.counters.updates == 120
  assert toy.traces == traces + 1

"""When a run of QT-Opt counts as having learned to grasp."""

import json

import pytest

from armfarm.experiments import grasp_state


@pytest.mark.parametrize(
  ('success', 'steps'),
  [([0.23, 0.95, 0.9], 200.0), ([0.23, 0.94], None), ([], None)],
)
def test_the_first_evaluation_at_the_goal_counts(tmp_path, success, steps):
  rows = [{'kind': 'episode', 'env_steps': 5, 'success': True}]
  rows += [
    {'kind': 'evaluation', 'env_steps': 100 * i, 'success': x}
    for i, x in enumerate(success, 1)
  ]
  text = ''.join(json.dumps(row) + '\n' for row in rows)
  (tmp_path / 'metrics.jsonl').write_text(text)
  assert grasp_state.steps_to_goal(tmp_path) == steps

"""Mirror descent guided policy search (Montgomery and Levine 2016).

Each local controller is improved within a divergence of the global policy, Eq. 3 of
Yahya et al. 2016; training the policy on them, Eq. 4, projects the improvement back. So
the policy itself may act in the rollouts, from new initial states at each iteration.

Letters as in `armfarm.agents.gps.linear_gaussian`.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from armfarm.agents.gps import linear_gaussian as lg


def choose(
  first: chex.Array, controller: lg.Controller, policy: lg.Controller
) -> lg.Controller:
  """Where an improvement starts: the linearised policy, once it has been taught.

  Args:
    first: whether this is the first iteration, whose policy knows nothing, [].
    controller: that acted in the first iteration.
    policy: the global one, linearised around the rollouts.
  """
  return jax.tree.map(lambda p, q: jnp.where(first, p, q), controller, policy)

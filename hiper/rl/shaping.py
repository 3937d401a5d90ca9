"""Penalties that turn the environment's reward into the learner's.

Source: HiPER, arXiv:2602.16165. Published values: invalid -0.1; KEEP -0.3 `fixed` on ALFWorld, -3.5 `normalized` on WebShop;
mismatch -0.3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hiper.errors import ConfigError
from hiper.rl._checks import check_bool, check_choice, check_shapes

KEEP_MODES = ("off", "fixed", "normalized")
"""How KEEP turns are penalised."""


@torch.no_grad()
def shape_rewards(
    rewards: Tensor,
    invalid: Tensor,
    keep: Tensor,
    mismatch: Tensor,
    mask: Tensor,
    *,
    invalid_penalty: float,
    keep_penalty: float,
    keep_mode: str,
    keep_mismatch_penalty: float,
    scale: float = 1.0,
    penalize_first: bool = False,
) -> Tensor:
    """The reward the learner sees: scaled, penalties added.

        r'[t] = scale * r[t] + invalid_penalty          if the reply is invalid
                             + keep_penalty             if KEEP, `fixed`
                             + keep_penalty / T         if KEEP, `normalized`; T = live turns of the trajectory
                             + keep_mismatch_penalty    if KEEP and the subgoal text is not the previous turn's

    Args:
        rewards: (B, T) float. The environment's.
        invalid: (B, T) bool. The reply has no usable form, or its action was not admissible.
        keep: (B, T) bool. The reply says KEEP (or says nothing usable, which counts as KEEP).
        mismatch: (B, T) bool. The reply's subgoal differs from the previous turn's; counts on KEEP turns after the first.
        mask: (B, T) bool. True on real turns, False on padding.
        invalid_penalty, keep_penalty, keep_mismatch_penalty: rewards, so 0 or negative.
        keep_mode: `off`, `fixed` or `normalized`.
        scale: factor on the environment's reward.
        penalize_first: penalise a KEEP said on turn 0 as well (never for a mismatch: nothing came before).

    Returns:
        Tensor: (B, T), the dtype of `rewards`; zero on padding. `rewards` is left as it was.

    Raises:
        ValueError: shapes or dtypes differ from the above.
        ConfigError: a penalty is positive, or `keep_mode` is unknown.

    Note:
        Turn 0 always starts a segment, whatever the reply says, so no subgoal was kept there and none is penalised. The authors' code
        penalises it; `penalize_first=True` does too. Their `normalized` penalty, penalty * keep_ratio / keep_count, is penalty / T; it is 0
        in episodes of one turn, which matters with `penalize_first` only.
    """
    check_shapes("(B, T)", rewards.shape, invalid=invalid, keep=keep, mismatch=mismatch, mask=mask)
    check_bool(invalid=invalid, keep=keep, mismatch=mismatch, mask=mask)
    check_choice("keep_mode", keep_mode, KEEP_MODES)
    penalties = {"invalid_penalty": invalid_penalty, "keep_penalty": keep_penalty, "keep_mismatch_penalty": keep_mismatch_penalty}
    for name, value in penalties.items():
        if not value <= 0:
            raise ConfigError(f"{name}={value!r} would pay, not penalise: penalties are added to the reward, so 0 or negative.")

    later = torch.ones_like(mask)
    later[:, :1] = False
    copied_wrong = keep & mismatch & later
    if not penalize_first:
        keep = keep & later
    penalty = torch.full_like(rewards[:, :1], keep_penalty if keep_mode != "off" else 0.0)
    if keep_mode == "normalized":
        turns = mask.sum(dim=1, keepdim=True)
        penalty = torch.where(turns > 1, penalty / turns, 0.0)
    shaped = scale * rewards + invalid_penalty * invalid + penalty * keep + keep_mismatch_penalty * copied_wrong
    return torch.where(mask, shaped, 0.0).to(rewards.dtype)

"""Hierarchical Advantage Estimation in a training loop of one's own, which needs nothing of HiPER but the function.

A corridor of seven cells: fetch the key at the left end, then open the door at the right end. Each turn the planner keeps its subgoal or
picks one anew (key, door), and the executor steps left or right. It takes seconds.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from hiper import hierarchical_advantages

CELLS, TURNS, EPISODES = 7, 30, 64


def play(policy: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Episodes: what happened, and the log-probabilities and values that learn; each (B, T)."""
    position, key = torch.full((EPISODES,), CELLS // 2), torch.zeros(EPISODES, dtype=torch.bool)
    subgoal, over, seen, learned = torch.zeros(EPISODES, dtype=torch.long), torch.zeros(EPISODES, dtype=torch.bool), [], []
    for turn in range(TURNS):
        state = torch.cat([nn.functional.one_hot(position, CELLS), key[:, None]], 1).float()
        out = policy(torch.cat([state, nn.functional.one_hot(subgoal, 2)], 1))
        switches, plans = Categorical(logits=out[:, 0:2]), Categorical(logits=out[:, 2:4])
        switch, plan = switches.sample() if turn else torch.ones_like(subgoal), plans.sample()  # turn 0 has no subgoal to keep
        subgoal = torch.where(switch.bool(), plan, subgoal)
        acting = policy(torch.cat([state, nn.functional.one_hot(subgoal, 2)], 1))
        move = (moves := Categorical(logits=acting[:, 4:6])).sample()
        values = {"v_low": acting[:, 6], "v_high": out[:, 7], "v_switch": out[:, 8]}
        learned.append({"low": moves.log_prob(move), "high": plans.log_prob(plan), "switch": switches.log_prob(switch), **values})
        live, position = ~over, (position + 2 * move - 1).clamp(0, CELLS - 1)
        key = key | (position == 0)
        over = over | (key & (position == CELLS - 1))
        seen.append({"rewards": (live & over).float(), "segment_starts": switch.bool() & live, "mask": live})
    batch = {name: torch.stack([one[name] for one in seen], 1) for name in seen[0]}
    return {**batch, "terminated": over}, {name: torch.stack([one[name] for one in learned], 1) for name in learned[0]}


def train(iterations: int = 80, seed: int = 0) -> list[float]:
    torch.manual_seed(seed)
    policy, success = nn.Sequential(nn.Linear(CELLS + 3, 64), nn.Tanh(), nn.Linear(64, 9)), []
    optimizer = torch.optim.Adam(policy.parameters(), lr=3e-3)
    for _ in range(iterations):
        batch, out = play(policy)
        values = {name: out[name].detach() for name in ("v_low", "v_high", "v_switch")}
        credit = hierarchical_advantages(**batch, **values, gamma=0.95, lam_low=0.95, lam_high=0.95, bootstrap="none")
        loss = -(out["low"] * credit.low + out["high"] * credit.high + out["switch"] * credit.switch)[batch["mask"]].mean()
        for level, segment_starts in (("low", batch["mask"]), ("high", batch["segment_starts"]), ("switch", batch["mask"])):
            loss = loss + (out[f"v_{level}"] - getattr(credit, f"{level}_target"))[segment_starts].square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        success.append(float(batch["terminated"].float().mean()))
    return success


if __name__ == "__main__":
    curve = train()
    print(f"success: {sum(curve[:5]) / 5:.2f} in the first five iterations, {sum(curve[-5:]) / 5:.2f} in the last five")

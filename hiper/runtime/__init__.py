"""Files, processes, ranks, locks and progress: what any program like this one needs, and nothing of reinforcement learning."""

"""Playing episodes: conversations, constrained decoding, samplers, and what an episode leaves."""

"""Demonstrations of the expert, and fine-tuning on them."""

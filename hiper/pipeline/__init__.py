"""The stages of an experiment, and what is checked before and after them."""

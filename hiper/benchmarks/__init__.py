"""Measurements of speed, of exactness and of credit; `hiper benchmark` prints them."""

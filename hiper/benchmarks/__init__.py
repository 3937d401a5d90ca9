"""Measurements of speed, of exactness and of credit; `hiper bench` prints them."""

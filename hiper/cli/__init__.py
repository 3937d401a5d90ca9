"""The `hiper` command: what is typed is read here, and done by the rooms below."""

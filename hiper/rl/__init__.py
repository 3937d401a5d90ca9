"""The maths of hierarchical advantage estimation: tensors in, tensors out; no model, environment or configuration is known here."""

"""What answers in the place of the policy: a model here, two models, a model that is replayed."""

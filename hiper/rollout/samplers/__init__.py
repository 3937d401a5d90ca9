"""What writes replies: a model here, two models, a model that is replayed. `types.Sampler` is the protocol."""

"""Losses: nn.Modules, called as `loss(embeddings, labels, indices_tuple=None)` -> a scalar."""

"""Losses, each an nn.Module: `loss(embeddings (B, D), labels (B,), indices_tuple=None)`: a scalar."""

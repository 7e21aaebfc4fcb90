"""Losses: `loss(embeddings (B, D), labels (B,), indices_tuple=None) -> scalar`, each an nn.Module."""

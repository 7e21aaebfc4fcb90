"""Losses and miners of pytorch-metric-learning (PML) under our contract."""

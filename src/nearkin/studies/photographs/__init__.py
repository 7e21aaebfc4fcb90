"""Photographs: transfer, sample efficiency, fine-tuning."""

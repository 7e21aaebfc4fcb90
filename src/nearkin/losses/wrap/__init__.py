"""What goes around a loss: a memory of past batches, a sum of terms, a large batch in pieces."""

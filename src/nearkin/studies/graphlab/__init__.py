"""The graph report: attention, graphs of a batch, edges, depth."""

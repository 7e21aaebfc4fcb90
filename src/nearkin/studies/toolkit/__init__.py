"""The n-tuple report: which loss separates digits best."""

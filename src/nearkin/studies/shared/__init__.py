"""What several studies share: methods, settings and their search, data sets, how rows are read."""

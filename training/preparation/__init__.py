"""The verb `prepare`: what becomes of every row of a data set, and the store of those that are kept."""

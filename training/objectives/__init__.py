"""From a draft and a batch to what is minimised, and to counts of what would have been accepted."""

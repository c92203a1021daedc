"""The small vocabulary of a draft: the tokens that the answers hold most often."""

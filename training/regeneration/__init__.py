"""The verifier answers the questions of a data set itself: what a draft learns from is then what it will be asked."""

"""Why a draft is not accepted: what may be wrong is tried, one change at a time, on rows of its own verifier."""

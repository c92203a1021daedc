"""For authors of formats: a tiny checkpoint of any format, and the contract that every format passes."""

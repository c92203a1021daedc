"""Which tokens of a conversation the verifier itself says: exact to the token, from its own chat template."""

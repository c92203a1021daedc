"""The verifier's hidden states of prepared conversations: in one loop, from one of several engines."""

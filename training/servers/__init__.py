"""Asking servers that speak OpenAI's protocol, and running one of our own."""

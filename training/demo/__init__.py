"""The demo: the whole story on a small real model, offline, told by the verbs themselves."""

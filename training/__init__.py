"""Training drafts that are born in the unified format. Its verbs join the command line as a plugin's do."""

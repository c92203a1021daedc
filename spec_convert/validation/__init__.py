"""Is a checkpoint right: what each level looks at, and what whoever owns the CI makes of what is found."""

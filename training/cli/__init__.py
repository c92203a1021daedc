"""The training plugin's verbs. Each reads its options and says what came of it; the work is done elsewhere."""

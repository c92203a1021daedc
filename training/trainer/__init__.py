"""The loop around an objective: steps, schedule, several processes, checkpoints, an exact resume."""

"""What lies in the folder of a run, as one page."""

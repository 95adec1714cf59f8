"""How sure a score is, and whether one score is really above another."""

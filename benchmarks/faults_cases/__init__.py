"""Cases of the fault benchmark: jeff's programs, the peers beside them, statistics."""

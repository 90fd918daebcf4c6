"""Cases of the benchmark of Bayesian networks: contests, generators, trees, report."""

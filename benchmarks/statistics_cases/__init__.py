"""Cases of the campaign statistics: rules that stop, means, images, strata, a net."""

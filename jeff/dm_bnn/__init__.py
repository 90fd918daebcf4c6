"""Bayesian networks by decomposition and memorisation (arXiv 2005.03857)."""

from jeff.dm_bnn import likelihood
from jeff.dm_bnn.cost import Prices, TreeCost, tree_cost, voter_count
from jeff.dm_bnn.draws import normal8, normal16
from jeff.dm_bnn.elbo import Elbo, Sampler, elbo
from jeff.dm_bnn.free import Free, from_free, to_free
from jeff.dm_bnn.keys import leaf_key
from jeff.dm_bnn.kl import gaussian_kl, kl
from jeff.dm_bnn.mean_field import MeanField, posterior
from jeff.dm_bnn.plan import ModePlan, plan
from jeff.dm_bnn.plan_voters import VoterPlan, plan_voters
from jeff.dm_bnn.predict import predict
from jeff.dm_bnn.train import FitSettings, History, fit
from jeff.dm_bnn.uncertainty import Predictive, predictive
from jeff.dm_bnn.variance import components, effective_voters, variance_of_mean
from jeff.dm_bnn.ways import MODES
from jeff.dm_bnn.widths import laplace_std, relative_std

__all__ = [
    "MODES",
    "Elbo",
    "FitSettings",
    "Free",
    "History",
    "MeanField",
    "ModePlan",
    "Predictive",
    "Prices",
    "Sampler",
    "TreeCost",
    "VoterPlan",
    "components",
    "effective_voters",
    "elbo",
    "fit",
    "from_free",
    "gaussian_kl",
    "kl",
    "laplace_std",
    "leaf_key",
    "likelihood",
    "normal8",
    "normal16",
    "plan",
    "plan_voters",
    "posterior",
    "predict",
    "predictive",
    "relative_std",
    "to_free",
    "tree_cost",
    "variance_of_mean",
    "voter_count",
]

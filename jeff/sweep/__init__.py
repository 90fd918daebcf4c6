"""Sweeps of keys, rates and designs: planned, resumable, the same to the bit."""

from jeff.sweep.campaigns.batches import Examples
from jeff.sweep.campaigns.campaign import (
    feature_faults,
    weight_and_feature_faults,
    weight_faults,
)
from jeff.sweep.campaigns.curve import CurvePoint, accuracy_curve
from jeff.sweep.campaigns.golden import examples, golden_outputs
from jeff.sweep.campaigns.outcome import Outcome, check_overflow, each_outcome, outcome
from jeff.sweep.campaigns.per_image import PerImage, right_answers
from jeff.sweep.campaigns.prefix import Prefix, prefix
from jeff.sweep.campaigns.stored_as import STORED, Narrow, stored_as
from jeff.sweep.campaigns.suffix import Suffix
from jeff.sweep.engine.read import read_sweep
from jeff.sweep.engine.result import SweepResult
from jeff.sweep.engine.run import run
from jeff.sweep.engine.stop import Stop
from jeff.sweep.planning.choose import make_plan
from jeff.sweep.planning.plan import Plan
from jeff.sweep.single_flips.exhaustive import exhaustive, flip_one
from jeff.sweep.single_flips.fault_space import Fault, FaultSpace, enumerate_faults
from jeff.sweep.single_flips.importance_campaign import (
    ImportanceCampaign,
    importance_campaign,
)
from jeff.sweep.single_flips.injected import Injected
from jeff.sweep.single_flips.site_plan import SitePlan, plan_sites
from jeff.sweep.single_flips.site_wise import Injections, each_injection, site_wise
from jeff.sweep.single_flips.stratified_campaign import (
    StratifiedCampaign,
    stratified_campaign,
)
from jeff.sweep.single_flips.vulnerability import (
    Vulnerability,
    site_table,
    weight_table,
)
from jeff.sweep.single_flips.weight_map import WeightMap, weight_map
from jeff.sweep.statistics.allocation import allocate, pilot_rates, stratified_variance
from jeff.sweep.statistics.device_means import mean_of_devices
from jeff.sweep.statistics.importance import (
    Weighted,
    best_proposal,
    draw_kinds,
    weighted_estimate,
)
from jeff.sweep.statistics.new_images import accuracy_any_images
from jeff.sweep.statistics.sample_size import sample_size
from jeff.sweep.statistics.stopping import Margin, look_level
from jeff.sweep.statistics.strata import Stratified, Stratum, stratified_estimate
from jeff.sweep.statistics.two_level import (
    DeviceAccuracy,
    device_accuracy,
    paired_difference,
)
from jeff.sweep.study.named_faults import FAULTS, NamedFault, named_fault
from jeff.sweep.study.report import study_outcome
from jeff.sweep.study.settings import StudySettings
from jeff.sweep.study.study import FaultStudy, Found, prepare_study, run_study
from jeff.sweep.trial import Batch, Trial

__all__ = [
    "FAULTS",
    "STORED",
    "Batch",
    "CurvePoint",
    "DeviceAccuracy",
    "Examples",
    "Fault",
    "FaultSpace",
    "FaultStudy",
    "Found",
    "ImportanceCampaign",
    "Injected",
    "Injections",
    "Margin",
    "NamedFault",
    "Narrow",
    "Outcome",
    "PerImage",
    "Plan",
    "Prefix",
    "SitePlan",
    "Stop",
    "Stratified",
    "StratifiedCampaign",
    "Stratum",
    "StudySettings",
    "Suffix",
    "SweepResult",
    "Trial",
    "Vulnerability",
    "WeightMap",
    "Weighted",
    "accuracy_any_images",
    "accuracy_curve",
    "allocate",
    "best_proposal",
    "check_overflow",
    "device_accuracy",
    "draw_kinds",
    "each_injection",
    "each_outcome",
    "enumerate_faults",
    "examples",
    "exhaustive",
    "feature_faults",
    "flip_one",
    "golden_outputs",
    "importance_campaign",
    "look_level",
    "make_plan",
    "mean_of_devices",
    "named_fault",
    "outcome",
    "paired_difference",
    "pilot_rates",
    "plan_sites",
    "prefix",
    "prepare_study",
    "read_sweep",
    "right_answers",
    "run",
    "run_study",
    "sample_size",
    "site_table",
    "site_wise",
    "stored_as",
    "stratified_campaign",
    "stratified_estimate",
    "stratified_variance",
    "study_outcome",
    "weight_and_feature_faults",
    "weight_faults",
    "weight_map",
    "weight_table",
    "weighted_estimate",
]

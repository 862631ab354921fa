"""Predictions held against real steps of networks that the fit never saw, and against a paper's relative figures."""

from pararev_hw.validation.paper import paper_check as paper_check
from pararev_hw.validation.published import PublishedCase as PublishedCase
from pararev_hw.validation.published import PublishedValidation as PublishedValidation
from pararev_hw.validation.published import validate_published as validate_published
from pararev_hw.validation.statistics import accuracy as accuracy
from pararev_hw.validation.statistics import kendall_tau as kendall_tau
from pararev_hw.validation.suite import SUITES as SUITES
from pararev_hw.validation.user_targets import validate_targets as validate_targets
from pararev_hw.validation.validation import validate as validate

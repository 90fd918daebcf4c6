"""The program core: a JAX program, its weights, and the places where the two meet."""

from jeff.program.blocks import LeafRef, Stack, blocks, whole
from jeff.program.count import Count, count
from jeff.program.cut import Cut, Point, after, before, cut
from jeff.program.functional import functional, functional_with_state
from jeff.program.marks import mark
from jeff.program.rewrite import Rewritten, rewrite
from jeff.program.site import Part, Site, Sites
from jeff.program.sites import sites
from jeff.program.tap import tap, tap_cotangents
from jeff.program.trainable import merge, trainable

__all__ = [
    "Count",
    "Cut",
    "LeafRef",
    "Part",
    "Point",
    "Rewritten",
    "Site",
    "Sites",
    "Stack",
    "after",
    "before",
    "blocks",
    "count",
    "cut",
    "functional",
    "functional_with_state",
    "mark",
    "merge",
    "rewrite",
    "sites",
    "tap",
    "tap_cotangents",
    "trainable",
    "whole",
]

"""Building blocks that methods share; a method's file imports them from here."""

from mlrpl_bench.models.layers.attention import NORMALISATIONS, AttentionBlock, weighted_sum
from mlrpl_bench.models.layers.blending import Blending, BlendingHyperparameters, Version, supervise, unknown_choice
from mlrpl_bench.models.layers.contrast import contrast
from mlrpl_bench.models.layers.epoch_means import EpochMeans
from mlrpl_bench.models.layers.graphs import ESTIMATORS, GatedGraph, cooccurrence
from mlrpl_bench.models.layers.heads import ClassMaps, PooledClassifier, groups_with_head_rate, support
from mlrpl_bench.models.layers.mixing import symmetric_beta, union
from mlrpl_bench.models.layers.prototypes import KnownPositives, Prototypes, mean_cosine
from mlrpl_bench.models.layers.semantic_graph import ATTENTIONS, SemanticGraphMethod
from mlrpl_bench.models.layers.semantic_transfer import SemanticTransferMethod, fill

__all__ = [
    "ATTENTIONS",
    "ESTIMATORS",
    "NORMALISATIONS",
    "AttentionBlock",
    "Blending",
    "BlendingHyperparameters",
    "ClassMaps",
    "EpochMeans",
    "GatedGraph",
    "KnownPositives",
    "PooledClassifier",
    "Prototypes",
    "SemanticGraphMethod",
    "SemanticTransferMethod",
    "Version",
    "contrast",
    "cooccurrence",
    "fill",
    "groups_with_head_rate",
    "mean_cosine",
    "supervise",
    "support",
    "symmetric_beta",
    "union",
    "unknown_choice",
    "weighted_sum",
]

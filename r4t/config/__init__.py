"""The configuration: one typed YAML file, a section per idea. `load_config` reads it."""

from r4t.config.data import Augment, Columns, Data, Encoder, Endpoint, Fanout, Index
from r4t.config.objective import Constraint, Objective
from r4t.config.policy import RL, Alarms, Learner, Lora, OpenRLHF, Policy, Rollout, Scorer, WarmStart
from r4t.config.retriever import Distill, Evaluate, Retriever, Sampler, Sets, Training
from r4t.config.root import Cluster, Config, Task, Tracking, flatten, load_config, parse_config
from r4t.config.section import Section
from r4t.config.serving import Serve

__all__ = [
    "RL",
    "Alarms",
    "Augment",
    "Cluster",
    "Columns",
    "Config",
    "Constraint",
    "Data",
    "Distill",
    "Encoder",
    "Endpoint",
    "Evaluate",
    "Fanout",
    "Index",
    "Learner",
    "Lora",
    "Objective",
    "OpenRLHF",
    "Policy",
    "Retriever",
    "Rollout",
    "Sampler",
    "Scorer",
    "Section",
    "Serve",
    "Sets",
    "Task",
    "Tracking",
    "Training",
    "WarmStart",
    "flatten",
    "load_config",
    "parse_config",
]

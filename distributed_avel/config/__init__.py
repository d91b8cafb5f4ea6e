"""Typed configuration: the only place where defaults are defined.

Values come from the defaults, a YAML file and the command line; later sources override earlier
ones. Unknown keys and invalid values are refused before any work starts, and all problems are
reported together.
"""

from distributed_avel.config.arguments import CONFIG as CONFIG
from distributed_avel.config.arguments import option_choices as option_choices
from distributed_avel.config.arguments import read_arguments as read_arguments
from distributed_avel.config.loading import AnyRun as AnyRun
from distributed_avel.config.loading import built_in_configs as built_in_configs
from distributed_avel.config.loading import explain as explain
from distributed_avel.config.loading import load_config as load_config
from distributed_avel.config.loading import load_values as load_values
from distributed_avel.config.loading import validate as validate
from distributed_avel.config.options import read_options as read_options
from distributed_avel.config.runs import InspectConfig as InspectConfig
from distributed_avel.config.runs import ReproduceConfig as ReproduceConfig
from distributed_avel.config.runs import RunConfig as RunConfig
from distributed_avel.config.runs import SweepConfig as SweepConfig
from distributed_avel.config.runs import TuneConfig as TuneConfig
from distributed_avel.config.sections import ClusterConfig as ClusterConfig
from distributed_avel.config.sections import Config as Config
from distributed_avel.config.sections import DataConfig as DataConfig
from distributed_avel.config.sections import DemoConfig as DemoConfig
from distributed_avel.config.sections import ExtractConfig as ExtractConfig
from distributed_avel.config.sections import ModelConfig as ModelConfig
from distributed_avel.config.sections import Precision as Precision
from distributed_avel.config.sections import Preprocessing as Preprocessing
from distributed_avel.config.sections import ReaderName as ReaderName
from distributed_avel.config.sections import RefineConfig as RefineConfig
from distributed_avel.config.sections import ReportConfig as ReportConfig
from distributed_avel.config.sections import Sampling as Sampling
from distributed_avel.config.sections import SyntheticConfig as SyntheticConfig
from distributed_avel.config.sections import SyntheticLlpConfig as SyntheticLlpConfig
from distributed_avel.config.sections import TrackingConfig as TrackingConfig
from distributed_avel.config.sections import TrainConfig as TrainConfig

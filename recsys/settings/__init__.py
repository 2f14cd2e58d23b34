"""Every setting of a configuration, a file a section.

`data_root`, `state_root` and folders of models are relative to the folder of the configuration file. Sources and lists
of ids are relative to `data_root`; the warehouse, MLflow's local store and exports to `state_root`. A path that comes
with `--set` or from a dictionary is relative to the working directory, unless it is a source or such a list.
Each key carries a comment in the form `(unit or range) meaning`. What a comment calls None is written "none".
"""

from __future__ import annotations

from recsys.settings.attributes import (
    RESERVED,
    AttributedSettings,
    AttributeSettings,
    CategoricalSettings,
    CrossSettings,
    IdMapSettings,
    NumericSettings,
)
from recsys.settings.blend import BlendSettings
from recsys.settings.budget import BudgetSettings
from recsys.settings.compute import ComputeSettings
from recsys.settings.conditions import CONDITION_TESTS, Condition, group_count, pattern_problem
from recsys.settings.evaluate import EvaluateSettings
from recsys.settings.export import ExportSettings, ExportTargets, FileExportSettings, targets_of
from recsys.settings.export_kinds import (
    DeltaExportSettings,
    DuckdbExportSettings,
    PostgresqlExportSettings,
    RedisExportSettings,
    S3ExportSettings,
    SqliteExportSettings,
)
from recsys.settings.filter import FilterSettings
from recsys.settings.gate import GateSettings
from recsys.settings.id_list import IdListSettings
from recsys.settings.interactions import InteractionSettings
from recsys.settings.items import ItemSettings
from recsys.settings.limits import LimitSettings
from recsys.settings.metrics import MetricsSettings
from recsys.settings.model import Context, KindSettings, ModelSettings, RecformerModelSettings, TextModelSettings
from recsys.settings.recformer import RecformerSettings
from recsys.settings.report import ReportSettings
from recsys.settings.retention import RetentionSettings
from recsys.settings.retrieve import RetrieveSettings
from recsys.settings.rules import RuleSettings, RulesSettings
from recsys.settings.section import Dropout, Section, Share
from recsys.settings.source import Format, SourceSettings
from recsys.settings.split import SplitSettings
from recsys.settings.text import TextSettings
from recsys.settings.tracking import TrackingSettings
from recsys.settings.train import TrainSettings
from recsys.settings.tree import RunSettings, Settings
from recsys.settings.tune import RangeSettings, TuneSettings
from recsys.settings.users import UserSettings

__all__ = [
    "CONDITION_TESTS",
    "RESERVED",
    "AttributeSettings",
    "AttributedSettings",
    "BlendSettings",
    "BudgetSettings",
    "CategoricalSettings",
    "ComputeSettings",
    "Condition",
    "Context",
    "CrossSettings",
    "DeltaExportSettings",
    "Dropout",
    "DuckdbExportSettings",
    "EvaluateSettings",
    "ExportSettings",
    "ExportTargets",
    "FileExportSettings",
    "FilterSettings",
    "Format",
    "GateSettings",
    "IdListSettings",
    "IdMapSettings",
    "InteractionSettings",
    "ItemSettings",
    "KindSettings",
    "LimitSettings",
    "MetricsSettings",
    "ModelSettings",
    "NumericSettings",
    "PostgresqlExportSettings",
    "RangeSettings",
    "RecformerModelSettings",
    "RecformerSettings",
    "RedisExportSettings",
    "ReportSettings",
    "RetentionSettings",
    "RetrieveSettings",
    "RuleSettings",
    "RulesSettings",
    "RunSettings",
    "S3ExportSettings",
    "Section",
    "Settings",
    "Share",
    "SourceSettings",
    "SplitSettings",
    "SqliteExportSettings",
    "TextModelSettings",
    "TextSettings",
    "TrackingSettings",
    "TrainSettings",
    "TuneSettings",
    "UserSettings",
    "group_count",
    "pattern_problem",
    "targets_of",
]

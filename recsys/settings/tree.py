"""One frozen settings tree; `recsys.settings.read` reads it from TOML."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Final, Self

from pydantic import Field, field_validator, model_validator

from recsys.settings.blend import BlendSettings
from recsys.settings.budget import BudgetSettings
from recsys.settings.compute import ComputeSettings
from recsys.settings.evaluate import EvaluateSettings
from recsys.settings.export import Export, FileExportSettings
from recsys.settings.filter import FilterSettings
from recsys.settings.gate import GateSettings
from recsys.settings.interactions import InteractionSettings
from recsys.settings.items import ItemSettings
from recsys.settings.limits import LimitSettings
from recsys.settings.metrics import MetricsSettings
from recsys.settings.model import AnyModelSettings, ModelSettings
from recsys.settings.places import IN_STATE, ROOT
from recsys.settings.recformer import RecformerSettings
from recsys.settings.report import ReportSettings
from recsys.settings.retention import RetentionSettings
from recsys.settings.retrieve import RetrieveSettings
from recsys.settings.rules import RulesSettings
from recsys.settings.section import Section
from recsys.settings.split import SplitSettings
from recsys.settings.text import TextSettings
from recsys.settings.tracking import TrackingSettings
from recsys.settings.train import TrainSettings
from recsys.settings.tune import TuneSettings
from recsys.settings.users import UserSettings

RECALL_SLACK: Final = 0.01  # of a recall, which differs between samples of users and from day to day


class RunSettings(Section):
    """Settings that every run has."""

    # of bundles, the registered model and the experiment; longer ones would make file names that no system takes
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=200)
    seed: int = Field(default=0, ge=0)
    data_root: Annotated[str, ROOT] = "."  # (folder or URL) that the sources are relative to
    state_root: Annotated[str, ROOT] = (
        "."  # (folder) that what a night writes is relative to: the next, MLflow, exports
    )
    warehouse: Annotated[str, IN_STATE] = "warehouse"  # (folder or URL) root of the tables, bundles and run states
    tracking: TrackingSettings = TrackingSettings()

    @field_validator("state_root")
    @classmethod
    def _state_is_here(cls, root: str) -> str:
        if "://" in root:
            raise ValueError("it is a folder of this machine; set warehouse to the address instead")
        return root

    def digest(self) -> str:
        """sha256 (hex) of the settings in canonical form: equal settings, equal digest."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


class Settings(RunSettings):
    """Everything that one run depends on besides the tables."""

    interactions: InteractionSettings
    items: ItemSettings | None = None
    users: UserSettings | None = None
    filter: FilterSettings = FilterSettings()
    split: SplitSettings = SplitSettings()
    text: TextSettings = TextSettings()
    model: AnyModelSettings = ModelSettings()
    recformer: RecformerSettings = RecformerSettings()
    train: TrainSettings = TrainSettings()
    blend: BlendSettings = BlendSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    retrieve: RetrieveSettings = RetrieveSettings()
    rules: RulesSettings = Field(default_factory=lambda: RulesSettings.model_validate({}))
    gate: GateSettings = GateSettings()
    export: Export = FileExportSettings()
    tune: TuneSettings = Field(default_factory=dict)  # what `recsys tune` changes; empty: as the kind of model says
    report: ReportSettings = ReportSettings()
    retention: RetentionSettings = RetentionSettings()
    metrics: MetricsSettings = MetricsSettings()
    budget: BudgetSettings = BudgetSettings()
    limits: LimitSettings = LimitSettings()
    # decides nothing: left out of what names runs, bundles and tables
    compute: ComputeSettings = Field(default=ComputeSettings(), exclude=True)

    @property
    def least_index_recall(self) -> float | None:
        """Return the recall that the gate asks for: `gate.min_index_recall`, and no more than an index is chosen by."""
        least = self.gate.min_index_recall
        return None if least is None else min(least, round(self.retrieve.recall - RECALL_SLACK, 9))

    @model_validator(mode="after")
    def _gate_asks_what_is_served(self) -> Self:
        least, wanted = self.gate.min_index_recall, self.retrieve.recall
        said = "min_index_recall" in self.gate.model_fields_set and self.retrieve.index != "exact"
        if said and least is not None and least > wanted:
            raise ValueError(
                f"gate.min_index_recall = {least:g} asks for more than retrieve.recall = {wanted:g}, by which an index "
                "is chosen, so every night could be kept back; raise retrieve.recall, or lower the gate's limit"
            )
        return self

    @model_validator(mode="after")
    def _text_needs_text(self) -> Self:
        if self.model.needs_text and not (self.items and self.items.text):
            raise ValueError(
                f'model.kind = "{self.model.kind}" needs items.text, the attributes that make an item\'s sentence'
            )
        return self

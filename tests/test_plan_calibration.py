"""Estimates of time: fitted rates, stored calibrations and when they are stale."""

from __future__ import annotations

import shutil
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import plan_case
import pytest
from scipy.optimize import nnls

from aim_local import FrameSampling, VisionLLM, VisualTokenConfig
from aim_local.engine.model import Model, open_model
from aim_local.lab.plan import Request, calibration, make_plan
from aim_local.lab.plan.calibration import Calibration, Trial
from aim_local.lab.plan.features import STAGES, conditions, features, model_shape, this_machine
from aim_local.lab.plan.request import outline_all, work_out
from aim_local.models.text import TextModel

clips = plan_case.clips
model = plan_case.model


def test_fit_is_scipys() -> None:
    rng = np.random.default_rng(5)
    for _ in range(50):
        a, b = rng.uniform(-1, 1, (8, 4)), rng.uniform(-1, 2, 8)
        ours, (theirs, residual) = calibration.nonnegative_least_squares(a, b), nnls(a, b)
        assert ours == pytest.approx(theirs, abs=1e-8)
        assert np.linalg.norm(a @ ours - b) == pytest.approx(residual, abs=1e-8)


def test_fit_finds_the_rates_of_an_exact_machine() -> None:
    rng = np.random.default_rng(1)
    rates = {"vision": {"flops": 3e-12}, "prefill": {"passes": 1e-4, "row_flops": 2e-12}}
    amounts = [
        {"vision": {"flops": v * 1e9}, "prefill": {"passes": p, "row_flops": r * 1e9}}
        for v, p, r in rng.uniform(1, 50, (6, 3))
    ]
    measured = [calibration.predict(rates, a) for a in amounts]
    found = calibration.fit(amounts, measured)
    for stage, by_feature in rates.items():
        assert found[stage] == pytest.approx(by_feature, rel=1e-6)


def test_one_disturbed_setting_does_not_bend_the_rates() -> None:
    rng = np.random.default_rng(2)
    amounts = [{"prefill": {"passes": p, "row_flops": r}} for p, r in rng.uniform(1, 50, (8, 2))]
    measured = [{"prefill": 2 * a["prefill"]["passes"] + 3 * a["prefill"]["row_flops"]} for a in amounts]
    measured[3]["prefill"] *= 4
    assert calibration.fit(amounts, measured)["prefill"] == pytest.approx({"passes": 2, "row_flops": 3}, rel=0.02)


def made_calibration(model: Model, **changes: Any) -> Calibration:
    stages = dict.fromkeys(STAGES, 0.1)
    off = {**stages, "vision": 0.2}
    trials = (
        *(
            Trial(*t)
            for t in (
                ("a", True, 3, 0.1, stages, stages),
                ("b", False, 3, 0.2, stages, off),
                ("c", False, 3, 0.3, off, off),
            )
        ),
    )
    rates: dict[str, dict[str, float]] = {
        "vision": {"flops": 1e-9},
        "other": {"runs": 0.25},
        "decode": {"kv_bytes": 1e-9},
    }
    found = Calibration(
        model.name, datetime.now(UTC).isoformat(), model_shape(model), conditions(model), this_machine(), rates, trials
    )
    return replace(found, **changes)


def test_estimate_comes_from_the_stored_rates(model: Model, clips: list[Path]) -> None:
    assert make_plan(model, Request(media=clips[:1])).first_token_s is None
    stored = made_calibration(model)
    path = calibration.save(stored)
    assert path.parent == calibration.folder()
    assert calibration.load_all() == ([stored], [])
    made = make_plan(model, Request(media=clips[:1]))
    assert made.seconds["vision"] == pytest.approx(made.outcome.sizes.flops["vision"] * 1e-9)
    assert made.first_token_s == pytest.approx(made.seconds["vision"] + 0.25)  # decode is no part of it
    assert made.choice.calibration
    assert made.choice.calibration.median_error == pytest.approx((0.1 / 0.7 + 0) / 2)
    assert (made.choice.calibration.median_spread, made.choice.calibration.was_busy) == (0.2, False)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"machine": {"processor": "another"}}, "processor 'another'"),
        ({"machine": {"aim_local": "0.0.1"}}, "aim_local '0.0.1'"),
        ({"conditions": {"threads": 77}}, "threads 77"),
    ],
)
def test_stale_calibration_says_why(model: Model, changes: dict[str, Any], told: str) -> None:
    plain = made_calibration(model)
    wrong = {key: {**getattr(plain, key), **value} for key, value in changes.items()}
    calibration.save(replace(plain, **wrong))
    made = make_plan(model, Request())
    assert made.seconds == {}
    assert told in made.choice.reason
    assert "--calibrate" in made.choice.reason


def test_another_models_rates_are_called_rough(model: Model) -> None:
    shape = {**model_shape(model), "text": {}, "n_params": 10}
    calibration.save(replace(made_calibration(model), model="other", shape=shape))
    made = make_plan(model, Request())
    assert made.choice.scaled
    assert made.seconds["other"] == 0.25


def test_damaged_calibration_is_told_and_passed_over(model: Model) -> None:
    calibration.folder().mkdir(parents=True)
    (calibration.folder() / "x.json").write_text('{"format": 1}')
    made = make_plan(model, Request())
    assert made.seconds == {}
    assert any("x.json is no calibration" in line for line in made.warnings)


def test_age(model: Model) -> None:
    old = made_calibration(model, date=(datetime.now(UTC) - timedelta(days=3)).isoformat())
    assert old.age_days == pytest.approx(3, abs=0.01)


def test_calibrating_measures_and_proves() -> None:
    from aim_local.lab.plan.trials import calibrate

    with VisionLLM.load() as llm:
        made = calibrate(llm, seconds=0.0)  # one round of few frames
    assert len(made.proof) >= 6
    assert not {t.name for t in made.proof} & {t.name for t in made.trials if t.fitted}
    assert all(set(t.measured) == set(STAGES) == set(t.predicted) for t in made.trials)
    assert all(calibration.total(t.measured) > 0 for t in made.trials)
    calibration.save(made)
    with closing(open_model(weights=False)) as model:
        assert make_plan(model, Request()).choice == calibration.Choice(made)


@pytest.mark.thorough
def test_calibrating_without_eyes_and_without_pruning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text-only model is measured on text; one that cannot prune on merging."""
    from aim_local.lab.plan.trials import calibrate

    with VisionLLM.load() as llm:
        shutil.copy(llm.model.paths.model, tmp_path / "text.gguf")
        monkeypatch.setattr(TextModel, "prune_refusal", lambda _: "not among qwen2, llama")
        merged = calibrate(llm, seconds=0.0)
    with VisionLLM.load(tmp_path / "text.gguf") as llm:
        text = calibrate(llm, seconds=0.0)
    assert all(trial.measured["importance"] == 0 for trial in merged.trials)
    assert all(trial.measured["vision"] == 0 < trial.measured["prefill"] for trial in text.trials)


def test_features_grow_with_the_work(model: Model, clips: list[Path]) -> None:
    def amounts(n: int) -> dict[str, dict[str, float]]:
        request = Request("What?", clips[:1], VisualTokenConfig.off(), FrameSampling(n_frames=n))
        outcome = work_out(model, request, outline_all(model, request))
        return features(model, outcome.sizes, outcome.room.kv_bytes, outcome.outlines)

    few, many = amounts(4), amounts(8)
    assert set(few) == set(STAGES)
    assert many["vision"]["flops"] == 2 * few["vision"]["flops"]
    assert many["prefill"]["row_flops"] > few["prefill"]["row_flops"]
    assert many["decode"]["weight_bytes"] == few["decode"]["weight_bytes"]

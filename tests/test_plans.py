"""Plans: what they expand to, and that a mistake is told with file, place, value and cure before anything runs."""

import re
import textwrap
from collections import Counter
from dataclasses import replace

import pytest
import yaml

from semimedref_core.config import Config
from semimedref_core.experiments.plan import PlanError, find_plan, read_plan
from semimedref_core.experiments.shipped import notebooks_folder

BLOCK = {"method": ["supervised", "semi_medref"], "label_ratio": [0.05, 0.1], "seed": [0, 1, 2]}


COMMITTED = sorted((notebooks_folder() / "plans").glob("*.yaml"))


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_the_plans_beside_the_notebooks_can_be_carried_out(path):
    assert read_plan(path).runs


def test_every_baseline_of_the_comparison_is_tuned_in_as_many_trials_and_runs_with_a_setting_that_is_tried():
    trials, tuned = (read_plan(notebooks_folder() / "plans" / f"{name}.yaml").runs for name in ("qata_trials", "qata"))
    counts = Counter(run.config.method for run in trials)
    baselines = {run.config.method for run in tuned} - {"supervised", "semi_medref"}
    assert set(counts) == baselines and set(counts.values()) == {4}
    runs = {run.name: run.config for run in tuned}
    for method in baselines:
        config = runs[f"qata-0.01-{method}-seed0"]
        length = {"steps": config.steps, "batch_size": config.batch_size, "eval_every": config.eval_every}
        assert config in [replace(trial.config, **length) for trial in trials]


@pytest.fixture
def plan(tmp_path):
    """``plan(runs=[...], ...)`` writes a plan and reads it."""

    def read(**content):
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return read_plan(path)

    return read


def test_the_axes_of_a_block_are_combined(plan):
    found = plan(runs=[BLOCK])
    assert found.name == "mine"
    names = [run.name for run in found.runs]
    assert len(names) == len(set(names)) == 12
    assert "phantom-0.05-semi_medref-seed2" in names
    wanted = {(method, ratio, seed) for method in BLOCK["method"] for ratio in (0.05, 0.1) for seed in (0, 1, 2)}
    assert {(run.config.method, run.config.label_ratio, run.config.seed) for run in found.runs} == wanted


def test_other_axes_and_variants_are_in_the_name(plan):
    variants = {"no_posaug": {"posaug_p": 0}, "full": {}}
    found = plan(runs=[{"steps": [10, 20], "variants": variants}]).runs
    assert [run.name for run in found] == [
        f"phantom-0.05-semi_medref-{variant}-steps{steps}-seed0" for variant in variants for steps in (10, 20)
    ]
    assert [run.config.posaug_p for run in found] == [0, 0, Config.posaug_p, Config.posaug_p]


def test_a_variant_may_be_words_and_another_method(plan):
    variants = {"without PosAug": {"posaug_p": 0}, "bare, as released": {"method": "semi_medref_release"}}
    one, two = plan(runs=[{"variants": variants}]).runs
    assert one.name == "phantom-0.05-semi_medref-without_PosAug-seed0" and one.variant == "without PosAug"
    assert two.name == "phantom-0.05-semi_medref-bare_as_released-seed0"
    assert (two.method, two.config.method) == ("semi_medref", "semi_medref_release"), "shown as its variant"


@pytest.mark.parametrize("page", ["semimedref_core/experiments/plan.py", "docs/sweeps.md"])
def test_the_plans_that_the_documentation_shows_can_be_carried_out(page, tmp_path):
    text = (notebooks_folder().parent / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^::\n\n((?:    .*\n|\n)+)", text, re.MULTILINE) + re.findall(
        r"```yaml\n(.*?)```", text, re.DOTALL
    )
    assert blocks or page.endswith(".md")
    for block in blocks:
        (tmp_path / "shown.yaml").write_text(textwrap.dedent(block), encoding="utf-8")
        assert read_plan(tmp_path / "shown.yaml").runs


def test_what_is_said_more_closely_wins(plan):
    tuned = {"semi_medref": {"steps": 2, "gate": 0.2, "tau": 0.2, "lr": 0.2}}
    block = {"method": ["supervised", "semi_medref"], "tau": 0.3, "lr": 0.3, "variants": {"v": {"lr": 0.4}}}
    common = {"steps": 1, "gate": 0.1, "tau": 0.1, "lr": 0.1}
    supervised, semi = plan(settings=common, tuned=tuned, runs=[block]).runs
    shown = [(c.steps, c.gate, c.tau, c.lr) for c in (supervised.config, semi.config)]
    assert shown == [(1, 0.1, 0.3, 0.4), (2, 0.2, 0.3, 0.4)]


def test_an_exponent_without_a_dot_is_a_number_as_people_mean_it(tmp_path):
    """YAML 1.1 reads ``1e-3`` as text."""
    (tmp_path / "plan.yaml").write_text("runs: [{lr: [1e-3, 2e-3]}]")
    assert [run.config.lr for run in read_plan(tmp_path / "plan.yaml").runs] == [0.001, 0.002]


def test_files_are_found_from_the_folder_of_the_plan_s_user(plan, tmp_path, monkeypatch):
    """A notebook runs in the folder of its run, where a relative path leads nowhere."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "pos.csv").touch()
    block = {"dataset": "folder", "data": "mine", "positions": ["pos.csv", "lung", "gone.csv"]}
    runs = plan(runs=[block]).runs
    assert {run.config.data for run in runs} == {str(tmp_path / "mine")}
    assert [run.config.positions for run in runs] == [str(tmp_path / "pos.csv"), "lung", "gone.csv"]
    assert [run.name.split("-")[-2] for run in runs] == ["positionspos.csv", "positionslung", "positionsgone.csv"]


def test_the_fully_supervised_run_is_a_block_of_its_own(plan):
    found = plan(runs=[BLOCK, {"method": "supervised", "label_ratio": 1, "seed": [0]}]).runs
    assert found[-1].name == "phantom-1-supervised-seed0" and found[-1].config.label_ratio == 1


@pytest.mark.parametrize("content, told", [
    ({"runs": [{"method": ["supervised", "semi_medreff"]}]},
     r"block 1 of runs, method semi_medreff: method: unknown value 'semi_medreff'.* \(did you mean semi_medref\?\)"),
    ({"runs": [{"label_ration": 0.1}]}, r"unknown setting 'label_ration'.* \(did you mean label_ratio\?\)"),
    ({"runs": [BLOCK], "settings": {"step": 5}}, r"settings: unknown setting 'step'.*did you mean steps"),
    ({"runs": [BLOCK], "setings": {}}, r"the plan: unknown key 'setings'.*did you mean settings"),
    ({"runs": [BLOCK], "tuned": {"fixmath": {}}}, r"tuned: unknown method 'fixmath'.*did you mean fixmatch"),
    ({"runs": [{"variants": {"a": {"gat": 1}}}]}, r"variant a: unknown setting 'gat'.*did you mean gate"),
    ({"runs": [{"variants": {"a/b": {}}}]}, "variant 'a/b' is not a valid name"),
    ({"runs": [{"dataset": "mnist"}]}, "dataset: unknown value 'mnist'; choose one of phantom"),
    ({"runs": [{"gate": [0.1, 1.5]}]}, "gate must be at most 1, got 1.5"),
    ({"runs": [{"seed": [0, "one"]}]}, "seed must be of type int, got 'one'"),
    ({"runs": [{"lr": "fast"}]}, "lr must be of type float, got 'fast'"),
    ({"runs": [{"seed": True}]}, "seed must be of type int, got True"),
    ({"runs": [{"seed": []}]}, "seed is an empty list"),
    ({"runs": [BLOCK], "settings": {"gate": [0, 1]}}, r"settings: gate must be one value, got \[0, 1\]"),
    ({"runs": [{}], "settings": {"method": ["supervised", "fixmatch"]}},
     "settings: method must be one value, got .*'fixmatch'.; write one; only a block of runs may list several"),
    ({"runs": [{}], "tuned": {"supervised": {"lr": [0.1]}}}, r"tuned, supervised: lr must be one value, got \[0.1\]"),
    ({"runs": [{"variants": {"a": {"method": ["supervised"]}}}]},
     r"block 1 of runs, variant a: method must be one value, got \['supervised'\]"),
    ({"runs": [{"method": {"a": 1}}]}, "block 1 of runs: method must be one value, got {'a': 1}"),
    ({"runs": [{"method": [["supervised"]]}]}, r"block 1 of runs: method must be one value, got \['supervised'\]"),
    ({"runs": [{"method": {"supervised", "fixmatch"}}]}, "block 1 of runs: method must be one value, got {"),
    ({"runs": [{"method": "mean_teacher", "label_ratio": [0.5, 1]}]},
     "method mean_teacher: label_ratio 1 leaves no unlabelled pair.*its own block with method supervised"),
    ({"runs": [BLOCK, {"method": "supervised", "seed": 1}]}, "phantom-0.05-supervised-seed1 are the same run"),
    ({"runs": [BLOCK, {"method": "supervised", "seed": 1, "steps": 9}]},
     "two different runs would have the name phantom-0.05-supervised-seed1; distinguish them by variants"),
    ({"runs": []}, "runs must be a list of blocks"),
    ({"runs": [BLOCK], "threads": 0}, "threads must be an integer from 1 to 1024, got 0"),
    ({"runs": [BLOCK], "threads": 10**9}, "threads must be an integer from 1 to 1024, got 1000000000"),
    ({"runs": [{name: [0.1] * 30 for name in ("gate", "tau", "lr", "ramp", "burn_in", "patch_p", "posaug_p")}]},
     "block 1 of runs: its axes make 21870000000 runs, but at most 10000 are allowed"),
    ({"runs": [BLOCK], "name": "../elsewhere"}, "name '../elsewhere' is not a valid folder name"),
])  # fmt: skip
def test_a_mistake_is_told_with_its_place_its_value_and_the_cure(plan, tmp_path, content, told):
    with pytest.raises(PlanError, match=f"mine.yaml: .*{told}"):
        plan(**content)


def test_a_folder_with_the_name_of_a_built_in_plan_does_not_hide_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "phantom").mkdir()
    assert find_plan("phantom", notebooks_folder() / "plans").is_file()


@pytest.mark.parametrize("text, told", [
    (None, "cannot be read"), ("runs: [", "is not YAML"), ("- a", "must map names"),
    ("name: Größe".encode("latin-1"), "is not UTF-8 text.*save it as UTF-8"),
])  # fmt: skip
def test_a_file_that_is_no_plan_is_named(tmp_path, text, told):
    path = tmp_path / "plan.yaml"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(PlanError, match=f"plan.yaml: .*{told}"):
        read_plan(path)

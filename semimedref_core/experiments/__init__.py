"""Many runs: plans and sweeps, notebooks that run as programs, and comparisons of finished runs."""

from semimedref_core._lazy import by_module, exports

_MODULES = {
    "plan": "Plan PlannedRun PlanError read_plan",
    "job": "SweepError",
    "sweep": "carry_out",
    "estimate": "Estimate",
    "papermill_run": "NotebookError run_notebook parameters_of refresh",
    "shipped": "notebooks_folder",
    "results": "METRICS WITHOUT_HELP finished_runs counts_of keep without_help missing_runs",
    "statistics": "paired_difference paired_scores interval p_value holm method_differences ablations learning_curves "
    "by_lesion_size in_points",
    "tables": "results_table methods_by_ratio markdown_table write_between",
    "verdict": "Verdict waterfall",
    "seed_by_seed": "standing as_list",
    "examples": "gains_and_losses",
}
__getattr__, __dir__, __all__ = exports(__name__, by_module(_MODULES))

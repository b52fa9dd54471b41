"""Tools for looking at this project: places of equations, contents and cost of a step, checks of notebooks."""

from semimedref_core._lazy import by_module, exports

_MODULES = {
    "equation_index": "EQUATIONS LEDGER find_tags equation_table code_table ledger_table symbol_table",
    "glossary": "GLOSSARY glossary_table",
    "inspection": "named_tensors tensor_table parameter_table gradient_norms Passes HostReads",
    "memory_traffic": "Meter Access listening bytes_moved",
    "mixing_audit": "OUTCOMES FAULTS sum_in_boxes broken_by_mixing count_lesions faults zone_of_patch outcomes",
    "known_truth": "batches_with_truth Mix mix_ours mix_as_released",
    "mixing_rates": "zone_rules release_rates",
    "positions": "counts_with predicted_zones reports_table recoveries",
    "profiling": "Profile profile",
    "step_cost": "step_costs",
    "two_presets": "settings_table",
    "launches": "Operations operations operations_of_replay host_seconds",
    "gpu_session": "CASES RUNS smaller",
    "notebook_checks": "style_problems pair_problems output_problems",
}
__getattr__, __dir__, __all__ = exports(__name__, by_module(_MODULES))

"""Static figures, one module for each idea. They only draw; other modules compute the contents."""

from semimedref_core._lazy import by_module, exports

_MODULES = {
    "canvas": "notebook_style",
    "pairs": "sample_gallery image_row prediction_gallery prediction_overlay",
    "dataset": "sample_apart mean_masks row_histograms grids_over count_tables phrase_bars split_strips dice_by_size",
    "posaug": "text_rows token_rows reading hit_shares",
    "mixing": "teacher_gallery broken_pair proposals gate_curves mixed_pair rewritten_reports outcome_bars",
    "contrast": "short heat_maps pulls group_cosines embedding_ranks temperatures embedding_space",
    "step": "step_flow sample_strip pseudo_label_gallery gradient_map schedule_curves trajectory_curves",
    "training": "training_curves mixing_gallery replay_panels",
    "results": "score_panels timed cost_and_accuracy removal_curves",
    "attention": "attention_maps by_report",
    "waterfall": "waterfall_panels",
    "differences": "difference_forest ablation_bars size_bars",
    "kernels": "TILE_COLOURS traffic_bars tile_map memory_curves class_blocks gpu_bounds step_bounds against_best",
}
__getattr__, __dir__, __all__ = exports(__name__, by_module(_MODULES))

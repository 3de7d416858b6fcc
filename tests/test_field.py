"""Trouble that users of neighbouring projects reported, each kind with the tests that hold it off here."""

import ast

import pytest

from tests.imports import ROOT

KINDS = {
    "a registry that two projects share": [
        "pipeline/registry/test_promote.py::test_the_champion_of_another_project_is_told_from_an_older_one",
        "pipeline/registry/test_promote.py::test_another_projects_registered_model_is_left_as_it_is",
        "pipeline/commands/test_new.py::test_the_registered_model_is_called_after_the_folder",
    ],
    "layouts that are not what they seem": [
        "pipeline/datasets/test_image_folder.py::test_splits_where_classes_should_be",
        "pipeline/datasets/test_image_folder.py::test_splits_below_the_classes",
        "pipeline/datasets/test_image_folder.py::test_splits_with_more_to_their_names",
        "pipeline/datasets/test_image_folder.py::test_a_split_without_images_is_not_replaced_by_a_draw",
        "pipeline/datasets/test_image_folder.py::test_what_systems_leave_behind_is_no_class",
    ],
    "labels that a program takes for something else": [
        "pipeline/datasets/test_table_files.py::test_csv_keeps_text_as_it_is",
        "pipeline/datasets/test_table_files.py::test_what_is_no_table_is_one_sentence",
        "pipeline/datasets/test_label_tables.py::test_a_path_that_may_be_either_of_two_images",
        "pipeline/datasets/test_label_tables.py::test_several_tables_of_hugging_face_in_a_folder",
    ],
    "a project that was moved or copied": [
        "pipeline/tracking/test_moved.py::test_a_project_that_was_moved_keeps_its_runs_and_its_models",
        "pipeline/tracking/test_moved.py::test_a_copy_leaves_the_original_alone",
        "pipeline/registry/test_versions.py::test_files_that_are_gone",
    ],
    "an experiment in a copy that is deleted": [
        "pipeline/runtime/test_paths.py::"
        "test_an_experiments_copy_tracks_to_the_project_that_it_was_copied_from",
        "e2e/test_ways_to_run.py::test_an_experiment_in_a_copy_leaves_its_runs_in_the_project",
    ],
    "folders whose names mean something in an address": [
        "pipeline/runtime/test_paths.py::test_the_address_is_of_the_file_in_the_folder_or_there_is_none",
        "pipeline/config/test_precheck.py::test_a_folder_that_can_have_no_database",
    ],
    "what DVC does not see": [
        "pipeline/config/test_precheck.py::test_a_checkpoint_that_was_replaced_is_told",
    ],
    "a key that stands twice": [
        "pipeline/config/test_yaml_text.py::test_a_key_that_stands_twice_is_refused_as_dvc_does",
    ],
    "grey images of few bits, signed, or with fractions": [
        "pipeline/images/test_decoding.py::test_every_kind_of_number",
        "pipeline/images/test_decoding.py::test_the_levels_of_a_set_count_not_those_of_an_image",
        "pipeline/commands/test_export.py::test_levels_of_grey_go_with_the_model",
    ],
    "the wrapper in other people's code": [
        "stochca/timm_models/test_wrapper.py::test_parameter_groups_are_those_of_the_bare_model",
        "stochca/timm_models/test_wrapper.py::test_preprocessing_is_the_models_own",
        "stochca/timm_models/test_wrapper.py::test_peft_puts_its_updates_into_a_wrapped_student",
    ],
    "layers that others put into a student": [
        "stochca/attention/test_stochca.py::"
        "test_a_layer_that_does_more_than_its_weight_does_it_while_blocks_cross_attend",
        "stochca/attention/test_stochca.py::test_hooks_of_a_projection_are_called_while_blocks_cross_attend",
        "stochca/attention/test_stochca.py::test_the_model_can_not_be_its_own_teacher",
    ],
    "a state that is loaded beside another teacher": [
        "stochca/attention/test_teacher.py::test_only_beside_its_own_teacher_a_state_is_loaded",
        "stochca/training/test_loop.py::test_a_checkpoint_is_continued_beside_its_own_teacher",
    ],
    "several threads at one model": [
        "stochca/timm_models/test_threads.py::test_students_that_share_a_teacher",
        "stochca/attention/test_stochca.py::test_data_parallel_training",
    ],
    "the same pixels in another encoding": [
        "pipeline/test_prepare.py::test_the_same_pixels_in_another_encoding_are_the_same_image",
    ],
    "a run that was interrupted, and changed": [
        "pipeline/training/test_interrupted.py::test_what_is_gone_on_with_says_nothing",
        "pipeline/training/test_interrupted.py::test_what_changed_is_named",
        "pipeline/training/test_interrupted.py::test_a_search_says_so_too",
    ],
    "names that look alike": [
        "pipeline/datasets/test_alike.py::test_pairs_that_a_person_takes_for_one",
        "pipeline/datasets/test_alike.py::test_whole_numbers_as_programs_for_tables_write_them",
        "pipeline/datasets/test_image_folder.py::test_names_that_look_alike_are_refused",
    ],
    "modes that are not put back": [
        "stochca/compute/test_modes.py::test_every_part_gets_its_own_mode_back",
        "stochca/compute/test_modes.py::test_modes_are_put_back_after_an_error",
    ],
    "thin and gigantic images": [
        "pipeline/images/test_decoding.py::test_thin_images_are_refused_by_their_header",
        "pipeline/images/test_decoding.py::test_gigantic_images_are_refused_by_their_header",
    ],
    "graphs for ONNX": [
        "pipeline/commands/test_export.py::test_families_become_graphs_for_any_batch_size",
    ],
    "names with a meaning elsewhere, such as $5_to_$10": [
        "pipeline/runtime/test_drawing.py::test_a_picture_shows_each_name_as_it_is_written",
        "pipeline/runtime/test_drawing.py::test_the_page_and_the_tables",
        "pipeline/runtime/test_boundary.py::test_a_terminal_that_lacks_a_letter",
        "pipeline/images/test_hostile_properties.py::test_any_class_names_come_through_as_text",
    ],
    "a download without git": [
        "pipeline/config/test_precheck.py::test_without_git_dvc_has_to_know",
        "e2e/test_ways_to_run.py::test_a_download_without_git_goes_all_the_way",
    ],
    "data that DVC tracks": [
        "pipeline/datasets/test_links.py::test_links_into_the_cache_are_read",
        "pipeline/test_stages.py::test_dvc_may_track_images_wherever_they_lie",
        "pipeline/test_stages.py::test_what_is_slow_to_make_again_is_there_until_there_is_a_new_one",
    ],
    "proxies": ["pipeline/runtime/test_proxies.py::test_this_machine_is_reached"],
    "a command without what it needs": [
        "stochca/test_command.py::test_without_what_the_pipeline_needs_the_command_says_how_to_get_it",
        "stochca/test_import.py::test_timm_imports_whatever_was_imported_before",
    ],
    "numbers that YAML takes for text": [
        "pipeline/config/test_yaml_text.py::test_a_rate_is_a_number_wherever_it_stands"
    ],
    "checkpoints that can not be trained": [
        "stochca/backbones/test_loading.py::test_what_can_not_be_trained_is_refused",
        "stochca/backbones/test_loading.py::test_tensors_that_do_not_fit_are_named",
    ],
    "weight decay and what it should spare": [
        "stochca/training/test_fit.py::test_weight_decay_spares_biases_norms_and_positions",
    ],
    "losses that depend on how a batch is split": [
        "stochca/training/test_fit.py::test_accumulation_equals_the_whole_batch",
        "stochca/data/test_class_weights.py::test_labels_and_the_probabilities_that_they_stand_for_cost_the_same",
    ],
    "checkpoints with prefixes": [
        "stochca/backbones/test_prefixes.py::test_the_model_is_found",
        "stochca/backbones/test_prefixes.py::test_several_models_are_named",
    ],
    "compiled, traced or exported as a whole": [
        "stochca/attention/test_stochca.py::test_what_is_traced_or_exported_holds_no_draw",
        "stochca/attention/test_stochca.py::test_compiled_as_a_whole_it_says_what_to_do_and_never_compiles_a_draw",
    ],
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_its_tests(kind: str) -> None:
    for each in KINDS[kind]:
        file, name = each.split("::")
        tree = ast.parse((ROOT / "tests" / file).read_text())
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}

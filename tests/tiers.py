"""Tests that need more than a short time in one process. `make check` leaves them out.

The table has folders and files under `tests`, or single tests, and what they need.
"""

TIERS = {
    "process": [
        "app/commands/test_controlling.py",
        "app/test_ends.py",
        "app/test_host.py",
        "app/test_live_run.py",
        "app/test_other_systems.py",
        "app/commands/test_serving.py",
        "cluster/test_ray.py",
        "cluster/test_warden.py",
        "graph/runtime/test_bypass.py",
        "graph/control/test_messages.py",
        "graph/links/test_cuda_ipc.py",
        "graph/processes/test_attention_workers.py",
        "graph/processes/test_hosts.py",
        "graph/processes/test_fork_server.py",
        "graph/processes/test_source_probe.py",
        "graph/links/test_shared_link.py",
        "graph/links/test_shared_memory.py",
        "graph/links/test_shortage.py",
        "graph/metrics/test_live_figures.py",
        "graph/test_sound.py",
        "graph/processes/test_health.py",
        "graph/processes/test_supervisor.py",
        "app/web/test_session.py::test_the_page_looks_at_a_run_of_several_processes_and_changes_it",
        "engine/test_registry.py::test_a_stage_of_another_package_runs_where_it_says",
        "graph/test_controls.py::test_in_processes_of_their_own_the_bytes_are_the_same",
        "graph/test_mask.py::test_processes_show_the_same_bytes",
        "app/test_mistakes.py::test_a_mistake_is_one_line_and_costs_no_network_library",
        "app/test_mistakes.py::test_the_control_what_is_no_mistake_loads_torch",
        "graph/plan/test_imports.py",
    ],
    "device": [
        "obs",
        "stages/sinks/test_ndi.py",
        "stages/sinks/test_several_sinks.py",
        "stages/sinks/test_stream.py",
        "stages/sinks/test_stream_sound.py::test_a_peer_hears_it_with_its_pictures",
        "stages/sinks/test_virtualcam.py",
        "stages/sources/test_http.py",
        "stages/sources/test_push.py",
        "stages/sources/test_rtsp.py",
        "stages/sources/test_screen.py",
        "stages/sources/test_variants.py",
        "stages/sources/test_web.py",
        "vm",
    ],
    "browser": [
        "app/web/test_page.py",
        "stages/sinks/test_page_in_browser.py",
    ],
    "slow": [
        "app/benchmark",
        "app/comfy/test_stylize.py",
        "app/comfy/test_video.py::test_memory_is_flat_over_300_frames",
        "app/test_cli.py::test_live_loras_are_listed_and_taken",
        "app/commands/test_demo.py",
        "app/commands/test_export_targets.py",
        "app/commands/test_exporting.py",
        "app/doctor/test_trial.py::test_numbers_that_are_shown_are_read_back_by_a_viewer_and_figures_are_plain",
        "cluster/test_reconcile.py",
        "engine/test_background.py",
        "engine/test_tensorrt.py",
        "export",
        "graph/test_attention.py",
        "graph/test_drift.py",
        "graph/runtime/test_engines.py",
        "graph/test_in_flight.py",
        "graph/test_keyframe.py",
        "graph/test_live_lora.py",
        "graph/runtime/test_context.py",
        "graph/runtime/test_loop.py",
        "graph/test_printed.py",
        "graph/test_run_streams.py",
        "graph/test_stream_host.py",
        "graph/test_style_images.py",
        "stages/cpu/test_compile.py",
        "stages/sources/test_damage.py",
        "stages/sources/test_multipart.py::test_what_never_ends_is_given_up",
        "app/test_cli.py::test_controls_are_listed_and_taken",
        "app/web/test_api.py::test_a_preset_recalls_the_scale_of_a_lora_that_was_left_at_its_default",
        "app/web/test_osc.py::test_a_control_is_turned_up_and_its_map_is_seen",
        "graph/test_controls.py",
        "graph/test_rerender.py",
        "graph/test_stream.py",
        "stages/diffusion/test_attention.py::test_memory_does_not_grow_with_the_stream",
        "stages/motion/test_dis_flow.py::test_cuts_are_found_and_no_others",
        "stages/sinks/test_beside.py",
    ],
}


def tier_of(place: str) -> str | None:
    """The tier of a test by its place under `tests`, as in "graph/test_run.py::test_a"."""
    for tier, members in TIERS.items():
        for member in members:
            if place == member or place.startswith((f"{member}/", f"{member}::", f"{member}[")):
                return tier
    return None

import json

from actors.engine.planning.device_profiles import load_profile
from actors.engine.simulation.figures import machine_details, machine_figures, machine_table
from actors.engine.simulation.machines import DoesNotFit, Layout, MachineEstimate, StartUp
from actors.engine.simulation.run_times import CallSpeeds

ESTIMATE = MachineEstimate(
    profile=load_profile("a100-80"),
    layout=Layout(
        model_shards=8,
        replicas=1,
        slots=512,
        prefill_tokens=8192,
        decode_steps=2,
        weight_bytes=39_600_000_000,
        cache_tokens=840_000,
    ),
    machines=1.0,
    start_up=StartUp(boot_s=(120.0, 600.0), load_s=(80.0, 320.0), compile_s=(30.0, 300.0)),
    prefill_s=7200.0,
    decode_s=36_000.0,
    tail_s=8.0,
    hours=(1000.0, 1200.0, 1400.0),
    prompt_tokens=8e8,
    generated_tokens=2e8,
    mbu=0.5,
    mfu=0.333,
    roof_share=0.4,
    idle_slot_share=0.1,
    limits={"weights": 0.6, "compute": 0.4},
    speeds=CallSpeeds(
        prefill_tokens_per_s=5_100.0,
        decode_tokens_per_s=12_345.0,
        longest_call_s=1.567,
        longest_prefill_s=8.0,
    ),
)
TOO_LARGE = DoesNotFit(load_profile("h100"), "the model does not split over 3 devices")


def test_machine_figures_are_values_of_json() -> None:
    figures = machine_figures(ESTIMATE)

    assert json.loads(json.dumps(figures)) == figures
    assert figures["machine"] == "8xA100 80 GB"
    assert figures["hours"] == [1000.0, 1200.0, 1400.0]
    assert figures["cost"] == [8 * 1000.0, 28 * 1400.0]
    assert figures["limit"] == "weights"
    assert figures["seconds"]["compile"] == [30.0, 300.0]
    assert figures["seconds"]["compile_after_load"] == [0.0, 220.0]
    assert figures["seconds"]["longest_prefill"] == 8.0


def test_machine_that_does_not_fit_has_a_reason() -> None:
    assert machine_figures(TOO_LARGE) == {
        "machine": "8xH100",
        "fits": False,
        "reason": "the model does not split over 3 devices",
    }


def test_machine_table_fits_80_columns() -> None:
    figures = [machine_figures(ESTIMATE), machine_figures(TOO_LARGE)]

    lines = [*machine_table(figures), *machine_details(figures)]

    assert max(len(line) for line in lines) <= 80
    assert lines[1].startswith("8xA100 80 GB     1x8   512 1,000-1,400   23,148  50%  33%")
    assert lines[1].endswith("8,000-39,200  weights")
    assert lines[2] == "8xH100        does not fit"
    assert "8xH100: the model does not split over 3 devices" in lines


def test_machine_details_show_each_part_of_start_up() -> None:
    lines = list(machine_details([machine_figures(ESTIMATE)]))

    assert lines[1] == "  start-up: boot 120-600 s, load 80-320 s, then programs 0-220 s"


def test_machine_details_show_the_speeds_of_a_replica() -> None:
    lines = list(machine_details([machine_figures(ESTIMATE)]))

    expected = "  replica: prefill 5,100 tokens/s, full decode 12,345, longest call 1.6 s"
    assert lines[2] == expected


def test_machine_table_and_details_name_the_currency() -> None:
    figures = [machine_figures(ESTIMATE)]

    header = next(machine_table(figures, "EUR"))
    details = list(machine_details(figures, "EUR"))

    assert header.split() == [
        "machine",
        "mesh",
        "slots",
        "hours",
        "tokens/s",
        "MBU",
        "MFU",
        "EUR",
        "limit",
    ]
    assert details[4] == "  8.0-28 EUR per machine-hour, 8.0-39 per million tokens"


def test_machine_details_name_what_is_estimated() -> None:
    lines = list(machine_details([machine_figures(ESTIMATE)]))

    assert lines[-1] == "all times are estimates: no kernel has been measured on these machines"

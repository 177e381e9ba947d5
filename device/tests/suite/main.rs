//! The device suite: what holds for every backend. Each case runs on each of the [`BACKENDS`], as a test of its own, and a table
//! of them is printed at the end. A backend that this machine has not is skipped, unless `REQUIRE_DEVICE` names it.
//!
//! What only one backend can do, or only on its own way, is in `host.rs` and `adapters.rs`.

#![allow(clippy::unwrap_used, reason = "a test's unwrap is an assertion")]

#[cfg(all(feature = "cuda", target_os = "linux"))]
#[path = "../stand_in/apart.rs"]
mod apart;
mod cases;
#[cfg(all(feature = "cuda", target_os = "linux"))]
mod cuda;
mod graphs;
mod kernels;
mod moves;
mod order;
#[cfg(all(feature = "cuda", target_os = "linux"))]
#[path = "../stand_in/kernels.rs"]
mod register;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use chare_device::{DeviceError, DeviceSpec, Devices, HostMode};
use libtest_mimic::{Arguments, Trial};

/// What the suite runs on: how it is called in the table, and its specification before and after the number of devices.
const BACKENDS: &[(&str, &str, &str)] = &[
    ("inline", "host:", ":inline"),
    ("1 worker", "host:", ":workers=1"),
    ("3 workers", "host:", ":workers=3"),
    ("polled", "host:", ":polled"),
    ("seeded", "host:", ":seeded=7"),
    #[cfg(feature = "wgpu")]
    ("wgpu", "wgpu:0x", ""),
    #[cfg(feature = "wgpu")]
    ("wgpu apart", "wgpu:0x", ":apart"),
];

/// Where the table has a column for CUDA: the stand-in, whose cases run in processes of their own, or the machine's own.
const CUDA: &[&str] = if cfg!(all(feature = "cuda", target_os = "linux")) { &["cuda"] } else { &[] };

/// The columns of the table.
fn columns() -> impl Iterator<Item = &'static str> {
    BACKENDS.iter().map(|(backend, ..)| *backend).chain(CUDA.iter().copied())
}

/// One case: what it does, on how many devices, and what more it wants of them.
struct Case {
    name: &'static str,
    devices: usize,
    options: &'static str,
    run: fn(&Devices),
}

impl Case {
    fn keeps_records(&self) -> bool {
        self.name.starts_with("records_")
    }
}

macro_rules! cases {
    ($($subject:ident { $($name:ident: $devices:literal, $options:literal;)+ })+) => {
        &[$($(
            Case { name: stringify!($name), devices: $devices, options: $options, run: $subject::$name }
        ),+),+]
    };
}

const CASES: &[Case] = cases! {
    cases {
        launches_of_one_account_run_in_order: 1, "";
        thousands_of_small_launches: 1, "";
        a_share_is_a_snapshot: 1, "";
        a_kernel_may_read_a_share_of_what_it_writes: 1, "";
        buffers_order_the_work_of_different_accounts: 1, "";
        swapped_buffers_keep_their_contents: 1, "";
        groups_of_buffers_and_absent_ones: 1, "";
        arrays_keep_their_shape: 1, "";
        host_vectors_come_back_with_their_memory: 1, "";
        vectors_of_the_program_are_copied_from_where_they_are: 1, "";
        a_fault_reaches_its_waiter_and_what_depends_on_it: 1, "";
        a_fault_nobody_awaited_is_returned_by_the_next_call: 1, "";
        faults_that_nobody_asked_for_are_taken_at_the_end: 1, "";
        a_kept_completion_keeps_its_fault: 1, "";
        out_of_memory_says_who_holds_it: 1, ":mem=64KiB";
        a_launch_that_is_refused_changes_nothing: 1, ":mem=8KiB";
        memory_is_recycled_and_new_buffers_are_zeroed: 1, "";
        buffers_of_another_device_are_imported: 2, "";
        memory_goes_around_all_devices_in_order: 3, "";
        what_is_dropped_in_flight_is_finished: 2, "";
        records_say_what_was_done: 2, "";
        code_for_cuda_is_refused_elsewhere: 1, "";
    }
    order {
        an_empty_launch_keeps_the_order: 1, "";
        a_launch_that_the_device_refuses_keeps_the_order: 1, "";
        a_launch_on_spoiled_input_keeps_the_order: 1, "";
        a_kernel_that_is_overdue_loses_its_device_whatever_follows: 2, ":timeout=0.2";
    }
    graphs {
        a_graph_is_replayed_in_order: 1, "";
        what_changes_between_replays_is_seen: 1, "";
        a_replay_leaves_shares_as_they_are: 1, "";
        graphs_of_several_accounts_are_ordered: 1, "";
        groups_absent_buffers_and_zeros_in_graphs: 1, "";
        a_fault_in_a_graph_names_its_kernel: 1, "";
        a_replay_in_flight_keeps_what_it_uses: 1, "";
        graphs_of_64_kernels_in_turn: 1, "";
        graphs_are_recorded_right: 1, "";
        replays_that_are_refused_change_nothing: 1, "";
        an_empty_graph_is_a_fence: 1, "";
        records_name_the_kernels_of_graphs: 1, "";
    }
    moves {
        shares_of_another_device_are_used_as_they_are: 2, "";
        buffers_of_another_device_come_over_when_they_are_written: 2, "";
        an_account_moves_with_work_in_flight: 3, "";
        what_an_account_only_reads_stays_until_it_is_brought: 2, "";
        an_account_stays_where_there_is_room: 2, ":mem=8KiB";
        as_many_accounts_move_as_fit: 2, ":mem=8KiB";
        a_fault_follows_an_account_that_moves: 2, "";
        what_moved_and_is_dropped_in_flight_is_finished: 2, "";
        copies_go_into_buffers_that_are_there: 2, "";
        a_graph_is_replayed_where_its_account_is: 2, "";
        threads_read_what_an_account_shares_on_its_way: 3, "";
        records_are_of_all_devices: 2, "";
    }
};

/// What has become of a case on a backend.
pub(crate) enum Outcome {
    Ok,
    Failed,
    /// Why it was not run.
    Skipped(String),
}

impl Outcome {
    fn word(&self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Failed => "FAILED",
            Outcome::Skipped(_) => "skipped",
        }
    }
}

/// What has become of each case on each backend.
type Table = BTreeMap<(&'static str, &'static str), Outcome>;

fn main() {
    // Not a run: all kernels of this binary for a machine without a compiler, as `--ship-kernels` has them of programs.
    if let Ok(folder) = std::env::var("SHIP_KERNELS") {
        let capability = std::env::var("SHIP_CAPABILITY").unwrap_or_else(|_| "9.0".to_owned());
        let count = chare_device::ship_kernels(folder.as_ref(), capability.parse().unwrap()).unwrap();
        println!("kernels compiled: {count}, in {folder}");
        return;
    }
    let arguments = Arguments::from_args();
    let table = Arc::new(Mutex::new(Table::new()));
    let mut trials = Vec::new();
    for case in CASES {
        for &(backend, before, after) in BACKENDS {
            let spec = format!("{before}{}{}{after}", case.devices, case.options);
            let table = table.clone();
            let note = move |outcome| {
                let _ = table.lock().unwrap().insert((case.name, backend), outcome);
            };
            let trial = Trial::ignorable_test(format!("{} on {backend}", case.name), move || {
                note(Outcome::Failed);
                let devices = match open(&spec, case.keeps_records()) {
                    Ok(devices) => devices,
                    Err(reason) => {
                        note(Outcome::Skipped(reason.clone()));
                        return Ok(libtest_mimic::Completion::ignored_with(reason));
                    }
                };
                (case.run)(&devices);
                drop(devices);
                note(Outcome::Ok);
                Ok(libtest_mimic::Completion::Completed)
            });
            trials.push(trial);
        }
        #[cfg(all(feature = "cuda", target_os = "linux"))]
        trials.push(cuda::trial(case, &table));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    #[cfg(all(feature = "cuda", target_os = "linux"))]
    cuda::remove_listings();
    print(&table.lock().unwrap());
    conclusion.exit();
}

/// Opens the devices; why not, if the machine has none of this kind.
fn open(spec: &str, keeps_records: bool) -> Result<Devices, String> {
    let parsed: DeviceSpec = spec.parse().unwrap();
    let parsed = if keeps_records { parsed.with_records() } else { parsed };
    match Devices::open(&parsed, HostMode::Inline) {
        Ok(devices) => Ok(devices),
        Err(error @ DeviceError::NotFound { .. }) => {
            let kind = spec.split(':').next().unwrap();
            assert!(!is_required(kind), "REQUIRE_DEVICE wants {kind}: {error}");
            Err(error.to_string())
        }
        Err(error) => panic!("{spec}: {error}"),
    }
}

/// Whether `REQUIRE_DEVICE` names this kind of devices.
fn is_required(kind: &str) -> bool {
    let required = std::env::var("REQUIRE_DEVICE").unwrap_or_default();
    required.split(',').any(|required| required == kind)
}

/// One line a case, one column a backend, and under it why cases were skipped. Cases that were not asked for are left out.
fn print(table: &Table) {
    let ran = || CASES.iter().filter(|case| table.keys().any(|(name, _)| *name == case.name));
    let Some(width) = ran().map(|case| case.name.len()).max() else { return };
    let row = |first: &str, cell: &dyn Fn(&'static str) -> &'static str| {
        let cells = columns().map(|backend| format!("  {:<10}", cell(backend))).collect::<String>();
        println!("{first:<width$}{}", cells.trim_end());
    };
    println!();
    row("", &|backend| backend);
    for case in ran() {
        row(case.name, &|backend| table.get(&(case.name, backend)).map_or("-", Outcome::word));
    }
    for ((case, backend), outcome) in table {
        if let Outcome::Skipped(reason) = outcome {
            println!("skipped: {case} on {backend}: {reason}");
        }
    }
}

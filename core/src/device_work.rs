//! Device work that nobody awaits: no fault in it is lost, and at the end of a run none of it is left.
//!
//! A fault goes to whoever awaits the completion, to the chare's next device call if the completion was dropped, or else
//! it ends the run at quiescence. So does a panic in a waker of the user's that waited for a completion. A run that ends before that, and well, finishes the work that it has launched (kernels
//! end), and a fault that nobody was given makes the end a bad one. A run that ends badly has its reason already: work
//! that has not begun is given up, kernels that have begun are waited for, since their threads cannot be stopped.

use chare_device::{Device, Devices, Fault, FaultKind, HostMode, Language};

use crate::binding::BoundDevices;
use crate::cores::spare_cores;
use crate::current;
use crate::device_path::DevicePath;
use crate::options::Options;
use crate::process::Shared;
use crate::report::Reason;
use crate::runtime::{Runtime, StartError};

impl Runtime {
    /// The devices that the PEs launch on, as a person reads them.
    ///
    /// # Panics
    /// On a thread that is not a PE.
    #[track_caller]
    pub fn device_names(&self) -> Vec<String> {
        current::on_pe("device_names", |pe| {
            let devices = pe.shared().devices();
            let name = |device: &Device| match device.model() {
                Some(model) => format!("{} ({model})", device.name()),
                None => device.name().to_string(),
            };
            devices.iter().map(name).collect()
        })
    }

    /// Why the devices of this run were chosen, in a few words.
    ///
    /// # Panics
    /// On a thread that is not a PE.
    #[track_caller]
    pub fn device_reason(&self) -> String {
        current::on_pe("device_reason", |pe| pe.shared().devices().reason().to_owned())
    }

    /// Whether GPUs of this machine are not used since the kernels of the program are not written for them, and nobody
    /// has asked for other devices.
    ///
    /// # Panics
    /// On a thread that is not a PE.
    #[track_caller]
    pub fn passes_over_gpus(&self) -> bool {
        current::on_pe("passes_over_gpus", |pe| pe.shared().devices().passes_over_gpus())
    }

    /// What kernels must be written in to be launched in this run: the devices of a run are of one kind.
    ///
    /// # Panics
    /// On a thread that is not a PE.
    #[track_caller]
    pub fn device_language(&self) -> Language {
        current::on_pe("device_language", |pe| pe.shared().devices().get(0).language())
    }
}

/// Opens the devices of a run, in one of so many processes of its host. Kernels of host devices run where they are launched, unless there are
/// cores that no PE of any process needs.
pub(crate) fn open(options: &Options, ranks_here: usize) -> Result<BoundDevices, StartError> {
    let mut spec = options.opened_device();
    let mode = if let Some(sim) = options.simulation() {
        if let Some(path) = options.device_path().filter(|path| *path != DevicePath::Staged) {
            return Err(StartError::PathNotSimulated(path));
        }
        spec = spec.simulated(sim.seed()).ok_or_else(|| StartError::NotSimulated(spec.to_string()))?;
        // They are driven by the seed, so cores need not be counted. To ask the system takes longer than a short simulated run.
        HostMode::Inline
    } else {
        match spare_cores(options.pes(), ranks_here) {
            0 => HostMode::Inline,
            free => HostMode::Workers(free),
        }
    };
    let devices = Devices::open(&spec, mode)
        .map_err(|error| StartError::Device { spec: options.device().to_string(), error })?;
    let bound = BoundDevices::new(devices, options.pes(), options.device_map())?;
    options.device_path().map_or(Ok(()), |path| bound.check_path(path))?;
    Ok(bound)
}

/// Why a run ends that has these faults, which nobody was given; `None` if there are none.
pub(crate) fn unawaited(faults: Vec<Fault>) -> Option<Reason> {
    let first = faults.first()?;
    let text = match faults.len() - 1 {
        0 => first.to_string(),
        more => format!("{first}, and {more} more device fault(s)"),
    };
    // As for a waker that panics on a PE: there was somebody who awaited.
    Some(if first.kind == FaultKind::Waker { Reason::Aborted(text) } else { Reason::DeviceFault(text) })
}

/// Gives up work that has not begun if the run ends badly. Does not wait. Called when all PEs have stopped stepping.
pub(crate) fn abandon_unless_ended_well(shared: &Shared) {
    if !shared.has_ended_well() {
        shared.devices().abandon();
    }
}

/// Waits for the work, ends the devices' threads, and closes what other processes have lent. Called when coroutines and chares are gone, so that
/// what they had not awaited counts as dropped.
pub(crate) fn close(shared: &Shared) {
    shared.devices().close();
    shared.devices().close_borrowed();
    if let Some(reason) = unawaited(shared.devices().take_unreported_faults()) {
        shared.spoil(reason);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::cell::Cell;
    use std::thread;

    use chare_device::{Kernel, Launch, Out};

    use crate::cores::spare_cores;
    use crate::options::Options;
    use crate::prelude::*;
    use crate::runtime::start_main;
    use crate::testing::run_as_processes;

    thread_local! {
        /// Whether a kernel has run on this thread.
        static HAS_RUN: Cell<bool> = const { Cell::new(false) };
    }

    const NOTE: Kernel<(Out<u32>,)> = Kernel::new("note", |_: &Launch, (to,): (&mut [u32],)| {
        HAS_RUN.set(true);
        to.fill(1);
    });

    struct Launcher;

    #[chare]
    impl Launcher {
        fn new() -> Self {
            Launcher
        }

        /// Whether the thread of this PE runs what it launches.
        #[entry]
        async fn runs_itself(&mut self, cx: &Cx<Self>) -> Result<bool> {
            let dev = cx.device();
            let mut noted = dev.alloc(1)?;
            dev.launch(&NOTE, 1, (&mut noted,))?;
            assert_eq!(dev.download(&noted)?.await?, [1]);
            Ok(HAS_RUN.get())
        }
    }

    /// Runs a job of so many processes of one PE each, all of which must run their kernels themselves, or none.
    fn all_run_themselves(processes: usize, expected: bool) {
        let program = async move |rt: Runtime| -> Result<()> {
            let launchers = rt.group::<Launcher>().create(()).await?;
            let answers = launchers.runs_itself().gather().await?;
            assert_eq!(answers, vec![expected; processes]);
            Ok(())
        };
        let options = Options::default().with_pes(1).with_device("host".parse().expect("a device"));
        let report = run_as_processes(processes, options, &|pe| start_main(pe, program));
        let report = report.expect("the host device is there");
        assert!(report.is_success(), "{report}");
    }

    #[test]
    fn kernels_have_threads_only_of_cores_that_no_process_needs() {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        // Who is bound more tightly than its parent has cores of its own, however many processes there are.
        for processes in [1, cores.max(2), 2 * cores] {
            all_run_themselves(processes, spare_cores(1, processes) == 0);
        }
    }
}

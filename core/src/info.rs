//! What a run would have: PEs and their devices, how devices are doing, the path of memory between each two, and what kinds of
//! devices there are and are not. What `chare info` prints.

#[cfg(feature = "mpi")]
mod job;

use std::fmt;

use chare_device::{BackendKind, Device, Devices, HostMode, Language, Path, backend_kinds};
#[cfg(feature = "mpi")]
use chare_transport::is_launched;

use crate::binding::{BoundDevices, NodeRank};
use crate::options::Options;
use crate::runtime::StartError;

/// What a run with some options would have on this machine. Printed, it is what `chare info` says.
///
/// ```
/// use chare::{Info, Options};
///
/// let options = Options::default().with_pes(2).with_device("host:2".parse().expect("a device"));
/// let text = Info::of(&options)?.to_string();
/// assert!(text.contains("PE 1    host:1") && text.contains("host:0 to host:1    host memory"));
/// # Ok::<(), chare::StartError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Info {
    node: NodeRank,
    /// The number of its first PE in the job.
    first: usize,
    /// By PE: the ordinals of its devices.
    by_pe: Vec<Vec<usize>>,
    devices: Vec<About>,
    reason: String,
    /// By the devices that it leads from, and to.
    paths: Vec<Vec<Path>>,
    kinds: Vec<BackendKind>,
    /// How device memory goes to other processes of the job, a line for those to which it goes alike.
    to_processes: Vec<String>,
}

/// What is said of a device.
#[derive(Clone, Debug)]
struct About {
    name: String,
    what: String,
    vitals: Option<String>,
}

impl Info {
    /// Looks at this machine. Opens the devices for the moment. `auto` is what it is for programs whose kernels are written for all
    /// devices.
    ///
    /// # Errors
    /// If a run with these options could not start.
    pub fn of(options: &Options) -> Result<Info, StartError> {
        Info::with_devices(options).map(|(info, _)| info)
    }

    /// As [`Info::of`], and the devices.
    fn with_devices(options: &Options) -> Result<(Info, BoundDevices), StartError> {
        let devices = Devices::open_for_any(options.device(), HostMode::Inline)
            .map_err(|error| StartError::Device { spec: options.device().to_string(), error })?;
        let devices = BoundDevices::new(devices, options.pes(), options.device_map())?;
        let to_all = |from: usize| (0..devices.len()).map(|to| devices.path(from, to)).collect();
        let info = Info {
            node: NodeRank::of_this_process(),
            first: 0,
            by_pe: devices.by_pe().to_vec(),
            devices: devices
                .iter()
                .zip(devices.vitals())
                .map(|(device, vitals)| About {
                    name: device.name().to_owned(),
                    what: what(device),
                    // There is nobody to ask about the host.
                    vitals: (device.language() != Language::Rust).then(|| vitals.to_string()),
                })
                .collect(),
            reason: devices.reason().to_owned(),
            paths: (0..devices.len()).map(to_all).collect(),
            kinds: backend_kinds(),
            to_processes: Vec::new(),
        };
        Ok((info, devices))
    }

    /// What `chare info` says: of this process, or, if `mpirun` has started several (with the feature `mpi`), of all of them. Then
    /// only the first one says something, when all have told it, and others have an empty text.
    ///
    /// # Errors
    /// If a run with these options could not start.
    pub fn of_job(options: &Options) -> Result<String, StartError> {
        #[cfg(feature = "mpi")]
        if is_launched() {
            return job::text(options);
        }
        Ok(Info::of(options)?.to_string())
    }

    fn name(&self, ordinal: usize) -> &str {
        &self.devices[ordinal].name
    }
}

/// A device in a few words.
fn what(device: &Device) -> String {
    let memory = match device.capacity_bytes() {
        u64::MAX => "memory without a limit".to_owned(),
        bytes if bytes < 1 << 20 => format!("{bytes} bytes"),
        bytes => format!("{} MiB", bytes >> 20),
    };
    let speed = match device.speed() {
        1.0 => String::new(),
        speed => format!(", speed {speed}"),
    };
    let kernels = format!("kernels in {}, {memory}{speed}", device.language());
    match device.model() {
        Some(model) => format!("{model}, {kernels}, {}", device.uuid()),
        None => kernels,
    }
}

impl fmt::Display for Info {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NodeRank { rank, count, has_own_devices } = self.node;
        write!(f, "PEs: {} of this process", self.by_pe.len())?;
        match count {
            1 => writeln!(f)?,
            _ => {
                let own = if has_own_devices { ", with devices of its own" } else { "" };
                writeln!(f, ", which is number {rank} of {count} on this machine{own}")?;
            }
        }
        for (pe, own) in (self.first..).zip(&self.by_pe) {
            let names: Vec<&str> = own.iter().map(|&ordinal| self.name(ordinal)).collect();
            writeln!(f, "  PE {pe}    {}", names.join(", "))?;
        }
        writeln!(f, "devices: {}", self.reason)?;
        for About { name, what, vitals } in &self.devices {
            writeln!(f, "  {name}    {what}")?;
            if let Some(vitals) = vitals {
                writeln!(f, "  {:width$}    {vitals}", "", width = name.len())?;
            }
        }
        writeln!(f, "paths:")?;
        for (from, paths) in self.paths.iter().enumerate() {
            for (to, path) in paths.iter().enumerate() {
                let (from, to) = (self.name(from), self.name(to));
                writeln!(f, "  {from} to {to}    {path}: {}", path.reason())?;
            }
        }
        if !self.to_processes.is_empty() {
            writeln!(f, "device memory to other processes:")?;
        }
        for line in &self.to_processes {
            writeln!(f, "  {line}")?;
        }
        write!(f, "kinds of devices:")?;
        for kind in &self.kinds {
            let found = kind.found.as_ref().unwrap_or_else(|reason| reason);
            write!(f, "\n  {}    {found}", kind.name)?;
        }
        Ok(())
    }
}

//! What devices to open, as a user writes it after `--device`.
//!
//! ```text
//! auto | host | host:4 | host:4@1,3,1,3      then, in any order:  :mem=1GiB  :inline  :workers=2  :polled  :seeded=7
//! cuda | cuda:0 | cuda:0,2 | wgpu | wgpu:1 | wgpu:0x2            then:  :mem=1GiB  (wgpu) :apart
//! ```
//! A specification that parses can be printed and parsed again to the same value. Every build parses all; which devices
//! there are is found when they are opened.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Where the kernels of host devices run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostMode {
    /// On the calling thread: every operation has finished when the call that submits it returns.
    Inline,
    /// On this many worker threads, shared by the devices: operations are enqueued, as on a GPU.
    Workers(usize),
    /// On the thread that looks for what has finished ([`Devices::poll`](crate::Devices::poll)), and in memory that is
    /// known by numbers and not by addresses: what works here asks nothing of a device that a GPU has not. For tests.
    Polled,
    /// As `Polled`, but one operation a look, in an order that this seed chooses of those that the streams and the accesses of
    /// the operations allow. For simulated runs.
    Seeded(u64),
}

/// Which devices to open.
///
/// Parsed from text: `auto`, `host`, `host:4` (four virtual devices), `host:4@1,3,1,3` (with relative speeds:
/// the fastest runs at native speed, one of a third of its speed takes three times as long; none may be more than a
/// million times as fast as another), `cuda` and `wgpu` (all of that kind), `cuda:0,2` (those with these numbers),
/// `wgpu:0x2` (two devices of one adapter, which share its queue, and are lost together).
/// Suffixes: `:mem=1GiB` (capacity of each device); `:timeout=10` (the seconds that a kernel may run, see
/// [`with_time_limit`](Self::with_time_limit)); `wgpu:0x2:apart` (the devices of an adapter share nothing: each has a queue and a
/// thread of its own, and copies between them go through the host); for host devices `:inline`, `:workers=N`, `:polled` or `:seeded=N` (see [`HostMode`]).
///
/// ```
/// let spec: chare_device::DeviceSpec = "host:2@1,3:mem=64MiB:inline".parse()?;
/// assert_eq!(spec.to_string(), "host:2@1,3:mem=64MiB:inline");
/// # Ok::<(), chare_device::SpecError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DeviceSpec {
    kind: Kind,
    capacity_bytes: Option<u64>,
    mode: Option<HostMode>,
    keeps_records: bool,
    time_limit: Option<Duration>,
    is_apart: bool,
}

/// Which backend, and which of its devices.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) enum Kind {
    /// The best that works.
    #[default]
    Auto,
    Host(HostDevices),
    /// The devices with these numbers, or all if there are none.
    Cuda(Vec<usize>),
    /// As for CUDA; a number that occurs several times, one after the other, is an adapter that is as many devices.
    Wgpu(Vec<usize>),
}

/// How many virtual host devices there are, and their speeds (one per device, or none stated).
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct HostDevices {
    count: usize,
    speeds: Vec<f64>,
}

impl DeviceSpec {
    /// Where kernels run, if the specification says so.
    pub fn mode(&self) -> Option<HostMode> {
        self.mode
    }

    /// The capacity of each device, if stated.
    pub fn capacity_bytes(&self) -> Option<u64> {
        self.capacity_bytes
    }

    /// These devices, keeping records of what they are used for: [`Account::usage`](crate::Account::usage) and
    /// [`Device::usage`](crate::Device::usage). Costs two readings of the clock a launch, or on CUDA two events, and a few
    /// additions; a launch on an inline host device is then an operation as on others, for about 200 ns more. Without records none of this is done.
    #[must_use]
    pub fn with_records(mut self) -> Self {
        self.keeps_records = true;
        self
    }

    /// These devices, with a limit for the time of a kernel, if that is not zero. One that passes it is a fault, and its device counts as
    /// lost: a kernel cannot be stopped. The time is that on the device, from when the kernel is the first of its stream; on CUDA and
    /// wgpu, from when somebody has seen it there, so that it includes what work of other streams takes meanwhile.
    #[must_use]
    pub fn with_time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = Some(limit).filter(|limit| !limit.is_zero());
        self
    }

    /// The limit for the time of a kernel.
    pub fn time_limit(&self) -> Option<Duration> {
        self.time_limit
    }

    /// These devices for a run that is simulated by this seed: operations end when somebody looks, in an order that the seed
    /// chooses, and take no time (unless they are [`HostMode::Inline`]). `None` if they are not of the host.
    #[must_use]
    pub fn simulated(&self, seed: u64) -> Option<Self> {
        let count = self.host_speeds().len();
        let kind = match self.kind {
            Kind::Auto | Kind::Host(_) => Kind::Host(HostDevices { count, speeds: Vec::new() }),
            Kind::Cuda(_) | Kind::Wgpu(_) => return None,
        };
        let mode = match self.mode {
            Some(HostMode::Inline) => HostMode::Inline,
            _ => HostMode::Seeded(seed),
        };
        Some(DeviceSpec { kind, mode: Some(mode), time_limit: None, ..self.clone() })
    }

    /// Whether records are kept.
    pub fn keeps_records(&self) -> bool {
        self.keeps_records
    }

    /// Whether the choice of backend is left to the program.
    pub fn is_auto(&self) -> bool {
        self.kind == Kind::Auto
    }

    /// Whether devices of one adapter share nothing.
    #[cfg(feature = "wgpu")]
    pub(crate) fn is_apart(&self) -> bool {
        self.is_apart
    }

    pub(crate) fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The relative speeds of the host devices to open, one per device.
    pub(crate) fn host_speeds(&self) -> Vec<f64> {
        match &self.kind {
            Kind::Host(host) if host.speeds.is_empty() => vec![1.0; host.count],
            Kind::Host(host) => host.speeds.clone(),
            Kind::Auto | Kind::Cuda(_) | Kind::Wgpu(_) => vec![1.0],
        }
    }
}

/// Why a device specification was refused: one line, with the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// No backend has that name.
    #[error("unknown device `{name}`; use `auto`, `host`, `host:<count>`, `cuda` or `wgpu`")]
    UnknownDevice {
        /// What was asked for.
        name: String,
    },
    /// The backend is not in this build.
    #[error(
        "this build has no `{backend}`: build it with `--features {backend}`, or use `--device auto` or `host`"
    )]
    NotBuilt {
        /// What was asked for.
        backend: &'static str,
    },
    /// A part of the specification cannot be read.
    #[error("bad device specification: `{part}` in `{spec}`: {reason}")]
    BadPart {
        /// The whole specification.
        spec: String,
        /// The part at fault.
        part: String,
        /// What was expected.
        reason: &'static str,
    },
}

impl FromStr for DeviceSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let mut parts = text.trim().split(':').peekable();
        let mut spec = DeviceSpec::default();
        let bad =
            |part: &str, reason| SpecError::BadPart { spec: text.to_owned(), part: part.to_owned(), reason };
        match parts.next() {
            Some("auto") => {}
            Some("host") => {
                let mut host = HostDevices { count: 1, speeds: Vec::new() };
                if let Some(part) = parts.next_if(|part| part.starts_with(|c: char| c.is_ascii_digit())) {
                    host = parse_host(part).map_err(|reason| bad(part, reason))?;
                }
                spec.kind = Kind::Host(host);
            }
            Some(kind @ ("cuda" | "wgpu")) => {
                let mut numbers = Vec::new();
                if let Some(part) = parts.next_if(|part| part.starts_with(|c: char| c.is_ascii_digit())) {
                    let parse = if kind == "cuda" { parse_numbers } else { parse_adapters };
                    numbers = parse(part).map_err(|reason| bad(part, reason))?;
                }
                spec.kind = if kind == "cuda" { Kind::Cuda(numbers) } else { Kind::Wgpu(numbers) };
            }
            _ => {
                return Err(SpecError::UnknownDevice { name: text.trim().to_owned() });
            }
        }
        let is_gpu = matches!(spec.kind, Kind::Cuda(_) | Kind::Wgpu(_));
        for part in parts {
            if let Some(seconds) = part.strip_prefix("timeout=") {
                let limit = parse_seconds(seconds).ok_or(SECONDS);
                limit
                    .and_then(|limit| set_once(&mut spec.time_limit, limit))
                    .map_err(|reason| bad(part, reason))?;
            } else if part == "apart" && matches!(spec.kind, Kind::Wgpu(_)) && !spec.is_apart {
                spec.is_apart = true;
            } else if is_gpu && !part.starts_with("mem=") {
                let expected = match spec.kind {
                    Kind::Wgpu(_) => {
                        "expected adapter numbers, as in `wgpu:0x2`, `mem=<bytes>`, `timeout=<seconds>`, or `apart`, once"
                    }
                    _ => "expected device numbers, as in `cuda:0,2`, `mem=<bytes>` or `timeout=<seconds>`",
                };
                return Err(bad(part, expected));
            } else if part == "inline" {
                set_once(&mut spec.mode, HostMode::Inline).map_err(|reason| bad(part, reason))?;
            } else if part == "polled" {
                set_once(&mut spec.mode, HostMode::Polled).map_err(|reason| bad(part, reason))?;
            } else if let Some(seed) = part.strip_prefix("seeded=") {
                let seed = seed.parse().map_err(|_| bad(part, "expected a number as seed"))?;
                set_once(&mut spec.mode, HostMode::Seeded(seed)).map_err(|reason| bad(part, reason))?;
            } else if let Some(count) = part.strip_prefix("workers=") {
                let count = parse_count(count, "expected a number of worker threads, from 1 to 1024");
                count
                    .and_then(|count| set_once(&mut spec.mode, HostMode::Workers(count)))
                    .map_err(|reason| bad(part, reason))?;
            } else if let Some(bytes) = part.strip_prefix("mem=") {
                let bytes = parse_bytes(bytes).ok_or("expected bytes, such as 4096, 64KiB, 512MiB or 1GiB");
                bytes
                    .and_then(|bytes| set_once(&mut spec.capacity_bytes, bytes))
                    .map_err(|reason| bad(part, reason))?;
            } else {
                return Err(bad(
                    part,
                    "expected `mem=<bytes>`, `timeout=<seconds>`, `inline`, `workers=<count>`, `polled` or `seeded=<seed>`",
                ));
            }
        }
        Ok(spec)
    }
}

fn set_once<T>(place: &mut Option<T>, value: T) -> Result<(), &'static str> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => {
            Err("this has been given already (`inline`, `workers`, `polled` and `seeded` exclude each other)")
        }
    }
}

/// Devices, and worker threads, that a specification may ask for.
const MAX_COUNT: usize = 1024;

/// How many times as fast as the slowest device the fastest may be. Beyond it, what a microsecond's kernel does on the
/// slowest would count as finished after seconds, and it would be taken for a hang.
const MAX_SPEED_RATIO: f64 = 1e6;

fn parse_count(text: &str, reason: &'static str) -> Result<usize, &'static str> {
    text.parse().ok().filter(|count| (1..=MAX_COUNT).contains(count)).ok_or(reason)
}

fn parse_host(part: &str) -> Result<HostDevices, &'static str> {
    const COUNT: &str = "expected a number of devices, from 1 to 1024, as in `host:4` or `host:4@1,3,1,3`";
    const SPEEDS: &str = "expected one positive speed per device, as in `host:4@1,3,1,3`";
    const RATIO: &str = "the fastest device may be at most 1000000 times as fast as the slowest";
    let (count, speeds) = part.split_once('@').map_or((part, None), |(count, speeds)| (count, Some(speeds)));
    let count = parse_count(count, COUNT)?;
    let Some(speeds) = speeds else {
        return Ok(HostDevices { count, speeds: Vec::new() });
    };
    let speeds: Vec<f64> = speeds.split(',').map(|speed| speed.parse().unwrap_or(f64::NAN)).collect();
    let all_positive = speeds.iter().all(|speed| speed.is_finite() && *speed > 0.0);
    if speeds.len() != count || !all_positive {
        return Err(SPEEDS);
    }
    let slowest = speeds.iter().copied().fold(f64::INFINITY, f64::min);
    // The quotient may be infinite, which is refused too.
    if speeds.iter().any(|speed| speed / slowest > MAX_SPEED_RATIO) {
        return Err(RATIO);
    }
    Ok(HostDevices { count, speeds })
}

/// The numbers of devices, each once.
fn parse_numbers(part: &str) -> Result<Vec<usize>, &'static str> {
    const NUMBERS: &str = "expected different device numbers, as in `cuda:0` or `cuda:0,2`";
    let mut numbers = Vec::new();
    for number in part.split(',') {
        let number = number.parse().ok().filter(|number| *number < MAX_COUNT && !numbers.contains(number));
        numbers.push(number.ok_or(NUMBERS)?);
    }
    Ok(numbers)
}

/// The numbers of adapters, each once but for a multiplier: `0x2,1` is 0, 0 and 1.
fn parse_adapters(part: &str) -> Result<Vec<usize>, &'static str> {
    const ADAPTERS: &str =
        "expected different adapter numbers, as in `wgpu:0,2`, or `wgpu:0x2` for two devices of adapter 0";
    let mut numbers = Vec::new();
    for adapter in part.split(',') {
        let (number, copies) = adapter.split_once('x').unwrap_or((adapter, "1"));
        let copies = parse_count(copies, ADAPTERS)?;
        let number = number.parse().ok().filter(|number| *number < MAX_COUNT && !numbers.contains(number));
        numbers.extend(std::iter::repeat_n(number.ok_or(ADAPTERS)?, copies));
    }
    Ok(numbers)
}

/// What a time limit is.
const SECONDS: &str = "expected seconds, more than 0 and at most 1000000, such as 10 or 0.5";

/// A time limit: more than nothing, and not so long that there is no such time.
pub(crate) fn parse_seconds(text: &str) -> Option<Duration> {
    let seconds = text.parse().ok().filter(|seconds| (1e-9..=1e6).contains(seconds))?;
    Some(Duration::from_secs_f64(seconds))
}

const UNITS: [(&str, u32); 3] = [("GiB", 30), ("MiB", 20), ("KiB", 10)];

fn parse_bytes(text: &str) -> Option<u64> {
    let found = UNITS.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)));
    let (number, shift) = found.unwrap_or((text, 0));
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Auto => write!(f, "auto")?,
            Kind::Host(HostDevices { count: 1, speeds }) if speeds.is_empty() => write!(f, "host")?,
            Kind::Host(host) => {
                write!(f, "host:{}", host.count)?;
                for (index, speed) in host.speeds.iter().enumerate() {
                    write!(f, "{}{speed}", if index == 0 { '@' } else { ',' })?;
                }
            }
            Kind::Cuda(numbers) | Kind::Wgpu(numbers) => {
                write!(f, "{}", if matches!(self.kind, Kind::Cuda(_)) { "cuda" } else { "wgpu" })?;
                for (index, alike) in numbers.chunk_by(|a, b| a == b).enumerate() {
                    write!(f, "{}{}", if index == 0 { ':' } else { ',' }, alike[0])?;
                    if alike.len() > 1 {
                        write!(f, "x{}", alike.len())?;
                    }
                }
            }
        }
        if let Some(bytes) = self.capacity_bytes {
            let whole = |&&(_, shift): &&(&str, u32)| bytes > 0 && bytes % (1 << shift) == 0;
            match UNITS.iter().find(whole) {
                Some((unit, shift)) => write!(f, ":mem={}{unit}", bytes >> shift)?,
                None => write!(f, ":mem={bytes}")?,
            }
        }
        if let Some(limit) = self.time_limit {
            write!(f, ":timeout={}", limit.as_secs_f64())?;
        }
        if self.is_apart {
            write!(f, ":apart")?;
        }
        match self.mode {
            None => Ok(()),
            Some(HostMode::Inline) => write!(f, ":inline"),
            Some(HostMode::Workers(count)) => write!(f, ":workers={count}"),
            Some(HostMode::Polled) => write!(f, ":polled"),
            Some(HostMode::Seeded(seed)) => write!(f, ":seeded={seed}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_survives_printing() {
        for text in [
            "auto",
            "auto:inline",
            "host",
            "host:4",
            "host:4@1,3,1,3",
            "host:2@0.5,2",
            "host:3@1000000,1,2",
            "host:mem=1GiB",
            "host:2:mem=5MiB:inline",
            "host:2:polled",
            "host:2:seeded=7",
            "cuda",
            "cuda:3",
            "cuda:0,2:mem=1GiB",
            "wgpu:1",
            "wgpu:0x2",
            "wgpu:0x2:mem=1GiB:apart",
            "wgpu:1x3,0:mem=1GiB",
            "wgpu:mem=5MiB",
            "host:1@2:mem=1000:workers=3",
            "host:timeout=0.5:inline",
            "cuda:0:mem=1GiB:timeout=10",
        ] {
            let spec: DeviceSpec = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(spec.to_string(), text);
        }
        let in_another_order: DeviceSpec = "host:2:inline:mem=5120KiB".parse().unwrap();
        assert_eq!(in_another_order.to_string(), "host:2:mem=5MiB:inline");
        assert_eq!("host:3".parse::<DeviceSpec>().unwrap().host_speeds(), [1.0; 3]);
        assert!(DeviceSpec::default().is_auto());
    }

    #[test]
    fn an_unknown_device_is_named_with_what_there_is() {
        for name in ["rocm", "wgpus:0", "foo", ""] {
            let error = name.parse::<DeviceSpec>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{name}`")) && error.contains("`host:<count>`"), "{error}");
            assert!(error.contains("use `auto`") && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn speeds_that_are_too_far_apart_are_refused() {
        for speeds in ["1000001,1", "1e-300,1", "1e300,1e-300", "1,1e7"] {
            let error = format!("host:2@{speeds}:workers=1").parse::<DeviceSpec>().unwrap_err().to_string();
            let words = [&format!("`2@{speeds}`"), "at most 1000000 times as fast as the slowest"];
            assert!(words.iter().all(|word| error.contains(word)) && !error.contains('\n'), "{error}");
        }
        // Only how they compare matters.
        for speeds in ["1e300,2e300", "1e-310,1e-310"] {
            assert!(format!("host:2@{speeds}").parse::<DeviceSpec>().is_ok(), "{speeds}");
        }
    }

    #[test]
    fn bad_parts_are_named() {
        for (text, part) in [
            ("host:0", "0"),
            ("host:2@1", "2@1"),
            ("host:2@1,x", "2@1,x"),
            ("host:2@1,-1", "2@1,-1"),
            ("host:2@1,inf", "2@1,inf"),
            ("host:2@1,0", "2@1,0"),
            ("host:2@1,nan", "2@1,nan"),
            ("host:mem=1TB", "mem=1TB"),
            ("host:mem=99999999999GiB", "mem=99999999999GiB"),
            ("host:workers=0", "workers=0"),
            ("host:inline:workers=2", "workers=2"),
            ("host:mem=1:mem=2", "mem=2"),
            ("host:fast", "fast"),
            ("auto:4", "4"),
            ("cuda:0,0", "0,0"),
            ("cuda:0,x", "0,x"),
            ("cuda:99999", "99999"),
            ("cuda:x", "x"),
            ("cuda:0x2", "0x2"),
            ("wgpu:0x0", "0x0"),
            ("wgpu:0x2,0", "0x2,0"),
            ("wgpu:0x2x2", "0x2x2"),
            ("wgpu:0:inline", "inline"),
            ("wgpu:workers=2", "workers=2"),
            ("host:timeout=0", "timeout=0"),
            ("host:timeout=-1", "timeout=-1"),
            ("host:timeout=nan", "timeout=nan"),
            ("host:timeout=1e7", "timeout=1e7"),
            ("cuda:timeout=soon", "timeout=soon"),
            ("host:timeout=1:timeout=2", "timeout=2"),
            ("wgpu:0x2:apart:apart", "apart"),
            ("wgpu:0x2:apar", "apar"),
            ("cuda:apart", "apart"),
            ("host:2:apart", "apart"),
        ] {
            match text.parse::<DeviceSpec>() {
                Err(SpecError::BadPart { part: found, .. }) => assert_eq!(found, part, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        let said = "wgpu:0x2:apar".parse::<DeviceSpec>().unwrap_err().to_string();
        assert!(said.contains("`timeout=<seconds>`, or `apart`"), "{said}");
    }
}

//! The options of a run: from the command line (`--pes`, `--device`), the environment (`CHARE_PES`, `CHARE_DEVICE`,
//! `CHARE_DEVICE_MAP`, `CHARE_DEVICE_PATH`), or a program that fills them in. What the runtime does not know it leaves to the program.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chare_device::{Capability, CapabilityError, DeviceSpec};

use crate::binding::DeviceMap;
use crate::cores::default_pes;
use crate::device_path::DevicePath;
use crate::mailbox::DEFAULT_BUDGET;
use crate::scheduler::waker::MAX_PES;
use crate::sim::Sim;
use crate::unawaited::{Policy, Unawaited};
use crate::warning::Listener;

/// The runtime's options, for a program's own help text.
pub const OPTIONS_HELP: &str = "\
  --pes N         PEs, that is threads of each process [default: all cores, shared by the processes of a host] [env: CHARE_PES]
  --device SPEC   auto, host:4, host:4@1,3,1,3:mem=1GiB, cuda:0, wgpu, ... [default: auto] [env: CHARE_DEVICE]
  --device-map MAP
                  Which device each PE uses: block, cyclic, or a list as 0,0,1,1 [default: block] [env: CHARE_DEVICE_MAP]
  --device-path PATH
                  How device memory goes to other processes: auto, staged, ipc, mpi; or, in one process, that all goes to other devices by one copy,
                  or to none: peer, same [default: auto] [env: CHARE_DEVICE_PATH]
  --device-timeout SECONDS
                  A kernel that runs longer is a fault, and its device counts as lost [default: no limit]
  --heartbeat SECONDS
                  Under `mpirun`, a process that gives no sign of life for so long is lost; 0 for never [default: 30]
  --unawaited WHAT
                  When an error is awaited by nobody: end the run, or report it and go on [default: end]
  --mailbox-budget N
                  Warn when more messages than that wait in one place; 0 for never [default: 1000000]
  --restart-coroutines SEED
                  Start coroutines again at sync points, at random, to try out whether they can be
  --sim SEED      Simulate: all PEs on one thread, in an order that the seed decides, by a virtual clock; SEED:processes=4:hosts=2:
                  latency=2us:bandwidth=10GB/s:calm models a cluster [env: CHARE_SIM]
  --ship-kernels FOLDER:CAPABILITY
                  Do nothing but compile all kernels for such GPUs (9.0), for machines without NVRTC [there: CHARE_KERNELS=FOLDER]
  --profile       At the end, print what each PE, each entry method and each device has done, and how long it took
  --quiet         Programs report no progress";

/// How to run: how many PEs, on which devices.
#[derive(Clone, Debug)]
pub struct Options {
    pes: usize,
    /// Whether the user has named their number.
    names_pes: bool,
    device: DeviceSpec,
    /// Whether the user has named a device, if only `auto`.
    names_device: bool,
    device_map: DeviceMap,
    device_path: Option<DevicePath>,
    ships_kernels: Option<(PathBuf, Capability)>,
    device_timeout: Option<Duration>,
    heartbeat: Option<Duration>,
    quiet: bool,
    profile: bool,
    mailbox_budget: usize,
    restarts: Option<u64>,
    simulation: Option<Sim>,
    pub(crate) unawaited: Policy,
    pub(crate) listener: Listener,
    args: Vec<String>,
}

/// An option that the runtime cannot use; one line that says what and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OptionsError(String);

impl OptionsError {
    pub(crate) fn too_many_pes(processes: usize, pes: usize) -> Self {
        OptionsError(format!(
            "--pes {pes}: {processes} processes have {} PEs, and a run has at most {MAX_PES}; give fewer",
            processes * pes
        ))
    }

    /// Between which processes or devices it was asked for, and why it is impossible.
    pub(crate) fn impossible_path(path: &str, between: &str, why: &str) -> Self {
        OptionsError(format!(
            "--device-path {path} is impossible {between}: {why}; give `staged`, or leave it out to have the best path for each"
        ))
    }

    /// A simulated run is one process, which simulates others.
    pub(crate) fn not_in_a_job() -> Self {
        OptionsError("--sim simulates processes by itself: run the program without `mpirun`".to_owned())
    }
}

impl Default for Options {
    fn default() -> Self {
        Options {
            pes: default_pes().min(MAX_PES),
            names_pes: false,
            device: DeviceSpec::default(),
            names_device: false,
            device_map: DeviceMap::default(),
            device_path: None,
            ships_kernels: None,
            device_timeout: None,
            heartbeat: Some(Duration::from_secs(30)),
            quiet: false,
            profile: false,
            mailbox_budget: DEFAULT_BUDGET,
            restarts: None,
            simulation: None,
            unawaited: Policy::Fixed(Unawaited::End),
            listener: Listener::default(),
            args: Vec::new(),
        }
    }
}

impl Options {
    /// Reads the options of this process: its command line, and its environment where that says nothing.
    ///
    /// # Errors
    /// If an option's value is missing or unusable, or an argument is not UTF-8.
    pub fn from_env() -> Result<Options, OptionsError> {
        let args = std::env::args_os().map(|arg| text("the argument", arg)).collect::<Result<Vec<_>, _>>()?;
        let env = |name| std::env::var_os(name).map(|value| text(name, value)).transpose();
        let names = ["CHARE_PES", "CHARE_DEVICE", "CHARE_DEVICE_MAP", "CHARE_DEVICE_PATH", "CHARE_SIM"];
        let values = names.into_iter().map(env).collect::<Result<Vec<_>, _>>()?;
        Options::parse(args, |wanted| {
            names.iter().zip(&values).find(|(name, _)| **name == wanted).and_then(|(_, value)| value.clone())
        })
    }

    /// Takes the runtime's options out of a command line (program name first); `env` looks up the environment. The
    /// rest is kept for the program. Everything after `--` belongs to the program.
    ///
    /// # Errors
    /// If an option's value is missing or unusable.
    pub fn parse(
        args: impl IntoIterator<Item = String>,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Options, OptionsError> {
        let mut options = Options::default();
        if let Some(value) = env("CHARE_PES") {
            (options.pes, options.names_pes) = (parse_pes("CHARE_PES", &value)?, true);
        }
        if let Some(value) = env("CHARE_DEVICE") {
            (options.device, options.names_device) = (parse_device("CHARE_DEVICE", &value)?, true);
        }
        if let Some(value) = env("CHARE_DEVICE_MAP") {
            options.device_map = parse_device_map("CHARE_DEVICE_MAP", &value)?;
        }
        if let Some(value) = env("CHARE_DEVICE_PATH") {
            options.device_path = parse_device_path("CHARE_DEVICE_PATH", &value)?;
        }
        if let Some(value) = env("CHARE_SIM") {
            options.simulation = Some(parse_simulation("CHARE_SIM", &value)?);
        }
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            if arg == "--" {
                options.args.push(arg);
                options.args.extend(args);
                break;
            }
            let (name, inline) = match arg.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (arg.as_str(), None),
            };
            let mut value = || inline.clone().or_else(|| args.next()).ok_or_else(|| missing_value(name));
            match name {
                "--pes" => (options.pes, options.names_pes) = (parse_pes("--pes", &value()?)?, true),
                "--device" => {
                    (options.device, options.names_device) = (parse_device("--device", &value()?)?, true);
                }
                "--device-map" => options.device_map = parse_device_map("--device-map", &value()?)?,
                "--device-path" => options.device_path = parse_device_path("--device-path", &value()?)?,
                "--ship-kernels" => options.ships_kernels = Some(parse_shipping(&value()?)?),
                "--device-timeout" => options.device_timeout = Some(parse_device_timeout(&value()?)?),
                "--heartbeat" => options.heartbeat = parse_heartbeat(&value()?)?,
                "--unawaited" => options.unawaited = Policy::Fixed(parse_unawaited(&value()?)?),
                "--mailbox-budget" => options.mailbox_budget = parse_budget(&value()?)?,
                "--restart-coroutines" => options.restarts = Some(parse_seed(&value()?)?),
                "--sim" => options.simulation = Some(parse_simulation("--sim", &value()?)?),
                "--profile" if inline.is_none() => options.profile = true,
                "--quiet" if inline.is_none() => options.quiet = true,
                _ => options.args.push(arg),
            }
        }
        Ok(options)
    }

    /// Runs on this many PEs.
    ///
    /// # Panics
    /// If `pes` is 0 or larger than 4096.
    #[track_caller]
    pub fn with_pes(mut self, pes: usize) -> Self {
        assert!((1..=MAX_PES).contains(&pes), "a runtime has 1 to {MAX_PES} PEs");
        (self.pes, self.names_pes) = (pes, true);
        self
    }

    /// Runs on these devices.
    pub fn with_device(mut self, device: DeviceSpec) -> Self {
        self.device = device;
        self
    }

    /// Binds PEs to devices in this way.
    pub fn with_device_map(mut self, map: DeviceMap) -> Self {
        self.device_map = map;
        self
    }

    /// Sends device memory to other processes by this path only, or by the best for each if it is none. If one of them cannot be reached by it
    /// the run does not start; nor does it with [`DevicePath::Same`] or [`DevicePath::Peer`], which are for one process, if two devices that its PEs use
    /// have another path to each other. What is for all PEs is staged all the same, and so is what this process has from another one.
    pub fn with_device_path(mut self, path: impl Into<Option<DevicePath>>) -> Self {
        self.device_path = path.into();
        self
    }

    /// Bounds the time of a kernel, also where the device specification has another limit; zero is no limit. A kernel that takes longer is
    /// a fault, and its device counts as lost (see [`DeviceSpec::with_time_limit`]).
    pub fn with_device_timeout(mut self, limit: Duration) -> Self {
        self.device_timeout = Some(limit);
        self
    }

    /// Whether the run takes a profile: what each PE, each entry method and each device does, and how long it takes. It is in
    /// [`crate::ExitReport::profile`]. Costs some 30 ns a message, some 300 ns a launch on inline host devices and less on others,
    /// and nothing if it is not asked for.
    pub fn with_profile(mut self, profile: bool) -> Self {
        self.profile = profile;
        self
    }

    /// Warns ([`crate::Warning::Mailbox`]) when more than this many messages wait in the queue of a PE, or are held for
    /// one chare or for a collection; 0 is for never, and 1,000,000 the default. A PE warns again when the number has
    /// doubled. The queue is looked at between messages: a method that sends more is warned of when it has returned.
    pub fn with_mailbox_budget(mut self, count: usize) -> Self {
        self.mailbox_budget = count;
        self
    }

    /// Starts coroutines of entries that are declared `#[entry(restart)]` again at their sync points
    /// ([`Cx::sync_point`](crate::Cx::sync_point)): at about every second one, at random from this seed. The results of
    /// a program must not change by it; that is what it is for.
    pub fn with_restarts(mut self, seed: u64) -> Self {
        self.restarts = Some(seed);
        self
    }

    /// Simulates the run: all PEs on the calling thread, by a virtual clock, in an order that a seed decides.
    pub fn simulate(mut self, sim: Sim) -> Self {
        self.simulation = Some(sim);
        self
    }

    /// What is simulated, if the run is not to be a real one.
    pub fn simulation(&self) -> Option<&Sim> {
        self.simulation.as_ref()
    }

    /// The seed by which coroutines are started again, if they are.
    pub fn restarts(&self) -> Option<u64> {
        self.restarts
    }

    /// The number of PEs.
    pub fn pes(&self) -> usize {
        self.pes
    }

    /// Whether somebody has said how many PEs there are to be.
    #[cfg_attr(not(feature = "mpi"), expect(dead_code, reason = "only processes of a job have to agree"))]
    pub(crate) fn names_pes(&self) -> bool {
        self.names_pes
    }

    /// The devices.
    pub fn device(&self) -> &DeviceSpec {
        &self.device
    }

    /// How PEs are bound to devices.
    pub fn device_map(&self) -> &DeviceMap {
        &self.device_map
    }

    /// How device memory goes to other processes; none for the best path for each.
    pub fn device_path(&self) -> Option<DevicePath> {
        self.device_path
    }

    /// Where to keep the kernels of the program, compiled for such GPUs, if that is all that is to be done.
    pub(crate) fn ships_kernels(&self) -> Option<(&Path, Capability)> {
        self.ships_kernels.as_ref().map(|(folder, capability)| (folder.as_path(), *capability))
    }

    /// Whether the user asks the program to choose devices, in so many words.
    pub(crate) fn asks_to_choose(&self) -> bool {
        self.names_device && self.device.is_auto()
    }

    /// The devices as they are opened.
    pub(crate) fn opened_device(&self) -> DeviceSpec {
        let spec = self.device.clone();
        let spec = if self.profile { spec.with_records() } else { spec };
        match self.device_timeout {
            Some(limit) => spec.with_time_limit(limit),
            None => spec,
        }
    }

    /// How long a process of a job may be silent before it is lost (`--heartbeat`); none for as long as it likes. At the start MPI has as long, and 10 s at
    /// least, to bring samples of device memory, if it may be used for that.
    pub fn heartbeat(&self) -> Option<Duration> {
        self.heartbeat
    }

    /// Whether programs are asked to report no progress.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Whether the run takes a profile.
    pub fn is_profiled(&self) -> bool {
        self.profile
    }

    /// How many messages may wait in one place before there is a warning; 0 for any number.
    pub fn mailbox_budget(&self) -> usize {
        self.mailbox_budget
    }

    /// The program's own arguments, its name first.
    pub fn args(&self) -> &[String] {
        &self.args
    }
}

/// What the system hands over, as text.
fn text(what: &str, value: OsString) -> Result<String, OptionsError> {
    value
        .into_string()
        .map_err(|value| OptionsError(format!("{what} {value:?} is not UTF-8; give it as UTF-8")))
}

fn missing_value(name: &str) -> OptionsError {
    OptionsError(format!("{name} needs a value: {name}=VALUE or {name} VALUE"))
}

fn parse_pes(name: &str, value: &str) -> Result<usize, OptionsError> {
    let pes: usize = value.parse().map_err(|_| {
        OptionsError(format!("{name} {value}: not a number; give the number of PEs, from 1 to {MAX_PES}"))
    })?;
    if (1..=MAX_PES).contains(&pes) {
        Ok(pes)
    } else {
        Err(OptionsError(format!(
            "{name} {value}: a run has from 1 to {MAX_PES} PEs; leave {name} out for one per core"
        )))
    }
}

fn parse_unawaited(value: &str) -> Result<Unawaited, OptionsError> {
    match value {
        "end" => Ok(Unawaited::End),
        "report" => Ok(Unawaited::Report),
        _ => Err(OptionsError(format!(
            "--unawaited {value}: give `end`, to end the run at the first error that nobody awaits, or `report`, to go on"
        ))),
    }
}

fn parse_seed(value: &str) -> Result<u64, OptionsError> {
    value.parse().map_err(|_| {
        OptionsError(format!("--restart-coroutines {value}: not a number; give any number from 0 as a seed"))
    })
}

fn parse_simulation(name: &str, value: &str) -> Result<Sim, OptionsError> {
    value.parse().map_err(|error| OptionsError(format!("{name} {value}: {error}")))
}

fn parse_budget(value: &str) -> Result<usize, OptionsError> {
    value.parse().map_err(|_| {
        OptionsError(format!(
            "--mailbox-budget {value}: not a number; give how many messages may wait in one place, or 0 for any number"
        ))
    })
}

fn parse_device_timeout(value: &str) -> Result<Duration, OptionsError> {
    let seconds = value.parse().ok().filter(|seconds: &f64| *seconds > 0.0 && *seconds <= 1e6);
    seconds.map(Duration::from_secs_f64).ok_or_else(|| {
        OptionsError(format!(
            "--device-timeout {value}: no time; give the seconds that a kernel may run, more than 0 and at most 1000000"
        ))
    })
}

fn parse_heartbeat(value: &str) -> Result<Option<Duration>, OptionsError> {
    let seconds = value.parse().ok().filter(|seconds: &f64| *seconds == 0.0 || (0.1..=1e6).contains(seconds));
    let seconds = seconds.ok_or_else(|| {
        OptionsError(format!(
            "--heartbeat {value}: no time; give the seconds for which a process may be silent, 0.1 to 1000000, or 0 for any time"
        ))
    })?;
    Ok(Some(Duration::from_secs_f64(seconds)).filter(|limit| !limit.is_zero()))
}

fn parse_device(name: &str, value: &str) -> Result<DeviceSpec, OptionsError> {
    value.parse().map_err(|error| OptionsError(format!("{name} {value}: {error}")))
}

fn parse_shipping(value: &str) -> Result<(PathBuf, Capability), OptionsError> {
    let error = |reason: &str| {
        OptionsError(format!("--ship-kernels {value}: {reason}; give both as in `kernels:9.0`"))
    };
    let (folder, capability) = value.rsplit_once(':').ok_or_else(|| error("there is no capability"))?;
    let capability = capability.parse().map_err(|mistake: CapabilityError| error(&mistake.to_string()))?;
    Ok((PathBuf::from(folder), capability))
}

/// None is for `auto`.
pub(crate) fn parse_device_path(name: &str, value: &str) -> Result<Option<DevicePath>, OptionsError> {
    let path = if value == "auto" { Ok(None) } else { value.parse().map(Some) };
    path.map_err(|error| {
        OptionsError(format!("{name} {value}: {error}, or `auto` for the best path to each"))
    })
}

fn parse_device_map(name: &str, value: &str) -> Result<DeviceMap, OptionsError> {
    value.parse().map_err(|error| OptionsError(format!("{name} {value}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, OptionsError> {
        Options::parse(line.split_whitespace().map(str::to_owned), |_| None)
    }

    #[test]
    fn takes_its_own_and_leaves_the_rest() {
        let waiting = parse("prog --mailbox-budget 7 --unawaited=report").unwrap();
        assert!(matches!(waiting.unawaited, Policy::Fixed(Unawaited::Report)));
        assert_eq!((waiting.mailbox_budget(), waiting.args().len()), (7, 1));
        let options = parse("prog --input f.npy --pes 3 --quiet --json --device=host:2").unwrap();
        assert_eq!((options.pes(), options.is_quiet()), (3, true));
        assert_eq!(options.args(), ["prog", "--input", "f.npy", "--json"]);
        assert_eq!(options.device(), &"host:2".parse().unwrap());
        assert!(!options.is_profiled() && parse("prog --profile").unwrap().is_profiled());
        assert_eq!(parse("prog --heartbeat 0").unwrap().heartbeat(), None);
        assert_eq!(parse("prog --heartbeat=2.5").unwrap().heartbeat(), Some(Duration::from_millis(2500)));
        assert_eq!(parse("prog -- --pes 3").unwrap().args(), ["prog", "--", "--pes", "3"]);
    }

    #[test]
    fn the_command_line_goes_before_the_environment() {
        let env = |name: &str| (name == "CHARE_PES").then(|| "5".to_owned());
        let args = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(Options::parse(args("prog"), env).unwrap().pes(), 5);
        assert_eq!(Options::parse(args("prog --pes 2"), env).unwrap().pes(), 2);
        let env = |name: &str| (name == "CHARE_DEVICE_PATH").then(|| "ipc".to_owned());
        assert_eq!(Options::parse(args("prog"), env).unwrap().device_path(), Some(DevicePath::Ipc));
        assert_eq!(Options::parse(args("prog --device-path=auto"), env).unwrap().device_path(), None);
        let staged = Options::parse(args("prog --device-path staged"), env).unwrap();
        assert_eq!(staged.device_path(), Some(DevicePath::Staged));
        let env = |name: &str| (name == "CHARE_SIM").then(|| "5:calm".to_owned());
        assert_eq!(Options::parse(args("prog"), env).unwrap().simulation(), Some(&Sim::new(5).calm()));
        assert_eq!(Options::parse(args("prog --sim 2"), env).unwrap().simulation(), Some(&Sim::new(2)));
    }

    #[cfg(unix)]
    #[test]
    fn what_is_not_utf8_is_named_in_one_line() {
        use std::os::unix::ffi::OsStringExt;
        let error =
            text("the argument", OsString::from_vec(b"/tmp/\xff\n.npy".to_vec())).unwrap_err().to_string();
        assert!(error.starts_with("the argument \"/tmp/\\xFF") && error.lines().count() == 1, "{error}");
        assert_eq!(text("CHARE_PES", "3".into()), Ok("3".to_owned()));
    }

    #[test]
    fn bad_values_are_named_with_a_remedy() {
        for (line, words) in [
            ("prog --pes 0", ["--pes 0", "from 1 to"]),
            ("prog --pes x", ["--pes x", "not a number"]),
            ("prog --pes -1", ["--pes -1", "not a number"]),
            ("prog --pes 99999", ["--pes 99999", "from 1 to"]),
            ("prog --pes", ["--pes needs a value", "--pes=VALUE"]),
            ("prog --unawaited ignore", ["--unawaited ignore", "`report`"]),
            ("prog --unawaited", ["--unawaited needs a value", "--unawaited=VALUE"]),
            ("prog --mailbox-budget -1", ["--mailbox-budget -1", "not a number"]),
            ("prog --device nonsense", ["--device nonsense", "host"]),
            ("prog --device-map 0,x", ["--device-map 0,x", "`cyclic`"]),
            ("prog --ship-kernels a", ["--ship-kernels a: there is no capability", "`kernels:9.0`"]),
            ("prog --ship-kernels a:sm_90", ["`sm_90` is no compute capability", "`kernels:9.0`"]),
            ("prog --sim x", ["--sim x", "give a number as seed"]),
            ("prog --sim 1:hosts=2", ["--sim 1:hosts=2", "`processes=2`"]),
            ("prog --sim", ["--sim needs a value", "--sim=VALUE"]),
            ("prog --device-timeout 0", ["--device-timeout 0", "more than 0"]),
            ("prog --device-timeout soon", ["--device-timeout soon", "the seconds"]),
            ("prog --device-timeout nan", ["--device-timeout nan", "the seconds"]),
            ("prog --device-timeout 1e9", ["--device-timeout 1e9", "at most 1000000"]),
            ("prog --heartbeat soon", ["--heartbeat soon", "0.1 to 1000000"]),
            ("prog --heartbeat 0.01", ["--heartbeat 0.01", "or 0 for any time"]),
            ("prog --device-timeout", ["--device-timeout needs a value", "--device-timeout=VALUE"]),
            ("prog --device host:timeout=0", ["`timeout=0`", "more than 0"]),
            ("prog --device-path mail", ["--device-path mail", "`peer`, `staged`, `ipc` or `mpi`"]),
            ("prog --device-path", ["--device-path needs a value", "--device-path=VALUE"]),
            ("prog --device-map", ["--device-map needs a value", "--device-map=VALUE"]),
            ("prog --device host:2@1e-300,1", ["--device host:2@1e-300,1", "at most 1000000 times as fast"]),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{line}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
}

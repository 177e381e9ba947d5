//! What a simulated run is like, as a program says it ([`Sim`]) or its user (`--sim 17:processes=4:latency=2us`).
//!
//! A specification that parses can be printed and parsed again to the same value: a failing run is replayed by its text.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chare_transport::Limits;

use crate::scheduler::waker::MAX_PES;

/// Steps after which a run that does not end is given up, if nothing else is said.
const MAX_STEPS: u64 = 50_000_000;

/// A simulated run: all PEs on the thread that calls [`Runtime::run`](crate::Runtime::run), by a clock of their own, and
/// in an order that the seed decides. The same seed makes the same run.
///
/// As text, `17` is the seed 17 with everything else as it is by default; what follows it, in any order, changes that:
///
/// | text | by default | means |
/// |---|---|---|
/// | `:processes=4` | 1 | the PEs are in as many virtual processes, in blocks; see [`with_processes`](Self::with_processes) |
/// | `:hosts=2` | 1 | and these on as many hosts |
/// | `:latency=2us` | 2us | how long a message takes between hosts |
/// | `:bandwidth=10GB/s` | 10GB/s | how fast bytes go from one host to another, in all |
/// | `:process-latency=500ns`, `:process-bandwidth=20GB/s` | 500ns, 20GB/s | the same from one process to another of its host |
/// | `:link-0-3=5us,1GB/s` | | the same between hosts 0 and 3, where that differs; for as many pairs of hosts as are given |
/// | `:pe-latency=100ns`, `:pe-bandwidth=0B/s` | 100ns, 0B/s | the same between PEs of one process; 0 is no limit |
/// | `:overhead=100ns` | 100ns | how long a PE takes for each message and each resume of a coroutine |
/// | `:calm` | | nothing is delayed at random: for modelled times |
/// | `:migrate=20` | never | after one step in so many, a chare of the PE moves, if it may |
/// | `:steps=1000000` | 50000000 | a run that takes more steps is given up |
/// | `:trace` | | each step is told on standard error |
///
/// ```
/// use chare::prelude::*;
/// use chare::{Options, Sim};
///
/// let options = Options::default().with_pes(4).simulate(Sim::new(17));
/// let report = Runtime::run(options, async |rt: Runtime| rt.sleep(std::time::Duration::from_secs(3600)).await)?;
/// let simulation = report.simulation().expect("it was simulated");
/// assert!(simulation.time.as_secs() == 3600 && report.is_success());
/// # Ok::<(), chare::StartError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sim {
    seed: u64,
    processes: usize,
    hosts: usize,
    network: Network,
    overhead: Duration,
    is_calm: bool,
    migrate_once_in: Option<usize>,
    max_steps: u64,
    is_traced: bool,
    limits: Limits,
}

/// How long messages take in a simulated run.
///
/// A message goes over one link, which it shares with others: from one process to another of its host over that of these two; from
/// one host to another over that of the two hosts, which all of their processes share. The two directions do not disturb each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Between PEs of one process.
    pub within_process: Link,
    /// Between processes of one host.
    pub between_processes: Link,
    /// Between hosts.
    pub between_hosts: Link,
    /// Between two hosts, lower number first, where that differs.
    pub pairs_of_hosts: BTreeMap<(usize, usize), Link>,
}

/// How long a message takes on one kind of way: its bytes go one after the other, and behind those of the messages that set out before
/// it and share the link; then the latency passes. Inside of a process no message waits for another one's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// How long the last byte is under way.
    pub latency: Duration,
    /// How many bytes go in a second; 0 for any number.
    pub bytes_per_s: u64,
}

impl Default for Network {
    fn default() -> Self {
        let link = |latency_ns, bytes_per_s| Link { latency: Duration::from_nanos(latency_ns), bytes_per_s };
        Network {
            within_process: link(100, 0),
            between_processes: link(500, 20_000_000_000),
            between_hosts: link(2000, 10_000_000_000),
            pairs_of_hosts: BTreeMap::new(),
        }
    }
}

impl Network {
    /// The way between two hosts.
    pub(super) fn between(&self, one: usize, other: usize) -> Link {
        let pair = (one.min(other), one.max(other));
        self.pairs_of_hosts.get(&pair).copied().unwrap_or(self.between_hosts)
    }
}

impl Link {
    /// How long so many bytes occupy it.
    pub(super) fn occupied_ns(&self, bytes: u64) -> u64 {
        let ns = u128::from(bytes) * 1_000_000_000;
        ns.checked_div(u128::from(self.bytes_per_s)).map_or(0, |ns| u64::try_from(ns).unwrap_or(u64::MAX))
    }
}

/// A text is no simulation; one line that says what and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SimError(String);

impl Sim {
    /// A run in the order of this seed, in one process.
    pub fn new(seed: u64) -> Self {
        Sim {
            seed,
            processes: 1,
            hosts: 1,
            network: Network::default(),
            overhead: Duration::from_nanos(100),
            is_calm: false,
            migrate_once_in: None,
            max_steps: MAX_STEPS,
            is_traced: false,
            limits: Limits::default(),
        }
    }

    /// The same with another seed.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The PEs are in so many virtual processes, the first ones in the first, and these on so many hosts. What is sent from process to process is
    /// encoded, as for a real one, and keeps its order from PE to PE only, as on a network.
    ///
    /// # Panics
    /// If a number is 0, or there are more hosts than processes.
    #[track_caller]
    pub fn with_processes(mut self, processes: usize, hosts: usize) -> Self {
        assert!(1 <= hosts && hosts <= processes, "a run has 1 host or more, and each has a process");
        (self.processes, self.hosts) = (processes, hosts);
        self
    }

    /// Messages take as long as this says.
    ///
    /// # Panics
    /// If a pair of hosts has not the lower number first.
    #[track_caller]
    pub fn with_network(mut self, network: Network) -> Self {
        for (one, other) in network.pairs_of_hosts.keys() {
            assert!(one < other, "hosts {one} and {other}: the lower number is the first of a pair");
        }
        self.network = network;
        self
    }

    /// A PE takes so long for each message and each resume of a coroutine, beside what [`Runtime::charge`](crate::Runtime::charge)
    /// adds.
    pub fn with_overhead(mut self, overhead: Duration) -> Self {
        self.overhead = overhead;
        self
    }

    /// Nothing is delayed, reordered or stalled at random, so that the time of the run is as the network says.
    pub fn calm(mut self) -> Self {
        self.is_calm = true;
        self
    }

    /// After one step in so many, at random, a chare of the PE moves to another PE, if it may.
    ///
    /// # Panics
    /// If `steps` is 0.
    #[track_caller]
    pub fn with_migrations(mut self, steps: usize) -> Self {
        assert!(steps > 0, "a chare moves after one step or more");
        self.migrate_once_in = Some(steps);
        self
    }

    /// A run that takes more steps than that is given up, as one that goes on for ever.
    pub fn with_max_steps(mut self, steps: u64) -> Self {
        self.max_steps = steps;
        self
    }

    /// Each step is told on standard error.
    pub fn traced(mut self) -> Self {
        self.is_traced = true;
        self
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// How many virtual processes there are.
    pub fn processes(&self) -> usize {
        self.processes
    }

    /// How many hosts there are.
    pub fn hosts(&self) -> usize {
        self.hosts
    }

    /// The host that a process is on.
    pub(crate) fn host_of(&self, process: usize) -> usize {
        process * self.hosts / self.processes
    }

    pub(super) fn network(&self) -> &Network {
        &self.network
    }

    pub(super) fn overhead_ns(&self) -> u64 {
        nanoseconds(self.overhead)
    }

    pub(super) fn is_calm(&self) -> bool {
        self.is_calm
    }

    pub(super) fn migrate_once_in(&self) -> Option<usize> {
        self.migrate_once_in
    }

    pub(super) fn max_steps(&self) -> u64 {
        self.max_steps
    }

    pub(super) fn is_traced(&self) -> bool {
        self.is_traced
    }

    /// What a message between processes must keep, as where they are joined by a transport.
    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    #[cfg(test)]
    pub(crate) fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Changes what `part` says, of the text behind the seed.
    fn set(&mut self, part: &str) -> Result<(), &'static str> {
        const TIME: &str = "give a time such as 500ns, 2us, 1.5ms or 1s";
        const RATE: &str = "give bytes per second such as 800MB/s or 12.5GB/s";
        let time = |text: &str| parse_time(text).ok_or(TIME);
        let rate = |text: &str| parse_rate(text).ok_or(RATE);
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let network = &mut self.network;
        match key {
            "processes" => {
                self.processes = parse_count(value).ok_or("give a number of processes, from 1 to 4096")?
            }
            "hosts" => self.hosts = parse_count(value).ok_or("give a number of hosts, from 1 to 4096")?,
            "latency" => network.between_hosts.latency = time(value)?,
            "bandwidth" => network.between_hosts.bytes_per_s = rate(value)?,
            "process-latency" => network.between_processes.latency = time(value)?,
            "process-bandwidth" => network.between_processes.bytes_per_s = rate(value)?,
            "pe-latency" => network.within_process.latency = time(value)?,
            "pe-bandwidth" => network.within_process.bytes_per_s = rate(value)?,
            _ if let Some(hosts) = key.strip_prefix("link-") => {
                let pair = parse_pair(hosts)
                    .ok_or("give two hosts, the lower number first, as in `link-0-3=5us,1GB/s`")?;
                let (latency, bandwidth) = value
                    .split_once(',')
                    .ok_or("give a time and bytes per second, as in `link-0-3=5us,1GB/s`")?;
                let link = Link { latency: time(latency)?, bytes_per_s: rate(bandwidth)? };
                network.pairs_of_hosts.insert(pair, link);
            }
            "overhead" => self.overhead = time(value)?,
            "migrate" => {
                let steps = value.parse().ok().filter(|&steps: &usize| steps > 0);
                self.migrate_once_in = Some(steps.ok_or("give one step in how many a chare moves after")?);
            }
            "steps" => self.max_steps = value.parse().map_err(|_| "give a number of steps")?,
            "calm" if part == key => self.is_calm = true,
            "trace" if part == key => self.is_traced = true,
            _ => {
                return Err(
                    "there is `processes=`, `hosts=`, `latency=`, `bandwidth=`, `process-latency=`, \
                            `process-bandwidth=`, `link-0-1=`, `pe-latency=`, `pe-bandwidth=`, `overhead=`, `migrate=`, `steps=`, `calm` and `trace`",
                );
            }
        }
        Ok(())
    }
}

impl FromStr for Sim {
    type Err = SimError;

    fn from_str(text: &str) -> Result<Self, SimError> {
        let mut parts = text.split(':');
        let seed = parts.next().and_then(|seed| seed.parse().ok());
        let seed =
            seed.ok_or_else(|| SimError("give a number as seed, as in `17` or `17:processes=4`".to_owned()))?;
        let mut sim = Sim::new(seed);
        for part in parts {
            sim.set(part).map_err(|remedy| SimError(format!("`{part}`: {remedy}")))?;
        }
        if sim.hosts > sim.processes {
            let Sim { processes, hosts, .. } = sim;
            return Err(SimError(format!(
                "`hosts={hosts}` with {processes} process(es): give `processes={hosts}` or more"
            )));
        }
        if let Some((one, other)) = sim.network.pairs_of_hosts.keys().find(|(_, other)| *other >= sim.hosts) {
            return Err(SimError(format!(
                "`link-{one}-{other}` with {} host(s): give `hosts={}` or more, or a link between others",
                sim.hosts,
                other + 1
            )));
        }
        Ok(sim)
    }
}

impl fmt::Display for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usual = Sim::new(self.seed);
        write!(f, "{}", self.seed)?;
        let mut part = |name: &str, own: String, usual: String| {
            if own == usual { Ok(()) } else { write!(f, ":{name}={own}") }
        };
        let time = |time: Duration| format!("{}ns", nanoseconds(time));
        let rate = |link: Link| format!("{}B/s", link.bytes_per_s);
        let (own, default) = (&self.network, &usual.network);
        part("processes", self.processes.to_string(), usual.processes.to_string())?;
        part("hosts", self.hosts.to_string(), usual.hosts.to_string())?;
        for (prefix, own, default) in [
            ("", own.between_hosts, default.between_hosts),
            ("process-", own.between_processes, default.between_processes),
            ("pe-", own.within_process, default.within_process),
        ] {
            part(&format!("{prefix}latency"), time(own.latency), time(default.latency))?;
            part(&format!("{prefix}bandwidth"), rate(own), rate(default))?;
        }
        // Hosts that there are not have no part in the run.
        for ((one, other), link) in own.pairs_of_hosts.iter().filter(|((_, other), _)| *other < self.hosts) {
            let text = format!("{},{}", time(link.latency), rate(*link));
            part(&format!("link-{one}-{other}"), text, String::new())?;
        }
        part("overhead", time(self.overhead), time(usual.overhead))?;
        part("steps", self.max_steps.to_string(), usual.max_steps.to_string())?;
        if let Some(steps) = self.migrate_once_in {
            write!(f, ":migrate={steps}")?;
        }
        f.write_str(if self.is_calm { ":calm" } else { "" })?;
        f.write_str(if self.is_traced { ":trace" } else { "" })
    }
}

/// Nanoseconds of a time; 584 years fit.
pub(super) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn parse_count(text: &str) -> Option<usize> {
    text.parse().ok().filter(|count| (1..=MAX_PES).contains(count))
}

/// The numbers of two hosts, the lower one first.
fn parse_pair(text: &str) -> Option<(usize, usize)> {
    let (one, other) = text.split_once('-')?;
    let pair = (one.parse().ok()?, other.parse().ok()?);
    (pair.0 < pair.1 && pair.1 < MAX_PES).then_some(pair)
}

/// A number and its unit, the first of `units` that fits. Whole numbers are exact: what is printed is parsed to the same.
fn parse_scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, scale) = units.iter().find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, *scale)))?;
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(scale);
    }
    let scaled = number.parse::<f64>().ok()? * scale as f64;
    (0.0..=1e18).contains(&scaled).then(|| scaled.round() as u64)
}

fn parse_time(text: &str) -> Option<Duration> {
    let units = [("ns", 1), ("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000)];
    parse_scaled(text, &units).map(Duration::from_nanos)
}

fn parse_rate(text: &str) -> Option<u64> {
    parse_scaled(text, &[("GB/s", 1_000_000_000), ("MB/s", 1_000_000), ("kB/s", 1_000), ("B/s", 1)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_survives_printing() {
        for text in [
            "17",
            "0:processes=4",
            "3:processes=4:hosts=2:latency=3000ns:bandwidth=1000B/s",
            "3:process-latency=0ns:process-bandwidth=0B/s:pe-latency=7ns:pe-bandwidth=9B/s:overhead=0ns",
            "18446744073709551615:steps=10:migrate=20:calm:trace",
            "1:processes=12:hosts=12:link-0-1=5000ns,7B/s:link-2-11=0ns,0B/s:overhead=1ns",
            "1:latency=18446744073709551615ns:bandwidth=18446744073709551615B/s",
        ] {
            assert_eq!(text.parse::<Sim>().map(|sim| sim.to_string()).as_deref(), Ok(text));
        }
        let units: Sim = "1:latency=1.5ms:bandwidth=12.5GB/s".parse().unwrap();
        assert_eq!(units.to_string(), "1:latency=1500000ns:bandwidth=12500000000B/s");
    }

    #[test]
    fn what_is_no_simulation_is_named_with_a_remedy() {
        for (text, words) in [
            ("", ["give a number as seed", "`17`"]),
            ("x:calm", ["give a number as seed", "`17`"]),
            ("1:processes=0", ["`processes=0`", "from 1"]),
            ("1:hosts=2", ["`hosts=2` with 1 process(es)", "`processes=2`"]),
            ("1:latency=2", ["`latency=2`", "2us"]),
            ("1:latency=-2us", ["`latency=-2us`", "2us"]),
            ("1:bandwidth=fast", ["`bandwidth=fast`", "GB/s"]),
            ("1:migrate=0", ["`migrate=0`", "one step in how many"]),
            ("1:processes=2:hosts=2:link-1-0=5us,1GB/s", ["`link-1-0=5us,1GB/s`", "the lower number first"]),
            ("1:processes=2:hosts=2:link-1-1=5us,1GB/s", ["`link-1-1=5us,1GB/s`", "the lower number first"]),
            ("1:processes=2:hosts=2:link-0=5us,1GB/s", ["`link-0=5us,1GB/s`", "`link-0-3=5us,1GB/s`"]),
            ("1:processes=2:hosts=2:link-0-1=5us", ["`link-0-1=5us`", "`link-0-3=5us,1GB/s`"]),
            ("1:processes=2:hosts=2:link-0-1=5us,1", ["`link-0-1=5us,1`", "GB/s"]),
            ("1:processes=2:hosts=2:link-0-1=5,1GB/s", ["`link-0-1=5,1GB/s`", "500ns"]),
            ("1:processes=2:hosts=2:link-0-2=5us,1GB/s", ["`link-0-2` with 2 host(s)", "`hosts=3`"]),
            ("1:calm=yes", ["`calm=yes`", "there is"]),
            ("1:speed=2", ["`speed=2`", "`processes=`"]),
        ] {
            let error = text.parse::<Sim>().unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{text}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn bytes_take_their_time() {
        let link = Link { latency: Duration::ZERO, bytes_per_s: 2_000_000_000 };
        assert_eq!((link.occupied_ns(0), link.occupied_ns(1000)), (0, 500));
        assert_eq!(Link { bytes_per_s: 0, ..link }.occupied_ns(u64::MAX), 0);
        assert_eq!(Link { bytes_per_s: 1, ..link }.occupied_ns(u64::MAX), u64::MAX);
    }

    #[test]
    fn two_hosts_may_be_nearer_to_each_other() {
        let near = Link { latency: Duration::from_nanos(1), bytes_per_s: 0 };
        let network = Network { pairs_of_hosts: BTreeMap::from([((1, 2), near)]), ..Network::default() };
        assert_eq!((network.between(2, 1), network.between(1, 2)), (near, near));
        assert_eq!(network.between(0, 1), network.between_hosts);
        let sim = Sim::new(1).with_processes(3, 3).with_network(network);
        assert_eq!(sim.to_string(), "1:processes=3:hosts=3:link-1-2=1ns,0B/s");
        assert_eq!(sim.to_string().parse(), Ok(sim.clone()));
        assert_eq!(sim.with_processes(2, 2).to_string(), "1:processes=2:hosts=2", "there is no host 2");
    }

    #[test]
    #[should_panic(expected = "hosts 2 and 1: the lower number is the first of a pair")]
    fn a_pair_of_hosts_has_one_order() {
        let pairs_of_hosts = BTreeMap::from([((2, 1), Network::default().between_hosts)]);
        let _ = Sim::new(1).with_network(Network { pairs_of_hosts, ..Network::default() });
    }
}

//! What a run has done, per PE and entry method: `--profile`, [`crate::Options::with_profile`].
//!
//! This file is what users get: plain numbers and the tables made of them. How they are taken is in `recorder`. Invariant:
//! on each PE every moment belongs to one entry, to the runtime or to idling, so the times add up to the PE's own.

mod across;
mod recorder;

use std::fmt;
use std::time::Duration;

use chare_device::{Device, Devices, Grid, KernelUsage, Usage};
use serde::{Deserialize, Serialize};

use crate::entry::EntryInfo;
use crate::ids::PeId;

pub(crate) use recorder::Recorder;

/// What a run has done, from [`crate::ExitReport::profile`]. Of a run in several processes, the report of rank 0 has that of all.
///
/// ```
/// use chare::prelude::*;
/// use chare::Options;
///
/// struct Adder(u64);
///
/// #[chare]
/// impl Adder {
///     fn new() -> Self {
///         Adder(0)
///     }
///
///     #[entry]
///     fn add(&mut self, amount: u64) {
///         self.0 += amount;
///     }
/// }
///
/// let options = Options::default().with_pes(2).with_profile(true);
/// let report = Runtime::run(options, async |rt: Runtime| {
///     let adder = rt.single::<Adder>().on_pe(1_usize).create(()).await?;
///     (0..10).for_each(|amount| adder.add(amount).send());
///     rt.quiescence().await?;
///     Result::<()>::Ok(())
/// })?;
/// let profile = report.profile().expect("it was asked for");
/// let add = profile.entry("Adder", "add").expect("it was called");
/// assert_eq!((add.calls, add.received.count, add.received.bytes), (10, 10, 80));
/// # Ok::<(), chare::StartError>(())
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Profile {
    /// Every PE, in order.
    pub pes: Vec<PeProfile>,
    /// Every device, in order.
    pub devices: Vec<DeviceProfile>,
}

/// What the chares have used one device for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeviceProfile {
    /// What messages call it; and before that the rank of its process, if that is not 0.
    pub name: String,
    /// The launches of all chares, their time, and what was copied.
    pub usage: Usage,
    /// Each kernel that was launched, the one with the most time first.
    pub kernels: Vec<KernelUsage>,
}

/// What one PE has done. `wall` is the sum of `idle`, `runtime` and the times of all entries.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PeProfile {
    /// The PE.
    pub pe: PeId,
    /// From its beginning until it stopped stepping. Destructors at the end of the run are not in it.
    pub wall: Duration,
    /// When there was nothing to do, looking for messages included.
    pub idle: Duration,
    /// The runtime's own: taking messages from other PEs, answers, broadcasts, reductions, timers, wakers.
    pub runtime: Duration,
    /// What was sent meanwhile, such as the result of a reduction to an entry.
    pub sent_by_runtime: Sent,
    /// Messages to other PEs: calls, and those of the runtime.
    pub to_other_pes: u64,
    /// Messages from other PEs and other threads.
    pub from_others: u64,
    /// What ran, the one with the most time first.
    pub entries: Vec<EntryProfile>,
}

/// What one entry method has done, on one PE or on all. Constructors are the entry `new`, destructors of chares `drop`, the
/// hook of a move is `migrated`, the program is `main`, and what waits in the name of a callback is `a callback`.
///
/// A *step* is what a method does at a time: a plain one runs in one step, a coroutine makes a step at its call and one
/// at each resume. A step is measured from the end of the one before it, so that it takes one reading of the clock, and
/// includes its delivery and its answer, some 20 ns. What it calls on its own stack (`#[entry(inline)]`, `#[entry(local)]`)
/// is a step of the method called and no part of this one. A look at the conditions of calls that wait is a part of the
/// step that may have changed the chare's state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EntryProfile {
    /// The method.
    #[serde(deserialize_with = "across::entry")]
    pub entry: &'static EntryInfo,
    /// How often it was called, by messages, by broadcasts and on the stack of its callers.
    pub calls: u64,
    /// How often it went on after a wait: its coroutines, and calls that were kept until their condition held.
    pub resumes: u64,
    /// The time of its steps.
    pub self_time: Duration,
    /// The longest step.
    pub longest_step: Duration,
    /// Calls that came by a message of their own; the others came by broadcasts, or ran on their caller's stack.
    pub received: Messages,
    /// Values that its steps have taken from channels.
    pub received_values: Messages,
    /// What its steps have sent.
    pub sent: Sent,
}

/// Messages, or values of channels, and the memory of what they carry.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Messages {
    /// How many.
    pub count: u64,
    /// The size of the arguments as they lie in the messages, or of the values, a `u64` 8 and a `Vec` 24. What they own
    /// elsewhere, such as a `Vec`'s elements, is not known and not counted.
    pub bytes: u64,
}

/// What was sent, to this PE and others.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Sent {
    /// Calls of one chare.
    pub calls: Messages,
    /// Values put into channels, those that wait for credit included.
    pub values: Messages,
    /// Broadcasts, each once however many elements it reaches.
    pub broadcasts: u64,
    /// Contributions to reductions.
    pub contributions: u64,
}

impl Messages {
    fn add(&mut self, other: Messages) {
        self.count += other.count;
        self.bytes += other.bytes;
    }
}

impl Sent {
    fn add(&mut self, other: Sent) {
        self.calls.add(other.calls);
        self.values.add(other.values);
        self.broadcasts += other.broadcasts;
        self.contributions += other.contributions;
    }
}

impl EntryProfile {
    fn new(entry: &'static EntryInfo) -> Self {
        EntryProfile {
            entry,
            calls: 0,
            resumes: 0,
            self_time: Duration::ZERO,
            longest_step: Duration::ZERO,
            received: Messages::default(),
            received_values: Messages::default(),
            sent: Sent::default(),
        }
    }

    fn add(&mut self, other: &EntryProfile) {
        self.calls += other.calls;
        self.resumes += other.resumes;
        self.self_time += other.self_time;
        self.longest_step = self.longest_step.max(other.longest_step);
        self.received.add(other.received);
        self.received_values.add(other.received_values);
        self.sent.add(other.sent);
    }

    /// The time of a step in the mean; zero if there were none.
    pub fn mean_step(&self) -> Duration {
        let steps = u128::from(self.calls + self.resumes);
        self.self_time
            .as_nanos()
            .checked_div(steps)
            .map_or(Duration::ZERO, |ns| Duration::from_nanos(ns as u64))
    }

    fn name(&self) -> String {
        let EntryInfo { chare, name, .. } = self.entry;
        if chare == name { (*name).to_owned() } else { format!("{chare}.{name}") }
    }
}

/// Adds up what is of the same entry, and sorts by time.
fn merged<'a>(entries: impl IntoIterator<Item = &'a EntryProfile>) -> Vec<EntryProfile> {
    let mut sums: Vec<EntryProfile> = Vec::new();
    for entry in entries {
        match sums.iter_mut().find(|sum| sum.entry == entry.entry) {
            Some(sum) => sum.add(entry),
            None => sums.push(entry.clone()),
        }
    }
    sums.sort_by(|a, b| b.self_time.cmp(&a.self_time).then_with(|| a.name().cmp(&b.name())));
    sums
}

impl PeProfile {
    /// An entry method by the names of its chare and its own; `None` if it did not run here.
    pub fn entry(&self, chare: &str, name: &str) -> Option<&EntryProfile> {
        self.entries.iter().find(|entry| entry.entry.chare == chare && entry.entry.name == name)
    }
}

impl Profile {
    /// `devices` have ended.
    pub(crate) fn new(mut pes: Vec<PeProfile>, devices: &Devices) -> Self {
        pes.sort_by_key(|profile| profile.pe);
        let of = |device: &Device| {
            let (name, usage, kernels) =
                (device.name().to_owned(), device.usage()?, device.usage_by_kernel()?);
            Some(DeviceProfile { name, usage, kernels })
        };
        Profile { pes, devices: devices.iter().filter_map(of).collect() }
    }

    /// Every entry method with the sums over all PEs, the one with the most time first.
    pub fn total(&self) -> Vec<EntryProfile> {
        merged(self.pes.iter().flat_map(|pe| &pe.entries))
    }

    /// The sums of one entry method, by the names of its chare and its own; `None` if it did not run.
    pub fn entry(&self, chare: &str, name: &str) -> Option<EntryProfile> {
        let entries = self.pes.iter().filter_map(|pe| pe.entry(chare, name));
        entries.cloned().reduce(|mut sum, entry| {
            sum.add(&entry);
            sum
        })
    }
}

/// A line of a table with so many columns, the name first.
type Line<const COLUMNS: usize> = [String; COLUMNS];

fn head() -> Line<16> {
    [
        "entry", "calls", "resumes", "self s", "mean us", "max us", "sent", "bytes", "received", "bytes",
        "ch sent", "bytes", "ch recvd", "bytes", "bcasts", "contribs",
    ]
    .map(str::to_owned)
}

fn line(entry: &EntryProfile) -> Line<16> {
    let Sent { calls, values, broadcasts, contributions } = entry.sent;
    [
        entry.name(),
        entry.calls.to_string(),
        entry.resumes.to_string(),
        seconds(entry.self_time),
        micros(entry.mean_step()),
        micros(entry.longest_step),
        calls.count.to_string(),
        calls.bytes.to_string(),
        entry.received.count.to_string(),
        entry.received.bytes.to_string(),
        values.count.to_string(),
        values.bytes.to_string(),
        entry.received_values.count.to_string(),
        entry.received_values.bytes.to_string(),
        broadcasts.to_string(),
        contributions.to_string(),
    ]
}

fn head_of_kernels() -> Line<7> {
    ["kernel", "launches", "elements", "largest grid", "device s", "mean us", "estimated s"]
        .map(str::to_owned)
}

fn line_of_kernel(usage: &KernelUsage) -> Line<7> {
    let Grid { x, y, z } = usage.largest;
    let mean_ns = usage.launch_time.as_nanos() as u64 / usage.launches.max(1);
    [
        usage.kernel.clone().into_owned(),
        usage.launches.to_string(),
        usage.elements.to_string(),
        format!("{x} x {y} x {z}"),
        seconds(usage.launch_time),
        micros(Duration::from_nanos(mean_ns)),
        seconds(usage.estimated_time),
    ]
}

fn seconds(time: Duration) -> String {
    format!("{:.6}", time.as_secs_f64())
}

fn micros(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1e6)
}

/// Writes a table whose columns are as wide as they need to be.
fn write_table<const COLUMNS: usize>(
    f: &mut fmt::Formatter<'_>,
    head: Line<COLUMNS>,
    lines: impl Iterator<Item = Line<COLUMNS>>,
) -> fmt::Result {
    let lines: Vec<Line<COLUMNS>> = std::iter::once(head).chain(lines).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
    let widths: [usize; COLUMNS] = std::array::from_fn(width);
    for line in &lines {
        write!(f, "\n  {:<width$}", line[0], width = widths[0])?;
        for (number, width) in line.iter().zip(&widths).skip(1) {
            write!(f, "  {number:>width$}")?;
        }
    }
    Ok(())
}

fn write_entries(f: &mut fmt::Formatter<'_>, entries: &[EntryProfile]) -> fmt::Result {
    write_table(f, head(), entries.iter().map(line))
}

fn write_device(f: &mut fmt::Formatter<'_>, device: &DeviceProfile) -> fmt::Result {
    let DeviceProfile { name, usage, kernels } = device;
    let estimated = match usage.estimated_time {
        Duration::ZERO => String::new(),
        time => format!(", {} of it estimated", seconds(time)),
    };
    write!(
        f,
        "\n{name}: {} launches took {} s, {} of it alone{estimated}; bytes copied: {} from the host, {} to the host, {} \
         from other devices, {} within",
        usage.launches,
        seconds(usage.launch_time),
        seconds(usage.alone_time),
        usage.from_host_bytes,
        usage.to_host_bytes,
        usage.from_peers_bytes,
        usage.within_bytes,
    )?;
    if kernels.is_empty() {
        return Ok(());
    }
    write_table(f, head_of_kernels(), kernels.iter().map(line_of_kernel))
}

impl fmt::Display for Profile {
    /// One table per PE, one of the sums, and a line per device, with a table of its kernels. Several lines, without an end of line at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "profile (ch: values of channels; bytes: of arguments and values themselves, not of what they own)"
        )?;
        for pe in &self.pes {
            let in_entries: Duration = pe.entries.iter().map(|entry| entry.self_time).sum();
            write!(
                f,
                "\nPE {}: {:.6} s = entries {:.6} + runtime {:.6} + idle {:.6}; {} messages to other PEs, {} from others",
                pe.pe,
                pe.wall.as_secs_f64(),
                in_entries.as_secs_f64(),
                pe.runtime.as_secs_f64(),
                pe.idle.as_secs_f64(),
                pe.to_other_pes,
                pe.from_others,
            )?;
            write_entries(f, &pe.entries)?;
        }
        write!(f, "\nall PEs:")?;
        write_entries(f, &self.total())?;
        self.devices.iter().try_for_each(|device| write_device(f, device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chare_device::HostMode;

    static SLOW: EntryInfo = EntryInfo { chare: "Block", name: "slow", file: "", line: 1 };
    static FAST: EntryInfo = EntryInfo { chare: "Block", name: "fast", file: "", line: 2 };
    static MAIN: EntryInfo = EntryInfo { chare: "main", name: "main", file: "", line: 0 };

    fn profile_of(pe: usize, entries: &[(&'static EntryInfo, u64)]) -> PeProfile {
        let entries = entries.iter().map(|&(entry, us)| EntryProfile {
            calls: us,
            self_time: Duration::from_micros(us),
            longest_step: Duration::from_micros(us / 2),
            received: Messages { count: us, bytes: 8 * us },
            received_values: Messages { count: 2 * us, bytes: 48 * us },
            sent: Sent { values: Messages { count: us, bytes: 16 * us }, ..Sent::default() },
            ..EntryProfile::new(entry)
        });
        PeProfile {
            pe: PeId::new(pe),
            wall: Duration::from_micros(100),
            idle: Duration::from_micros(10),
            runtime: Duration::from_micros(1),
            sent_by_runtime: Sent::default(),
            to_other_pes: 3,
            from_others: 4,
            entries: entries.collect(),
        }
    }

    fn two_pes() -> Profile {
        let pes = vec![profile_of(1, &[(&FAST, 4), (&SLOW, 40)]), profile_of(0, &[(&SLOW, 20), (&MAIN, 1)])];
        let spec: chare_device::DeviceSpec = "host:2".parse().expect("a specification");
        let devices = Devices::open(&spec.with_records(), HostMode::Inline).expect("the host is there");
        Profile::new(pes, &devices)
    }

    #[test]
    fn the_total_is_sorted_by_time() {
        let profile = two_pes();
        assert_eq!(profile.pes.iter().map(|pe| pe.pe.index()).collect::<Vec<_>>(), [0, 1]);
        let total = profile.total();
        assert_eq!(
            total.iter().map(EntryProfile::name).collect::<Vec<_>>(),
            ["Block.slow", "Block.fast", "main"]
        );
        let slow = &total[0];
        assert_eq!((slow.calls, slow.received), (60, Messages { count: 60, bytes: 480 }));
        assert_eq!(
            (slow.mean_step(), slow.longest_step),
            (Duration::from_micros(1), Duration::from_micros(20))
        );
        assert_eq!(profile.entry("Block", "slow").map(|slow| slow.calls), Some(60));
        assert!(profile.entry("Block", "none").is_none());
        assert_eq!(EntryProfile::new(&MAIN).mean_step(), Duration::ZERO);
    }

    #[test]
    fn the_table_has_a_line_for_each_entry_and_columns_of_one_width() {
        let text = two_pes().to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[1].starts_with("PE 0: 0.000100 s = entries 0.000021 + runtime 0.000001 + idle 0.000010")
        );
        assert_eq!(lines.len(), 1 + (1 + 3) + (1 + 3) + (1 + 4) + 2, "{text}");
        let (total, devices) = lines[lines.len() - 6..].split_at(4);
        let unused = "host:1: 0 launches took 0.000000 s, 0.000000 of it alone; bytes copied: 0 from the host, 0 to the \
                      host, 0 from other devices, 0 within";
        assert_eq!(devices[1], unused);
        assert!(total.iter().all(|line| line.len() == total[0].len()), "{text}");
        let cells: Vec<&str> = total[1].split_whitespace().collect();
        assert_eq!(
            cells,
            [
                "Block.slow",
                "60",
                "0",
                "0.000060",
                "1.00",
                "20.00",
                "0",
                "0",
                "60",
                "480",
                "60",
                "960",
                "120",
                "2880",
                "0",
                "0"
            ]
        );
    }
}

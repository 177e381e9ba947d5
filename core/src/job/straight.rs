//! Device memory that MPI sends from where it lies, and receives to memory of a device.
//!
//! A message with such memory waits in its lane (`staged`) until what writes the memory has ended, as one whose memory is lent does. Then the share goes to the
//! network as a buffer of its own kind, which keeps it until it has been sent. The receiver makes memory when the buffer is announced, on the first device
//! of the PE that the frame is for, and gets it with the frame; where there is no room it comes to the host's memory, as if it had been staged. No stream
//! and no kernel has the memory before the whole message is there (`device/src/arrival.rs`).
//!
//! Pinned memory of the host that copies from and to devices use (`pipeline`) is such a buffer too: all networks reach it, and it stays where it is.
//!
//! *Whether MPI reaches the devices* is tried before the run, by samples of four bytes. A library takes one way between processes of a host and another between
//! hosts, and it may reach some devices and not others. So each device that a process's PEs use sends a sample and gets one, by each of these two ways that there
//! is: the processes of a host are a ring, and the hosts are one, in which as many samples go from a host to the next as the larger one has processes, to
//! different ones as long as there are such ([`ways`]). So there are at most three times as many ways as processes, and where hosts have equally many each process sends
//! to two others, a sample for each device, however large the job is. A device goes by MPI only if it has sent and received by both ways, but not each pair of devices has
//! been tried: a library that reaches both ends has to find a way between them. All must have come, each with the contents that only it has: then all processes
//! use MPI, and otherwise none does, which all are told ([`paths`](super::paths)).
//!
//! *A library that does not bring them at all* leaves nothing to go on with: what follows a sample from the same process waits for it, and a call of MPI may not come
//! back, in all processes at once. So a thread beside ([`Patience`]) ends a process whose samples have not come after the time for which a process may be silent, and
//! says whose they are. The others end as they do when a process is lost.

use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use chare_device::{__Arrival as Arrival, __Come as Come, __Leaving as Leaving, HostVec};
use chare_transport::{Buffer, DeviceBuf, Driver, Facts, Frame, Host, Outbox, Progress, Rank, abort_after};
use rustc_hash::FxHashMap;

use super::{coming, taking};
use crate::binding::BoundDevices;
use crate::launch::{WORDS_WITHIN, say};
use crate::process::{Shared, lock};

/// A share as what the network sends; none if it has no place of its own.
pub(super) fn to_send(share: Leaving) -> Result<Buffer, Leaving> {
    let Some((start, len)) = share.place() else { return Err(share) };
    // SAFETY: what wrote the memory has ended, which the message has waited for; a share is not written, and lives as long as the buffer.
    Ok(unsafe { DeviceBuf::new(start, len, Box::new(share)) }.into())
}

/// Pinned memory of the host as what the network sends, or receives to. It is memory of devices too, for them.
pub(super) fn of_pinned(mut bytes: HostVec<u8>) -> DeviceBuf {
    let (start, len) = (NonNull::from(&mut *bytes).cast(), bytes.len());
    // SAFETY: it is there, and nobody else's, as long as the vector is in the box, which nobody looks into before the buffer has gone.
    unsafe { DeviceBuf::new(start, len, Box::new(bytes)) }
}

/// Memory to be received to.
fn to_receive(devices: &BoundDevices, ordinal: usize, len: usize) -> Option<DeviceBuf> {
    let arrival = devices.arrival(ordinal, len)?;
    // SAFETY: so many bytes are there as long as the arrival lives, and nobody else has them.
    Some(unsafe { DeviceBuf::new(arrival.address(), len, Box::new(arrival)) })
}

/// Memory for what is announced beside the header of a frame.
pub(super) fn make_room(shared: &Shared, header: &[u8], len: usize) -> Option<DeviceBuf> {
    if !shared.job()?.paths.sends() {
        return None;
    }
    // What cannot be read is refused when it has come.
    let to = taking::number_of(header).unwrap_or(0);
    to_receive(shared.devices(), coming::device_of(shared, to)?, len)
}

/// Who sends samples to whom. Of each process at least one other gets some, and it gets some of one: on its host, if it is not alone there, and on another
/// host, if there is one.
fn ways(facts: &Facts) -> Vec<(Rank, Rank)> {
    let hosts = facts.hosts();
    let mut ways = Vec::new();
    for (number, Host { ranks, .. }) in hosts.iter().enumerate() {
        let count = ranks.len();
        if count > 1 {
            ways.extend((0..count).map(|place| (ranks[place], ranks[(place + 1) % count])));
        }
        if hosts.len() > 1 {
            let next = &hosts[(number + 1) % hosts.len()].ranks;
            let between = 0..count.max(next.len());
            ways.extend(between.map(|place| (ranks[place % count], next[place % next.len()])));
        }
    }
    ways
}

/// The places of the devices that the samples of a way go from and to, where there are so many: each sends one, and each gets one.
fn pairs(from: usize, to: usize) -> impl ExactSizeIterator<Item = (usize, usize)> {
    (0..from.max(to)).map(move |number| (number % from, number % to))
}

/// Ends this process if samples do not come in time. Until it is dropped.
struct Patience {
    /// Whose have not come.
    missing: Arc<Mutex<Vec<Rank>>>,
    /// Nobody is sent anything: what counts is that it is dropped.
    _end: Sender<()>,
}

impl Patience {
    fn begin(own: Rank, senders: &[Rank], limit: Option<Duration>) -> Self {
        let (end, is_over) = mpsc::channel();
        let missing = Arc::new(Mutex::new(senders.to_vec()));
        if let Some(limit) = limit {
            let missing = missing.clone();
            let wait = move || {
                if is_over.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                    let missing = lock(&missing).clone();
                    if !missing.is_empty() {
                        abort_after(WORDS_WITHIN, move || say(&not_come(own, &missing, limit)));
                    }
                }
            };
            // Where there can be no thread, there is no limit.
            let _ = thread::Builder::new().name("samples".into()).spawn(wait);
        }
        Patience { missing, _end: end }
    }

    fn note_come(&self, from: Rank) {
        lock(&self.missing).retain(|rank| *rank != from);
    }
}

fn not_come(own: Rank, missing: &[Rank], limit: Duration) -> String {
    let ranks = missing.iter().map(|rank| rank.0.to_string()).collect::<Vec<_>>().join(", ");
    let whose = if missing.len() == 1 { "rank" } else { "ranks" };
    format!(
        "error: MPI has not brought {own} the samples of device memory of {whose} {ranks} within {} s; give `--device-path staged`, and it need not",
        limit.as_secs_f64()
    )
}

/// Sends samples of the devices of this process, and receives those of others: all processes do so at once, and have sent nothing else. `counts` says of how many
/// devices each has them. Why one has not come, if that is so. Who waits for one longer than `patience` ends.
pub(super) fn exchange(
    outbox: &Outbox,
    driver: &mut Driver,
    devices: &BoundDevices,
    counts: &[usize],
    patience: Option<Duration>,
) -> Result<(), String> {
    let (own, used, ways) = (outbox.facts().rank(), devices.used(), ways(outbox.facts()));
    let pairs = |from: Rank, to: Rank| pairs(counts[from.index()], counts[to.index()]);
    let senders: Vec<Rank> = ways.iter().filter(|(_, to)| *to == own).map(|(from, _)| *from).collect();
    let room = |(_, place): (usize, usize)| to_receive(devices, used[place], size_of::<u32>());
    let rooms_for = |from: Rank| pairs(from, own).map(room).collect::<VecDeque<_>>();
    let mut rooms: FxHashMap<Rank, VecDeque<_>> =
        senders.iter().map(|from| (*from, rooms_for(*from))).collect();
    driver.set_device_memory(move |from, _, _| rooms.get_mut(&from)?.pop_front()?);
    let patience = Patience::begin(own, &senders, patience);
    let mut outcome = Ok(());
    for (_, to) in ways.iter().filter(|(from, _)| *from == own) {
        let mut buffers = Vec::new();
        for (number, (place, _)) in pairs(own, *to).enumerate() {
            match devices.sample_of(used[place], word(own, *to, number)) {
                Ok(sample) => buffers.extend(to_send(sample)),
                Err(why) => outcome = Err(why),
            }
        }
        // The other one is told in any case, and waits for it.
        if outbox.send(*to, Frame { header: &[], buffers }).is_err() {
            return Err("the transport is closed".to_owned());
        }
    }
    let mut came = FxHashMap::default();
    while came.len() < senders.len() {
        let progress = driver.poll(&mut |from, frame| {
            patience.note_come(from);
            came.insert(from, frame.buffers);
        });
        if progress.map_err(|error| error.to_string())? != Progress::Busy {
            thread::yield_now();
        }
    }
    drop(patience);
    outcome?;
    senders.into_iter().try_for_each(|from| {
        let samples = came.remove(&from).unwrap_or_default();
        if samples.len() < pairs(from, own).len() {
            return Err(format!("no sample of rank {} came", from.0));
        }
        let mut all = samples.into_iter().enumerate();
        all.try_for_each(|(number, sample)| compare(devices, sample, word(from, own, number)))
            .map_err(|why| format!("a sample of rank {} came {why}", from.0))
    })
}

/// How a sample has come, if not as it should.
fn compare(devices: &BoundDevices, sample: Buffer, word: u32) -> Result<(), String> {
    let Buffer::Device(memory) = sample else { return Err("to the host's memory".to_owned()) };
    let arrival = memory.into_owner().downcast::<Arrival>().map_err(|_| "to other memory")?;
    let found =
        devices.word_of(Come::arrived(*arrival)).map_err(|why| format!("and cannot be read: {why}"))?;
    if found == word { Ok(()) } else { Err("with other contents".to_owned()) }
}

/// What a sample holds, another for each: what is left in memory must not pass.
fn word(from: Rank, to: Rank, number: usize) -> u32 {
    let way = (from.0 << 16 ^ to.0).wrapping_mul(0x9E37_79B1);
    way ^ (number as u32 + 1).wrapping_mul(0x85EB_CA6B)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::BTreeSet;

    use chare_transport::{Identity, Limits, local};

    use super::*;
    use crate::job::staged::Instead;
    use crate::job::{INSTEAD, PACKED};
    use crate::wire::Encoder;

    /// The facts of processes on these hosts.
    fn facts(hosts: &[usize]) -> Facts {
        let identity = |host: &usize| Identity::new(7, "a test").on_host(format!("host {host}"));
        let identities: Vec<_> = hosts.iter().map(identity).collect();
        let processes = local::connect(&identities, &Limits::default()).expect("they are alike");
        processes[0].outbox.facts().clone()
    }

    #[test]
    fn each_process_sends_and_gets_samples_on_its_host_and_between_hosts() {
        let uneven = [vec![0; 40], vec![1], vec![2; 3]].concat();
        let scattered = (0..60).map(|rank| rank * rank % 7).collect();
        for hosts in [vec![0, 0], vec![0, 1], vec![0; 5], vec![0, 1, 2, 3], vec![0, 1, 0], uneven, scattered]
        {
            let facts = facts(&hosts);
            let ways = ways(&facts);
            assert_eq!(ways.iter().collect::<BTreeSet<_>>().len(), ways.len(), "none twice: {ways:?}");
            assert!(ways.iter().all(|(from, to)| from != to) && ways.len() <= 3 * hosts.len(), "{ways:?}");
            let is_near = |(from, to): &(Rank, Rank)| hosts[from.index()] == hosts[to.index()];
            let (near, far): (Vec<(Rank, Rank)>, Vec<_>) = ways.iter().copied().partition(is_near);
            for rank in (0..hosts.len()).map(|rank| Rank(rank as u32)) {
                let has_near = facts.host_of(rank).is_some_and(|host| host.ranks.len() > 1);
                for (ways, exist) in [(&near, has_near), (&far, facts.hosts().len() > 1)] {
                    assert_eq!(ways.iter().any(|way| way.0 == rank), exist, "{rank} sends: {ways:?}");
                    assert_eq!(ways.iter().any(|way| way.1 == rank), exist, "{rank} gets: {ways:?}");
                }
            }
        }
    }

    #[test]
    fn whom_a_frame_is_for_is_known_from_its_header() {
        let instead = vec![(1_usize, Instead::Pieces { id: 7, spoiled: None })];
        for (is_packed, has_instead) in [(false, false), (true, false), (false, true), (true, true)] {
            let mut encoder = Encoder::default();
            if is_packed {
                encoder.put_u32(PACKED);
                encoder.put_own(&vec![(3_usize, 1_usize), (8, 8)]);
            }
            if has_instead {
                encoder.put_u32(INSTEAD);
                encoder.put_own(&instead);
            }
            encoder.put_u32(5);
            encoder.put_u32(6);
            assert_eq!(taking::number_of(&encoder.bytes).ok(), Some(5), "{is_packed} {has_instead}");
        }
        assert!(taking::number_of(&PACKED.to_le_bytes()).is_err());
    }

    #[test]
    fn each_device_of_a_way_sends_and_gets_a_sample() {
        for (from, to) in [(1, 1), (1, 4), (4, 1), (3, 2), (8, 8)] {
            let (sending, getting): (BTreeSet<_>, BTreeSet<_>) = pairs(from, to).unzip();
            assert_eq!((sending.len(), getting.len()), (from, to));
        }
    }
}

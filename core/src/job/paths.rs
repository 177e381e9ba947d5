//! Which path device memory takes to each other process: what all find out about each other before the run, and what they choose.
//!
//! Each process tells all what devices it has, and samples of the memory of those that its PEs use. Each tries the samples of those on
//! its host, and tells all how that went. Where all say that MPI may reach their devices, it sends samples around, and all tell what came. So all know the
//! same, choose alike, and refuse alike what is not possible.
//!
//! Invariant: nothing has been sent before, and all samples live until all have tried them, and have closed what they had opened for that: the second
//! telling waits for all.

use std::time::Duration;

use chare_device::{__Leaving as Leaving, __Offer as Offer, __Reach as Reach, __Sample as Sample};
use chare_transport::{ConnectError, Driver, Facts, Outbox, Rank};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::straight;
use crate::binding::BoundDevices;
use crate::device_path::{Chosen, DevicePath, Way, choose};
use crate::options::{Options, OptionsError};
use crate::runtime::StartError;

/// How long samples may take at least.
const LEAST_PATIENCE: Duration = Duration::from_secs(10);

/// What a process tells all others first.
#[derive(Serialize, Deserialize)]
struct Said {
    /// Why it has no part in the run.
    declines: Option<String>,
    wanted: Option<DevicePath>,
    uuids: Vec<String>,
    /// Of the devices that its PEs use; or why it lends none.
    samples: Result<Vec<(Offer, u32)>, String>,
    /// How many devices it lets MPI try, which its PEs use; or why none.
    straight: Result<usize, String>,
}

/// What it tells then: those of its host whose memory it has tried, in order, and why it cannot use it.
type Tried = Vec<(u32, Result<(), String>)>;

/// The paths from this process.
pub(crate) struct Paths {
    /// By rank.
    to: Vec<Target>,
    /// Whether MPI sends and receives device memory by address, from and to all processes.
    sends: bool,
}

struct Target {
    chosen: Chosen,
    /// The devices that it has open.
    uuids: Vec<String>,
}

/// What all have told.
struct Known<'a> {
    facts: &'a Facts,
    /// By rank. Nothing, if all processes are parts of one process of the system.
    told: Option<(Vec<Said>, Vec<Tried>)>,
    /// Whether MPI has sent samples from and to all devices; or what has gone wrong where.
    straight: Result<(), String>,
}

impl Known<'_> {
    fn opens(&self, from: Rank, to: Rank) -> Result<(), &str> {
        let Some((said, tried)) = &self.told else {
            return Err("both are parts of one process, which cannot open its own memory");
        };
        if self.facts.host_index_of(from) != self.facts.host_index_of(to) {
            return Err("they are on different hosts");
        }
        said[from.index()].samples.as_ref().map_err(|why| &**why)?;
        let tried = &tried[to.index()];
        match tried.binary_search_by_key(&from.0, |(rank, _)| *rank) {
            Ok(place) => tried[place].1.as_ref().copied().map_err(|why| &**why),
            Err(_) => Err("it has not been tried"),
        }
    }

    fn choose(&self, wanted: Option<DevicePath>, from: Rank, to: Rank) -> Result<Chosen, OptionsError> {
        let sends = self.straight.as_ref().copied().map_err(|why| &**why);
        choose(wanted, Way { opens: self.opens(from, to), sends }).map_err(|why| {
            let path = wanted.map_or_else(|| "auto".to_owned(), |path| path.to_string());
            OptionsError::impossible_path(&path, &format!("from {from} to {to}"), &why)
        })
    }
}

impl Paths {
    /// Finds out. All processes do so together, before anything else is sent; those without devices too.
    ///
    /// # Errors
    /// If a process wants a path that there is not; the same in all. If the transport has failed.
    pub(crate) fn find(
        outbox: &Outbox,
        driver: &mut Driver,
        devices: Option<&BoundDevices>,
        options: &Options,
    ) -> Result<Paths, StartError> {
        let wanted = options.device_path();
        let facts = driver.facts().clone();
        let samples = match wanted {
            Some(DevicePath::Same | DevicePath::Peer | DevicePath::Staged | DevicePath::Mpi) => {
                Err("it is to go another way".to_owned())
            }
            None | Some(DevicePath::Ipc) => samples(&facts, devices),
        };
        let uuids = devices.map(|devices| devices.iter().map(|device| device.uuid().to_owned()).collect());
        let told = |samples: &Vec<Sample>| samples.iter().map(Sample::told).collect();
        let said = Said {
            declines: None,
            wanted,
            uuids: uuids.unwrap_or_default(),
            samples: samples.as_ref().map(told).map_err(Clone::clone),
            straight: may_try(driver, devices, wanted),
        };
        let told = match tell(driver, &said)? {
            None => None,
            Some(all) => {
                if let Some((rank, why)) =
                    all.iter().enumerate().find_map(|(rank, said)| Some((rank, said.declines.as_ref()?)))
                {
                    let text = format!("rank {rank} does not start: {why}");
                    return Err(StartError::Processes(ConnectError::Network(text)));
                }
                let tried = tell(driver, &try_all(&facts, devices, &all))?;
                Some((all, tried.unwrap_or_default()))
            }
        };
        drop(samples);
        let straight = match (&told, devices) {
            (Some((all, _)), Some(devices)) => {
                // As long as a process may be silent at the start: devices, and what the library needs for them, have to be set up.
                let patience = options.heartbeat().map(|limit| limit.max(LEAST_PATIENCE));
                try_straight(outbox, driver, devices, all, patience)?
            }
            _ => Err("there is no network".to_owned()),
        };
        let known = Known { facts: &facts, told, straight };
        let all = || (0..facts.size() as u32).map(Rank);
        for from in all() {
            let wanted = known.told.as_ref().map_or(wanted, |(said, _)| said[from.index()].wanted);
            for to in all().filter(|to| *to != from && wanted.is_some()) {
                known.choose(wanted, from, to)?;
            }
        }
        let own = facts.rank();
        let target = |to: Rank| {
            let uuids = known.told.as_ref().map_or_else(Vec::new, |(said, _)| said[to.index()].uuids.clone());
            // Nobody takes the one to itself.
            let wanted = wanted.filter(|_| to != own);
            Ok(Target { chosen: known.choose(wanted, own, to)?, uuids })
        };
        let sends = known.straight.is_ok();
        Ok(Paths { sends, to: all().map(target).collect::<Result<_, OptionsError>>()? })
    }

    /// How memory goes to another process.
    pub(super) fn of(&self, to: Rank, leaving: &Leaving) -> DevicePath {
        let Target { chosen, uuids } = &self.to[to.index()];
        let is_open = || uuids.iter().any(|uuid| uuid == leaving.uuid());
        match chosen.path {
            // Nothing is there to be opened, or the other one has not got the device.
            DevicePath::Ipc if leaving.is_empty() || !is_open() => DevicePath::Staged,
            path => path,
        }
    }

    /// Whether MPI may bring device memory.
    pub(super) fn sends(&self) -> bool {
        self.sends
    }

    /// For people: the other ranks, the path to them, and why.
    #[cfg(feature = "mpi")]
    pub(crate) fn lines(&self, own: Rank) -> Vec<String> {
        let mut lines: Vec<(&Chosen, Vec<String>)> = Vec::new();
        for (rank, Target { chosen, .. }) in self.to.iter().enumerate().filter(|to| to.0 != own.index()) {
            match lines.iter_mut().find(|line| line.0 == chosen) {
                Some((_, ranks)) => ranks.push(rank.to_string()),
                None => lines.push((chosen, vec![rank.to_string()])),
            }
        }
        let line = |(Chosen { path, reason }, ranks): (&Chosen, Vec<String>)| {
            let rank = if ranks.len() == 1 { "rank" } else { "ranks" };
            format!("{rank} {}    {path}: {reason}", ranks.join(", "))
        };
        lines.into_iter().map(line).collect()
    }
}

/// Tells all others that this process has no part in the run, and why. They end as it does.
pub(super) fn decline(mut driver: Driver, why: &str) {
    let said = Said {
        declines: Some(why.to_owned()),
        wanted: None,
        uuids: Vec::new(),
        samples: Err(why.to_owned()),
        straight: Err(why.to_owned()),
    };
    // Where nothing is gathered, the others poll, and see that it has gone.
    if let Ok(Some(_)) = tell(&mut driver, &said) {
        super::leave(driver);
    }
}

/// Whether MPI may be given addresses of the devices, to try them: one that knows nothing of a device would take them for the host's, so it
/// must say that it does, or the user.
fn may_try(
    driver: &Driver,
    devices: Option<&BoundDevices>,
    wanted: Option<DevicePath>,
) -> Result<usize, String> {
    let devices = devices.ok_or("its devices cannot be opened")?;
    match (wanted, devices.reach()) {
        (Some(DevicePath::Same | DevicePath::Peer | DevicePath::Staged | DevicePath::Ipc), _) => {
            return Err("it is to go another way".to_owned());
        }
        (_, None) => return Err("the memory of the devices has no addresses".to_owned()),
        (Some(DevicePath::Mpi), Some(_)) => {}
        (None, Some(Reach::Host)) => return Err("the memory of the devices is the host's".to_owned()),
        (None, Some(Reach::Cuda)) => driver.reaches_cuda()?,
    }
    match devices.used().len() {
        0 => Err("its PEs use no device".to_owned()),
        count => Ok(count),
    }
}

/// Has MPI send samples, if all processes let it.
fn try_straight(
    outbox: &Outbox,
    driver: &mut Driver,
    devices: &BoundDevices,
    all: &[Said],
    patience: Option<Duration>,
) -> Result<Result<(), String>, StartError> {
    let count =
        |(rank, said): (usize, &Said)| said.straight.as_ref().copied().map_err(|why| of_rank(rank, why));
    let counts: Vec<usize> = match all.iter().enumerate().map(count).collect() {
        Ok(counts) => counts,
        Err(why) => return Ok(Err(why)),
    };
    let own = straight::exchange(outbox, driver, devices, &counts, patience);
    let all = tell(driver, &own)?.unwrap_or_default();
    let failure =
        |(rank, outcome): (usize, &Result<(), String>)| Some(of_rank(rank, outcome.as_ref().err()?));
    Ok(all.iter().enumerate().find_map(failure).map_or(Ok(()), Err))
}

fn of_rank(rank: usize, why: &str) -> String {
    format!("{why} (rank {rank})")
}

/// Samples of the devices that the PEs use, if somebody else is on this host.
fn samples(facts: &Facts, devices: Option<&BoundDevices>) -> Result<Vec<Sample>, String> {
    let devices = devices.ok_or("its devices cannot be opened")?;
    if facts.host_of(facts.rank()).is_none_or(|host| host.ranks.len() == 1) {
        return Err("it is alone on its host".to_owned());
    }
    devices.used().into_iter().map(|ordinal| devices.sample(ordinal)).collect()
}

/// Tries the samples of all others of this host.
fn try_all(facts: &Facts, devices: Option<&BoundDevices>, all: &[Said]) -> Tried {
    let own = facts.rank();
    let others = facts.host_of(own).into_iter().flat_map(|host| &host.ranks).filter(|rank| **rank != own);
    let attempt = |rank: &Rank| {
        let Ok(samples) = &all[rank.index()].samples else { return None };
        let devices = devices.ok_or_else(|| "its devices cannot be opened".to_owned());
        let outcome = devices
            .and_then(|devices| samples.iter().try_for_each(|sample| devices.try_sample(sample)))
            .map_err(|why| format!("the other process cannot use a sample of it: {why}"));
        Some((rank.0, outcome))
    };
    others.filter_map(attempt).collect()
}

/// Tells all processes something, and is told it by all.
fn tell<T: Serialize + DeserializeOwned>(driver: &mut Driver, own: &T) -> Result<Option<Vec<T>>, StartError> {
    let own = postcard::to_allocvec(own).expect("names and numbers can be encoded");
    let Some(all) = driver.gather(&own)? else { return Ok(None) };
    let read = |(rank, bytes): (usize, &Vec<u8>)| {
        postcard::from_bytes(bytes).map_err(|error| {
            let text = format!("rank {rank} has told of its devices what cannot be read: {error}");
            StartError::Processes(ConnectError::Network(text))
        })
    };
    all.iter().enumerate().map(read).collect::<Result<_, _>>().map(Some)
}

//! Which path device memory takes to each other process: what all find out about each other before the run, and what they choose.
//!
//! Each process tells all what devices it has, and samples of the memory of those that its PEs use. Each tries the samples of those on
//! its host, and tells all how that went. So all know the same, choose alike, and refuse alike what is not possible.
//!
//! Invariant: nothing has been sent before, and all samples live until all have tried them, and have closed what they had opened for that: the second
//! telling waits for all.

use chare_device::{__Leaving as Leaving, __Offer as Offer, __Sample as Sample};
use chare_transport::{ConnectError, Driver, Facts, Rank};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::binding::BoundDevices;
use crate::device_path::{Chosen, DevicePath, Way, choose};
use crate::options::OptionsError;
use crate::runtime::StartError;

/// What a process tells all others first.
#[derive(Serialize, Deserialize)]
struct Said {
    wanted: Option<DevicePath>,
    uuids: Vec<String>,
    /// Of the devices that its PEs use; or why it lends none.
    samples: Result<Vec<(Offer, u32)>, String>,
}

/// What it tells then: those of its host whose memory it has tried, in order, and why it cannot use it.
type Tried = Vec<(u32, Result<(), String>)>;

/// The paths from this process.
pub(crate) struct Paths {
    /// By rank.
    to: Vec<Target>,
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
        choose(wanted, Way { opens: self.opens(from, to) }).map_err(|why| {
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
        driver: &mut Driver,
        devices: Option<&BoundDevices>,
        wanted: Option<DevicePath>,
    ) -> Result<Paths, StartError> {
        let facts = driver.facts().clone();
        let samples = match wanted {
            Some(DevicePath::Staged) => Err("it is to be staged".to_owned()),
            None | Some(DevicePath::Ipc) => samples(&facts, devices),
        };
        let uuids = devices.map(|devices| devices.iter().map(|device| device.uuid().to_owned()).collect());
        let told = |samples: &Vec<Sample>| samples.iter().map(Sample::told).collect();
        let said = Said {
            wanted,
            uuids: uuids.unwrap_or_default(),
            samples: samples.as_ref().map(told).map_err(Clone::clone),
        };
        let told = match tell(driver, &said)? {
            None => None,
            Some(all) => {
                let tried = tell(driver, &try_all(&facts, devices, &all))?;
                Some((all, tried.unwrap_or_default()))
            }
        };
        drop(samples);
        let known = Known { facts: &facts, told };
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
        Ok(Paths { to: all().map(target).collect::<Result<_, OptionsError>>()? })
    }

    /// Whether memory goes to another process by being lent.
    pub(super) fn lends(&self, to: Rank, leaving: &Leaving) -> bool {
        let Target { chosen, uuids } = &self.to[to.index()];
        chosen.path == DevicePath::Ipc
            && !leaving.is_empty()
            && uuids.iter().any(|uuid| uuid == leaving.uuid())
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

/// Samples of the devices that the PEs use, if somebody else is on this host.
fn samples(facts: &Facts, devices: Option<&BoundDevices>) -> Result<Vec<Sample>, String> {
    let devices = devices.ok_or("its devices cannot be opened")?;
    if facts.host_of(facts.rank()).is_none_or(|host| host.ranks.len() == 1) {
        return Err("it is alone on its host".to_owned());
    }
    let mut ordinals = devices.by_pe().concat();
    ordinals.sort_unstable();
    ordinals.dedup();
    ordinals.into_iter().map(|ordinal| devices.sample(ordinal)).collect()
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

//! Which devices the chares of a PE use.
//!
//! Each PE is bound to the devices of its own: one where there are at least as many PEs as devices, else some that no other PE
//! has. The binding is a pure function of how many PEs there are, on this process and beside it on the machine, of what
//! the devices say of themselves, and of `--device-map`. A chare gets its device when it first asks. When it has moved to a PE with other
//! devices it goes to one of these, so that a device is used by PEs that are near it and load that moves moves off its device too; unless
//! it has chosen its device itself, or what it holds does not fit. It holds an account and buffers, which know by themselves how to follow
//! (`Account::move_to`), so nothing of its own is touched.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use chare_device::{Account, Cpus, Device, DeviceError, Devices, Vitals};

use crate::cell::{ChareRef, Extra};
use crate::chares::{Chare, Cx};
use crate::current;
use crate::device_path::DevicePath;
use crate::ids::ChareId;
use crate::options::OptionsError;
use crate::scheduler::pe::Pe;
use crate::warning::Warning;

/// How PEs are bound to devices.
///
/// PEs are counted over all processes of the machine that were started together (by `mpirun` or `srun`), and devices come in the
/// order of their UUIDs then, so that all these processes agree. Such a process uses only devices near the processors that
/// it may run on, as far as NVML tells, if there are any.
///
/// All these processes are taken to see the same devices. The exception is known from what Slurm says: if `srun` shows a process
/// only a part of the GPUs of its step or job (`--gpus-per-task`, `--gpu-bind`), it uses all that it sees, as if it were
/// alone. Devices that a script hides under `mpirun` look like devices that are hidden from all alike; give a list then.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum DeviceMap {
    /// `block`: neighbouring PEs share a device, or each PE has several neighbouring ones.
    #[default]
    Block,
    /// `cyclic`: PEs are dealt out to the devices in turn, or devices to the PEs.
    Cyclic,
    /// `0,0,1`: the ordinal of each PE's device, over again if there are more PEs. Of this process alone. Without any, the run does not
    /// start.
    List(Vec<usize>),
}

/// A text is no device map.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("give `block`, `cyclic`, or the device of each PE, as in `0,0,1,1`")]
pub struct DeviceMapError;

impl FromStr for DeviceMap {
    type Err = DeviceMapError;

    fn from_str(text: &str) -> Result<Self, DeviceMapError> {
        match text {
            "block" => Ok(DeviceMap::Block),
            "cyclic" => Ok(DeviceMap::Cyclic),
            list => {
                let ordinals = list.split(',').map(str::parse).collect::<Result<Vec<_>, _>>();
                ordinals.map(DeviceMap::List).map_err(|_| DeviceMapError)
            }
        }
    }
}

impl fmt::Display for DeviceMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceMap::Block => f.write_str("block"),
            DeviceMap::Cyclic => f.write_str("cyclic"),
            DeviceMap::List(list) => {
                let list = list.iter().map(usize::to_string).collect::<Vec<_>>();
                f.write_str(&list.join(","))
            }
        }
    }
}

/// The map names a device that is not there, or none at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub struct NoSuchDevice {
    /// None if the map names none.
    ordinal: Option<usize>,
    count: usize,
}

impl NoSuchDevice {
    fn text(&self) -> String {
        match self.ordinal {
            Some(ordinal) => {
                format!("--device-map names device {ordinal}, and there are {}, from 0", self.count)
            }
            None => "the device map is a list without devices; name the device of each PE, or take `block`"
                .to_owned(),
        }
    }
}

/// Where this process stands among those that were started together on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeRank {
    pub(crate) rank: usize,
    pub(crate) count: usize,
    /// Others are taken not to see the devices of this one.
    pub(crate) has_own_devices: bool,
}

impl NodeRank {
    const ALONE: NodeRank = NodeRank { rank: 0, count: 1, has_own_devices: false };

    pub(crate) fn of_this_process() -> NodeRank {
        NodeRank::from_env(|name| std::env::var(name).ok())
    }

    /// As the launcher says in the environment, which `env` looks up; alone, if nobody says.
    fn from_env(env: impl Fn(&str) -> Option<String>) -> NodeRank {
        // Open MPI; MPICH and Intel MPI; MVAPICH; Slurm, whose count may read `2(x3)`. What `mpirun` starts under Slurm has the
        // variables of both, and those of Slurm are about `mpirun` itself then.
        let launchers = [
            ("OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
            ("MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
            ("MV2_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_SIZE"),
            (SLURM_RANK, "SLURM_STEP_TASKS_PER_NODE"),
        ];
        let number = |name: &str| -> Option<usize> {
            let text = env(name)?;
            text.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
        };
        let said = launchers.iter().find_map(|&(rank, count)| Some((rank, number(rank)?, number(count)?)));
        match said {
            Some((by, rank, count)) if rank < count => {
                let has_own_devices = by == SLURM_RANK && count > 1 && sees_a_part(&env);
                NodeRank { rank, count, has_own_devices }
            }
            _ => NodeRank::ALONE,
        }
    }
}

/// Where Slurm says which of the processes of a machine this is.
const SLURM_RANK: &str = "SLURM_LOCALID";

/// Whether a process that Slurm has started sees only a part of the GPUs that its step, or else its job, has on this machine: as
/// many as each process was promised, or fewer than there are. Without a list of what it sees it is taken to see all.
fn sees_a_part(env: impl Fn(&str) -> Option<String>) -> bool {
    let listed = |name: &&str| Some(count_listed(&env(name)?)).filter(|&count| count > 0);
    let visible = ["CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"];
    let Some(visible) = visible.iter().find_map(listed) else { return false };
    // It may name the kind: `a100:2`. Slurm may list for a step only what the process sees of it.
    let promised = env("SLURM_GPUS_PER_TASK").and_then(|text| text.rsplit(':').next()?.parse().ok());
    let all = ["SLURM_STEP_GPUS", "SLURM_JOB_GPUS"].iter().find_map(listed);
    promised == Some(visible) || all.is_some_and(|all| visible < all)
}

/// How many devices a list such as `0,2-3` or `GPU-63756461-2073,1` names.
pub(crate) fn count_listed(list: &str) -> usize {
    let count = |item: &str| {
        let range = item.split_once('-').and_then(|(first, last)| {
            let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
            (last - first.min(last)).checked_add(1)
        });
        range.unwrap_or(1)
    };
    list.split(',').map(str::trim).filter(|item| !item.is_empty()).map(count).fold(0, usize::saturating_add)
}

/// What the binding wants to know of a device.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    pub(crate) uuid: String,
    /// The processors near it, if that is known.
    pub(crate) cpus: Option<Cpus>,
}

/// The ordinals of the devices of each of `pes` PEs of this process; at least one each.
pub(crate) fn bind(
    pes: usize,
    node: NodeRank,
    seats: &[Seat],
    own: Option<&Cpus>,
    map: &DeviceMap,
) -> Result<Vec<Vec<usize>>, NoSuchDevice> {
    if let DeviceMap::List(list) = map {
        let wrong = list.iter().find(|&&ordinal| ordinal >= seats.len()).copied();
        if list.is_empty() || wrong.is_some() {
            return Err(NoSuchDevice { ordinal: wrong, count: seats.len() });
        }
        return Ok((0..pes).map(|pe| vec![list[pe % list.len()]]).collect());
    }
    let node = if node.has_own_devices { NodeRank::ALONE } else { node };
    let mut order: Vec<usize> = (0..seats.len()).collect();
    if node.count > 1 {
        // Each process may see them in an order of its own.
        order.sort_by_key(|&ordinal| &seats[ordinal].uuid);
    }
    let is_near = |&&ordinal: &&usize| match (own, &seats[ordinal].cpus) {
        // A process that is alone leaves no device idle.
        (Some(own), Some(cpus)) if node.count > 1 => own.meets(cpus),
        _ => true,
    };
    let near: Vec<usize> = order.iter().filter(is_near).copied().collect();
    let all_are_near = near.is_empty() || near.len() == order.len();
    let devices = if near.is_empty() { order } else { near };
    let (count, total) = (devices.len(), pes * node.count);
    // How many processes share a part of the devices is not known here: dealing is even for any number of them.
    let is_cyclic = *map == DeviceMap::Cyclic || (!all_are_near && node.count > 1);
    let of_pe = |pe: usize| {
        let at = node.rank * pes + pe;
        match is_cyclic {
            true if total >= count => vec![devices[at % count]],
            true => devices.iter().skip(at).step_by(total).copied().collect(),
            false if total >= count => vec![devices[at * count / total]],
            false => devices[at * count / total..(at + 1) * count / total].to_vec(),
        }
    };
    Ok((0..pes).map(of_pe).collect())
}

/// How much a device has to do already.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) owners: usize,
    pub(crate) speed: f64,
    pub(crate) is_full: bool,
    /// Nothing can be done there any more.
    pub(crate) is_lost: bool,
}

impl Load {
    pub(crate) fn of(device: &Device) -> Load {
        let is_full = device.used_bytes() >= device.capacity_bytes();
        let is_lost = device.loss().is_some();
        Load { owners: device.owner_count(), speed: device.speed(), is_full, is_lost }
    }

    /// What share of its time each owner would have if there were one more: the larger, the worse.
    pub(crate) fn with_one_more(self) -> f64 {
        (self.owners + 1) as f64 / self.speed
    }
}

/// Which of these devices gets the next owner: the one that would be loaded least for its speed, of those with room, and none that is
/// lost as long as there is another.
pub(crate) fn least_loaded(loads: &[Load]) -> usize {
    let by_load = |one: &usize, other: &usize| {
        let (one, other) = (loads[*one], loads[*other]);
        let by_state = (one.is_lost, one.is_full).cmp(&(other.is_lost, other.is_full));
        by_state.then(one.with_one_more().total_cmp(&other.with_one_more()))
    };
    (0..loads.len()).min_by(by_load).expect("a PE has a device")
}

/// The devices of a run, and which PE uses which.
pub(crate) struct BoundDevices {
    devices: Devices,
    by_pe: Vec<Vec<usize>>,
}

impl BoundDevices {
    pub(crate) fn new(devices: Devices, pes: usize, map: &DeviceMap) -> Result<Self, NoSuchDevice> {
        let seat = |(device, vitals): (&Device, Vitals)| Seat {
            uuid: device.uuid().to_owned(),
            cpus: vitals.near_cpus,
        };
        let seats: Vec<Seat> = devices.iter().zip(devices.vitals()).map(seat).collect();
        let own = if seats.iter().any(|seat| seat.cpus.is_some()) { Cpus::of_this_process() } else { None };
        let by_pe = bind(pes, NodeRank::of_this_process(), &seats, own.as_ref(), map)?;
        Ok(BoundDevices { devices, by_pe })
    }

    /// The ordinals of the devices of a PE, by its number in this process.
    pub(crate) fn of_pe(&self, own_number: usize) -> &[usize] {
        &self.by_pe[own_number]
    }

    /// By PE: the ordinals of its devices.
    pub(crate) fn by_pe(&self) -> &[Vec<usize>] {
        &self.by_pe
    }

    /// Whether memory goes as is asked for from each device that a PE uses to each other.
    ///
    /// # Errors
    /// Between which it does not, and why.
    pub(crate) fn check_path(&self, wanted: DevicePath) -> Result<(), OptionsError> {
        let used = self.used();
        let pairs = used.iter().flat_map(|&from| used.iter().map(move |&to| (from, to)));
        pairs.filter(|(from, to)| from != to).try_for_each(|(from, to)| {
            wanted.allows(self.path(from, to)).map_err(|why| {
                let between = format!("from {} to {}", self.get(from).name(), self.get(to).name());
                OptionsError::impossible_path(&wanted.to_string(), &between, why)
            })
        })
    }

    /// The ordinals of the devices that any PE uses.
    pub(crate) fn used(&self) -> Vec<usize> {
        let mut ordinals = self.by_pe.concat();
        ordinals.sort_unstable();
        ordinals.dedup();
        ordinals
    }
}

impl Deref for BoundDevices {
    type Target = Devices;

    fn deref(&self) -> &Devices {
        &self.devices
    }
}

impl Pe {
    /// The device account of a chare; `None` outside of its own methods and its constructor.
    pub(crate) fn account_of(&self, id: ChareId, class: &'static str) -> Option<Account> {
        if let Some(account) = self.own_extra(id, |extra| extra.account.clone())? {
            return Some(account);
        }
        self.open_account(id, class, self.least_loaded_device())
    }

    /// The ordinal of that one of this PE's devices which has the least to do.
    fn least_loaded_device(&self) -> usize {
        let devices = self.shared().devices();
        match devices.of_pe(self.shared().own_number(self.id())) {
            [only] => *only,
            several => {
                let loads: Vec<Load> =
                    several.iter().map(|&ordinal| Load::of(devices.get(ordinal))).collect();
                several[least_loaded(&loads)]
            }
        }
    }

    fn open_account(&self, id: ChareId, class: &'static str, ordinal: usize) -> Option<Account> {
        let name = format!("{class}{}", self.element_name(id));
        let account = self.shared().devices().get(ordinal).account(name);
        self.own_extra(id, |extra| extra.account = Some(account.clone()))?;
        Some(account)
    }

    /// Lets a chare that has arrived here, or one that asks for it, use this device, if all that it holds fits.
    fn move_account(&self, id: ChareId, account: &Account, ordinal: usize) {
        let from = account.device();
        if let Err(error) = account.move_to(self.shared().devices().get(ordinal)) {
            let (chare, device) = (self.chare_name(id), from.name().to_owned());
            self.warn(&Warning::Device(DeviceWarning { chare, device, error }));
        }
    }

    /// Lets a chare that has arrived here use a device of this PE, unless it keeps its own.
    pub(crate) fn rebind(&self, chare: ChareRef) {
        let follows = |extra: &mut Extra| if extra.keeps_device { None } else { extra.account.clone() };
        let Some(account) = chare.extra_if_any(follows).flatten() else { return };
        let own_number = self.shared().own_number(self.id());
        if !self.shared().devices().of_pe(own_number).contains(&account.device().ordinal()) {
            self.move_account(chare.id, &account, self.least_loaded_device());
        }
    }
}

/// A chare stays on a device though it was to go to another one.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DeviceWarning {
    /// The chare.
    pub chare: String,
    /// The device where it stays.
    pub device: String,
    /// Why: what the other one said.
    pub error: DeviceError,
}

impl fmt::Display for DeviceWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DeviceWarning { chare, device, error } = self;
        write!(f, "{chare} stays on {device} with all its buffers: {error}")
    }
}

impl<C: Chare> Cx<C> {
    /// The device account of this chare: what it allocates and launches through it is accounted to it.
    ///
    /// It is opened at the first call, on the device that this PE is bound to ([`DeviceMap`]), or on the least loaded if the PE
    /// has several, and goes with the chare to other PEs. If such a PE has other devices, so has the account from the arrival on:
    /// what is launched goes to the chare's device, wherever that is by then, and buffers follow ([`Account::move_to`]).
    ///
    /// # Panics
    /// Outside of this chare's own methods and constructor.
    #[track_caller]
    pub fn device(&self) -> Account {
        current::on_pe("Cx::device", |pe| pe.account_of(self.id(), C::INFO.name))
            .expect("a chare uses its device in its own methods and its constructor only")
    }

    /// Moves this chare's account to the device with this ordinal, whichever its PE is bound to, for good: also when the chare moves to
    /// another PE. So `cx.use_device(cx.device().device().ordinal())` keeps it where it is. Buffers follow ([`Account::move_to`]).
    ///
    /// If what the chare holds does not fit there, it stays where it is, with a [`Warning::Device`]; so it does if the device is lost.
    ///
    /// # Panics
    /// If there is no such device, and outside of this chare's own methods and constructor.
    #[track_caller]
    pub fn use_device(&self, ordinal: usize) -> Account {
        let moved = current::on_pe("Cx::use_device", |pe| {
            let count = pe.shared().devices().len();
            assert!(ordinal < count, "there is no device {ordinal}: there are {count}, from 0");
            let present = pe.own_extra(self.id(), |extra| {
                extra.keeps_device = true;
                extra.account.clone()
            });
            let Some(account) = present? else { return pe.open_account(self.id(), C::INFO.name, ordinal) };
            pe.move_account(self.id(), &account, ordinal);
            Some(account)
        });
        moved.expect("a chare chooses its device in its own methods and its constructor only")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALONE: NodeRank = NodeRank::ALONE;
    const SECOND: NodeRank = of_several(1, 2);

    /// A process that sees what its neighbours see.
    const fn of_several(rank: usize, count: usize) -> NodeRank {
        NodeRank { rank, count, has_own_devices: false }
    }

    fn seats(count: usize) -> Vec<Seat> {
        (0..count).map(|ordinal| Seat { uuid: format!("{ordinal}"), cpus: None }).collect()
    }

    /// Ordinals by PE: `0 0 1`, or `01 2` where PE 0 has two.
    fn show(bound: Result<Vec<Vec<usize>>, NoSuchDevice>) -> String {
        let one = |ordinals: &Vec<usize>| ordinals.iter().map(usize::to_string).collect::<String>();
        bound.unwrap().iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn pes_and_devices_are_spread_evenly() {
        for (pes, devices, block, cyclic) in [
            (1, 1, "0", "0"),
            (3, 1, "0 0 0", "0 0 0"),
            (4, 4, "0 1 2 3", "0 1 2 3"),
            (8, 3, "0 0 0 1 1 1 2 2", "0 1 2 0 1 2 0 1"),
            (4, 2, "0 0 1 1", "0 1 0 1"),
            (1, 3, "012", "012"),
            (2, 4, "01 23", "02 13"),
            (3, 4, "0 1 23", "03 1 2"),
            (2, 5, "01 234", "024 13"),
        ] {
            let bound = |map| show(bind(pes, ALONE, &seats(devices), None, &map));
            assert_eq!(bound(DeviceMap::Block), block, "{pes} PEs, {devices} devices");
            assert_eq!(bound(DeviceMap::Cyclic), cyclic, "{pes} PEs, {devices} devices");
        }
    }

    #[test]
    fn a_list_is_what_it_says_or_names_what_is_not_there() {
        let bound = |pes, list: &str| bind(pes, ALONE, &seats(2), None, &list.parse().unwrap());
        assert_eq!(show(bound(5, "1,0,0")), "1 0 0 1 0");
        let error = bound(1, "0,2").unwrap_err().to_string();
        assert_eq!(error, "--device-map names device 2, and there are 2, from 0");
        for text in ["block", "cyclic", "0", "3,1"] {
            assert_eq!(text.parse::<DeviceMap>().unwrap().to_string(), text);
        }
        for text in ["", "x", "0,", "0;1", "-1"] {
            assert_eq!(text.parse::<DeviceMap>(), Err(DeviceMapError), "{text}");
        }
    }

    #[test]
    fn processes_of_one_machine_agree_by_uuid() {
        let orders = [["b", "a"], ["a", "b"]];
        let bound = |rank: usize, pes: usize| {
            let seats: Vec<_> =
                orders[rank].iter().map(|uuid| Seat { uuid: (*uuid).to_owned(), cpus: None }).collect();
            let bound = bind(pes, of_several(rank, 2), &seats, None, &DeviceMap::Block).unwrap();
            bound.iter().flatten().map(|&ordinal| orders[rank][ordinal]).collect::<String>()
        };
        assert_eq!((bound(0, 1), bound(1, 1)), ("a".to_owned(), "b".to_owned()));
        assert_eq!((bound(0, 2), bound(1, 2)), ("aa".to_owned(), "bb".to_owned()));
        let one_each = |rank| show(bind(2, of_several(rank, 2), &seats(4), None, &DeviceMap::Block));
        assert_eq!((one_each(0), one_each(1)), ("0 1".to_owned(), "2 3".to_owned()));
    }

    #[test]
    fn a_process_uses_the_devices_near_its_processors() {
        let near = |cpus: &[Option<&str>]| -> Vec<Seat> {
            let seat = |(ordinal, cpus): (usize, &Option<&str>)| Seat {
                uuid: format!("{ordinal}"),
                cpus: cpus.map(|cpus| cpus.parse().unwrap()),
            };
            cpus.iter().enumerate().map(seat).collect()
        };
        let two_sockets = near(&[Some("0-7"), Some("0-7"), Some("8-15"), Some("8-15")]);
        for (seats, own, node, bound) in [
            (&two_sockets, "2-3", ALONE, "01 23"),
            (&two_sockets, "0-15", SECOND, "2 3"),
            (&two_sockets, "2-3", SECOND, "0 1"),
            (&two_sockets, "8-9", SECOND, "2 3"),
            (&two_sockets, "16", SECOND, "2 3"),
            (&near(&[Some("0-7"), None]), "9", SECOND, "1 1"),
            (&two_sockets, "8", of_several(2, 4), "2 3"),
            (&two_sockets, "8", of_several(3, 4), "2 3"),
        ] {
            let own: Cpus = own.parse().unwrap();
            assert_eq!(show(bind(2, node, seats, Some(&own), &DeviceMap::Block)), bound, "{own}");
        }
    }

    #[test]
    fn launchers_say_where_a_process_stands() {
        let rank = |pairs: &[(&str, &str)]| {
            let env =
                |name: &str| pairs.iter().find(|(one, _)| *one == name).map(|(_, value)| (*value).to_owned());
            let NodeRank { rank, count, .. } = NodeRank::from_env(env);
            (rank, count)
        };
        assert_eq!(rank(&[]), (0, 1));
        let open_mpi = [("OMPI_COMM_WORLD_LOCAL_RANK", "3"), ("OMPI_COMM_WORLD_LOCAL_SIZE", "4")];
        assert_eq!(rank(&open_mpi), (3, 4));
        assert_eq!(rank(&[("MPI_LOCALRANKID", "1"), ("MPI_LOCALNRANKS", "2")]), (1, 2));
        assert_eq!(rank(&[("SLURM_LOCALID", "1"), ("SLURM_STEP_TASKS_PER_NODE", "2(x3)")]), (1, 2));
        assert_eq!(rank(&[("SLURM_LOCALID", "2"), ("SLURM_STEP_TASKS_PER_NODE", "2(x3),4")]), (0, 1));
        assert_eq!(rank(&open_mpi[..1]), (0, 1));
    }

    #[test]
    fn slurm_says_who_has_devices_of_its_own() {
        let srun = [("SLURM_LOCALID", "1"), ("SLURM_STEP_TASKS_PER_NODE", "2")];
        let mpirun = [("OMPI_COMM_WORLD_LOCAL_RANK", "1"), ("OMPI_COMM_WORLD_LOCAL_SIZE", "2")];
        let alone = [("SLURM_LOCALID", "0"), ("SLURM_STEP_TASKS_PER_NODE", "1")];
        let visible = |list| ("CUDA_VISIBLE_DEVICES", list);
        let (step, job) = (("SLURM_STEP_GPUS", "0,1,2,3"), ("SLURM_JOB_GPUS", "4-7"));
        let promised = |text| ("SLURM_GPUS_PER_TASK", text);
        for (launcher, said, has_own) in [
            // `srun --gpus-per-task=2`, with and without a list of the step's.
            (srun, vec![visible("0,1"), promised("2"), step], true),
            (srun, vec![visible("0,1"), promised("2"), ("SLURM_STEP_GPUS", "0,1")], true),
            (srun, vec![visible("2,3"), promised("a100:2")], true),
            (srun, vec![("ROCR_VISIBLE_DEVICES", "0,1"), promised("2")], true),
            // `--gpu-bind` without a promise, and UUIDs.
            (srun, vec![visible("0,1"), step], true),
            (srun, vec![visible("GPU-6-7,GPU-6-8,GPU-9"), job], true),
            // All see all: `--gpus=4`, or `--gpus-per-task=2 --gpu-bind=none`.
            (srun, vec![visible("0,1,2,3"), step, job], false),
            (srun, vec![visible("0,1,2,3"), promised("2"), step], false),
            (srun, vec![visible("0-3"), job], false),
            // A step that has two of the job's four, which both processes see.
            (srun, vec![visible("0,1"), ("SLURM_STEP_GPUS", "0,1"), job], false),
            // Nothing is said of what this process sees.
            (srun, vec![promised("2"), step], false),
            (srun, vec![visible(""), promised("2"), step], false),
            (srun, vec![visible("0,1")], false),
            // What Slurm says is about `mpirun`; and whoever is alone shares with nobody.
            (mpirun, vec![visible("0,1"), promised("2"), step], false),
            (alone, vec![visible("0,1"), promised("2"), step], false),
        ] {
            let all: Vec<_> = launcher.iter().chain(&said).collect();
            let env =
                |name: &str| all.iter().find(|(one, _)| *one == name).map(|(_, value)| (*value).to_owned());
            assert_eq!(NodeRank::from_env(env).has_own_devices, has_own, "{all:?}");
        }
    }

    #[test]
    fn devices_of_its_own_are_all_used() {
        for rank in 0..2 {
            let own = NodeRank { has_own_devices: true, ..of_several(rank, 2) };
            for (pes, devices, bound) in [(1, 2, "01"), (2, 2, "0 1"), (4, 2, "0 0 1 1"), (3, 1, "0 0 0")] {
                assert_eq!(
                    show(bind(pes, own, &seats(devices), None, &DeviceMap::Block)),
                    bound,
                    "{pes} PEs"
                );
            }
        }
    }

    #[test]
    fn the_next_owner_goes_where_there_is_most_left() {
        let load = |owners, speed, is_full| Load { owners, speed, is_full, is_lost: false };
        assert_eq!(least_loaded(&[load(1, 1.0, false), load(0, 1.0, false)]), 1);
        assert_eq!(least_loaded(&[load(0, 1.0, false), load(0, 1.0, false)]), 0);
        assert_eq!(least_loaded(&[load(1, 1.0, false), load(4, 3.0, false)]), 1);
        assert_eq!(least_loaded(&[load(0, 1.0, true), load(9, 1.0, false)]), 1);
        assert_eq!(least_loaded(&[load(2, 1.0, true), load(1, 1.0, true)]), 1);
        // One that is lost only if all are.
        let lost = Load { is_lost: true, ..load(0, 9.0, false) };
        assert_eq!(least_loaded(&[lost, load(9, 1.0, true)]), 1);
        assert_eq!(least_loaded(&[lost, lost]), 0);
    }
}
